"""A frozen backbone whose layers are on disk or in the host's memory, and come through a small window.

A backbone that is only read is read once in every pass, and in one direction: the next layers come while one computes.
Each layer sends for itself, so that whoever runs the model's own `forward` (a proof, `generate`) streams it too.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from bitsandbytes.nn import Linear8bitLt
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, GenerationConfig, PreTrainedModel

from ladder_cli.config.choices import Quantization, Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.trunk.base import Batch, TapRequest, Taps, TrunkCost
from ladder_cli.trunk.compact import MakeLinear, make_lean, quantized_linear
from ladder_cli.trunk.layer_files import LayerFile, give_freed_blocks_back
from ladder_cli.trunk.layer_folder import filled, prepare_layers
from ladder_cli.trunk.live import LiveTrunk, _remove
from ladder_cli.trunk.parts import anatomy_of, keep_differentiable
from ladder_cli.trunk.upper import structural_copy
from ladder_cli.trunk.window import Copier, CudaCopier, Lane, MappedLane, RingLane, Window, pinned_copies


class Source(Protocol):
    """Where layers come from.

    Attributes:
        files: of the layers, in their order.
    """

    files: list[LayerFile]

    def lane(self, layers: Sequence[nn.Module], window: int) -> Lane:
        """What brings them to modules that lie over the files, as many as `window` at a time."""
        ...

    def repeated(self, times: int) -> "Source":
        """So many times the same layers, one after the other."""
        ...


@dataclass
class MappedSource:
    """Files that the computing device can read itself."""

    files: list[LayerFile]

    def lane(self, layers: Sequence[nn.Module], window: int) -> Lane:
        """See `Source`."""
        return MappedLane(self.files)

    def repeated(self, times: int) -> "MappedSource":
        """See `Source`."""
        return MappedSource(self.files * times)


@dataclass
class CopiedSource:
    """Files, or page-locked copies of them, that a GPU is sent copies of."""

    files: list[LayerFile]
    copier: Copier
    pinned: list[Tensor]

    def lane(self, layers: Sequence[nn.Module], window: int) -> Lane:
        """See `Source`."""
        return RingLane(layers, self.files, window, self.copier, self.pinned)

    def repeated(self, times: int) -> "CopiedSource":
        """See `Source`."""
        return CopiedSource(self.files * times, self.copier, self.pinned * times)


class StreamedTrunk(LiveTrunk):
    """A backbone over layer files.

    Attributes:
        window: brings layers and lets them go.

    Its 4-bit layers are never packed for the CPU (`parts.keep_differentiable`): they lie where they are mapped.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        source: "Source",
        device: torch.device,
        window: int,
        name: str = "",
        revision: str | None = None,
    ) -> None:
        """Hang the hooks by which layers come and go.

        Args:
            backbone: its layers over the files of `source`, the rest where it computes.
            source: of the layers.
            device: where it computes.
            window: layers that are there at a time.
            name, revision: see `LiveTrunk`.
        """
        self._source, self._files, self._device, self._size = source, source.files, device, window
        self.window = Window(source.lane(list(anatomy_of(backbone).layers), window), len(source.files), window)
        self._streaming: list[RemovableHandle] = []
        keep_differentiable(backbone)
        super().__init__(backbone, name, revision)

    def hang(self) -> None:
        """A layer has left before a tap ends the pass, and a pass that reads nothing of a layer sends for none."""
        _remove(self._streaming)
        layers = self.parts.layers
        leaves = [layer.register_forward_hook(partial(_leave, self.window, n)) for n, layer in enumerate(layers, 1)]
        super().hang()
        arrives = [
            layer.register_forward_pre_hook(partial(_arrive, self.window, n), with_kwargs=True)
            for n, layer in enumerate(layers, 1)
        ]
        self._streaming += leaves + arrives
        self._handles += self._streaming  # go with the trunk

    @property
    def device(self) -> torch.device:
        """Where it computes; the layers' weights are elsewhere."""
        return self._device

    @property
    def streamed(self) -> frozenset[int]:
        """Layers that come and go, counted from 1."""
        return self.window.streamed

    def hold(self, layers: Iterable[int]) -> None:
        """Keep these layers' weights where it computes: gradients will pass through them.

        Raises:
            UserError: if a file is damaged.
        """
        self.window.hold(layers)

    def taps(self, request: TapRequest, batch: Batch, cache: Cache | None = None, /, **more: Any) -> Taps:
        """As of a live one, bit for bit. While nobody asks, the first layers of the next pass come."""
        depth = len(self.parts.layers)
        self.window.end = depth if request.final else max(request.layers, default=0) or depth
        try:
            return super().taps(request, batch, cache, **more)
        finally:
            self.window.end = depth

    def view(self) -> "StreamedTrunk":
        """See `LiveTrunk.view`; the two share files and page-locked copies, and each has a window of its own."""
        copied = structural_copy(self.backbone)
        for module in copied.modules():
            if isinstance(module, Linear8bitLt):
                module.state = copy.copy(module.state)  # which is pointed at a buffer while a layer is here
        twin = StreamedTrunk(copied, self._source, self._device, self._size, self.name, self.revision)
        twin._identity = self._identity
        return twin

    def settle(self, model: nn.Module) -> None:
        """Give back what reading first weights has brought, and refuse gradients through layers that are not here.

        Raises:
            UserError: if gradients pass through streamed layers.
        """
        refuse_gradients(model, self.streamed)
        for number in self.streamed:
            self._files[number - 1].release()

    def cost(self, request: TapRequest) -> TrunkCost:
        """As of a live one; the layers that come and go are moved here in every pass, and the window is resident."""
        whole = super().cost(request)
        last = whole.layers if request.final else max(request.layers, default=0)
        sizes = {number: self._files[number - 1].nbytes for number in self.streamed}
        window = self._size * max(sizes.values(), default=0)
        return TrunkCost(
            parameters=whole.parameters,
            layers=whole.layers,
            resident_bytes=sum(weight.nbytes for weight in self._resident()) + window,
            moved_bytes=sum(size for number, size in sizes.items() if number <= last),
            flops_per_token=whole.flops_per_token,
            head=whole.head,
        )

    def _resident(self) -> Iterable[Tensor]:
        streamed = {id(weight) for number in self.streamed for weight in self.parts.layers[number - 1].parameters()}
        return (weight for weight in super()._resident() if id(weight) not in streamed)


