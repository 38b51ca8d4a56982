"""Layers that come and go through a window (`trunk.streamed`), in the count of a step's memory."""

from collections.abc import Iterable

from transformers import PreTrainedModel

from ladder_cli.plan.allocation import AllocationCount
from ladder_cli.trunk.base import WHOLE, TapRequest
from ladder_cli.trunk.live import LiveTrunk

WINDOW = "window"


class ShapeTrunk(LiveTrunk):
    """A backbone without values, which remembers what has to stay.

    Attributes:
        held: layers that gradients will pass through, counted from 1.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__(backbone)
        self.held: set[int] = set()

    def hold(self, layers: Iterable[int]) -> None:
        """Remember them."""
        self.held.update(layers)


def stream_layers(
    trunk: ShapeTrunk, request: TapRequest | None, window: int, count: AllocationCount
) -> tuple[int, int]:
    """Count layers that come and go as a window of the largest of them.

    Args:
        trunk: after a method was attached.
        request: what the method reads; layers above are never run.
        window: layers that are there at a time.
        count: with the layers' weights in it already.

    Returns:
        Bytes that are moved in every pass, and bytes of all layers that come and go.
    """
    asked = request or WHOLE
    last = len(trunk.parts.layers) if asked.final else max(asked.layers, default=0)
    moved = whole = largest = 0
    for number, layer in enumerate(trunk.parts.layers, start=1):
        if number in trunk.held:
            continue
        frozen = [parameter for parameter in layer.parameters() if not parameter.requires_grad]
        size = sum(count.resize(parameter, 0) for parameter in frozen)
        moved += size if number <= last else 0
        whole, largest = whole + size, max(largest, size)
    count.grow(WINDOW, min(window * largest, whole))
    return moved, whole
