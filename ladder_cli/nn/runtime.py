"""How a method runs on a machine: what a user may choose anew each time, so that no adapter records it."""

from dataclasses import dataclass

from ladder_cli.nn.loss import DEFAULT_CHUNK


@dataclass(frozen=True)
class Runtime:
    """Memory against time, and what is handed out. Given at attach, it holds for adapters that come later too.

    Attributes:
        recompute: side layers keep their input alone for the backward pass, which computes the rest again.
        int8_taps: taps are kept for the backward pass in eight bits, which rounds gradients of down-projections.
        loss_chunk: counted tokens whose logits exist at the same time where the model computes its own loss.
        recompute_suffix: the backbone's layers that learn are run again in the backward pass.
        reference: `hidden` hands out the bare backbone's state too, for an objective that reads it.
    """

    recompute: bool = False
    int8_taps: bool = False
    loss_chunk: int = DEFAULT_CHUNK
    recompute_suffix: bool = False
    reference: bool = False