def _arrive(window: Window, number: int, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    hidden = args[0] if args else kwargs["hidden_states"]
    if torch.is_grad_enabled() and hidden.requires_grad and number in window.streamed:
        raise UserError(_GRADIENTS.format(number))
    window.arrive(number)


def _leave(window: Window, number: int, layer: nn.Module, args: tuple, output: Any) -> None:
    window.leave(number)


_GRADIENTS = (
    "gradients would pass through layer {} of the backbone, which is streamed: use trunk.residency=resident, or a "
    "method that only reads (ladder, xladder, branch, suffix)."
)


def refuse_gradients(model: nn.Module, streamed: frozenset[int]) -> None:
    """Refuse a model whose gradients pass through the whole backbone.

    Raises:
        UserError: naming the setting.
    """
    if streamed and getattr(model, "request", _READS) is None:
        raise UserError(_GRADIENTS.format(min(streamed)))


_READS = object()


def _unmoved(layer: nn.Module, *_: Any, **__: Any) -> nn.Module:
    return layer


def open_streamed(
    model: ModelConfig,
    device: torch.device,
    residency: Residency,
    window: int,
    place: Path | None = None,
    name: str = "",
) -> StreamedTrunk:
    """A streamed backbone; its layer files are made if they are not there.

    Args:
        model: what to open.
        device: where it computes.
        residency: `host` or `disk`.
        window: layers that are there at a time.
        place: folder above the layer files; None: the user's cache.
        name: see `LiveTrunk`.

    Raises:
        UserError: if it cannot be read, taken apart or streamed.
    """
    if (device.type, residency) not in SOURCES:
        raise UserError(
            f"trunk.residency={residency} is for GPUs: a {device.type.upper()} computes in the host's memory. Use "
            "trunk.residency=resident or disk."
        )
    if device.type == "cpu":
        give_freed_blocks_back()
    backbone, files, rest = over_files(model, device, place)
    nn.Module.to(backbone, device)  # Transformers' own refuses quantised models
    kind = model.head_quantization
    make_lean(backbone, model, device, _giving_back(kind, rest) if kind is not Quantization.NONE else None)
    rest.release()  # of embeddings only rows come again, of a head that was moved or quantised nothing
    _let_rows_go(backbone, rest)
    source = SOURCES[device.type, residency](files, device)
    return StreamedTrunk(backbone, source, device, window, name or model.location, model.revision)


def _let_rows_go(backbone: PreTrainedModel, rest: LayerFile) -> None:
    """Let go of embeddings' pages once rows were looked up: the system maps far more of them than is asked for.

    A head that shares them reads all of them in every step anyway.
    """
    embeddings = backbone.get_input_embeddings()
    weight = embeddings.get_parameter("weight")
    head = backbone.get_output_embeddings()
    if weight.device.type == "cpu" and getattr(head, "weight", None) is not weight:
        embeddings.register_forward_hook(lambda *_: rest.release(weight))


def over_files(
    model: ModelConfig, device: torch.device, place: Path | None
) -> tuple[PreTrainedModel, list[LayerFile], LayerFile]:
    """A backbone over its mapped layer files, made if they are not there; the files of its layers, and the rest's.

    Who moves the whole model leaves its layers where they are.

    Raises:
        UserError: if it cannot be read or taken apart.
    """
    backbone, files, rest = filled(model, device, prepare_layers(model, device, place))
    with contextlib.suppress(OSError):  # a model without one has the defaults of its config
        backbone.generation_config = GenerationConfig.from_pretrained(model.location, revision=model.revision or "main")
    for layer in anatomy_of(backbone).layers:
        layer._apply = partial(_unmoved, layer)  # type: ignore[method-assign]
    return backbone, files, rest


def _giving_back(kind: Quantization, rest: LayerFile) -> MakeLinear:
    """Quantises a block of the head, and gives back the pages that it was read from."""
    make = quantized_linear(kind)

    def made(rows: Tensor) -> nn.Module:
        layer = make(rows)
        rest.release()
        return layer

    return made


def _mapped(files: list[LayerFile], device: torch.device) -> Source:
    return MappedSource(files)


def _copied(files: list[LayerFile], device: torch.device) -> Source:
    return CopiedSource(_alike(files), CudaCopier(device), [])


def _pinned(files: list[LayerFile], device: torch.device) -> Source:
    copier = CudaCopier(device)
    return CopiedSource(_alike(files), copier, pinned_copies(files, copier))


def _alike(files: list[LayerFile]) -> list[LayerFile]:
    if any(file.layout != files[0].layout for file in files):
        raise UserError(
            "the layers of this backbone differ in shape, and one ring of buffers cannot hold them all: use "
            "trunk.residency=resident."
        )
    return files


# By the device that computes and where the layers are.
SOURCES: dict[tuple[str, Residency], Callable[[list[LayerFile], torch.device], Source]] = {
    ("cpu", Residency.DISK): _mapped,
    ("cuda", Residency.DISK): _copied,
    ("cuda", Residency.HOST): _pinned,
}
