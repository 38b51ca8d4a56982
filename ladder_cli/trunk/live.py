"""A backbone in memory: one forward pass without gradients, watched by hooks that were hung once."""

import contextlib
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, PreTrainedModel

from ladder_cli.trunk.base import Batch, TapRequest, Taps, Trunk, TrunkCost
from ladder_cli.trunk.loading import parameter_count
from ladder_cli.trunk.parts import Anatomy, anatomy_of
from ladder_cli.trunk.upper import structural_copy
from ladder_cli.trunk.weights_identity import weights_identity


class _Enough(Exception):
    """Ends a forward pass whose rest nobody reads."""


@dataclass
class _Pass:
    """One pass that is under way: what is wanted of it, and what has been seen."""

    wanted: frozenset[int]
    last: int
    stops: bool  # after layer `last`, since nobody reads what follows
    outputs: dict[int, Tensor] = field(default_factory=dict)
    lookups: list[tuple[tuple, Tensor]] = field(default_factory=list)


class _Watch:
    """What the hooks report to; outside of a pass they do nothing.

    It knows nothing of the backbone, so that hooks keep no model alive. Hooks are bound to it and not to local
    variables, so that a deep copy of a model watches itself.
    """

    def __init__(self) -> None:
        self.current: _Pass | None = None

    def look_up(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self.current is not None:
            self.current.lookups.append((args, output))

    def enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.current is not None:
            self.current.outputs[0] = args[0] if args else kwargs["hidden_states"]
            if self.current.stops and self.current.last == 0:
                raise _Enough

    def leave(self, number: int, module: nn.Module, args: tuple, output: Any) -> None:
        if self.current is None or number not in self.current.wanted:
            return
        self.current.outputs[number] = output[0] if isinstance(output, tuple) else output
        if self.current.stops and number == self.current.last:
            raise _Enough


class LiveTrunk:
    """A loaded Transformers model, frozen.

    Attributes:
        name: hub repository or folder where it can be found again.
        revision: on the hub.
    """

    def __init__(self, backbone: PreTrainedModel, name: str = "", revision: str | None = None) -> None:
        """Freeze `backbone` and hang the hooks.

        Args:
            backbone: any decoder-only model that `anatomy_of` knows.
            name: by default the place it was loaded from.
            revision: branch, tag or commit on the hub.

        Raises:
            UserError: if the architecture is not of the known shape.
        """
        self.backbone = backbone.requires_grad_(False)
        self.name = name or backbone.config._name_or_path
        self.revision = revision
        self.parts: Anatomy = anatomy_of(backbone)
        self._identity: str | None = None
        self._watch = _Watch()
        self._handles: list[RemovableHandle] = []
        self.hang()
        # A backbone may outlive the trunks over it.
        weakref.finalize(self, _remove, self._handles)

    def hang(self) -> None:
        """Hang the hooks, or hang them anew: behind those that somebody else has hung meanwhile."""
        _remove(self._handles)
        layers = self.parts.layers
        self._handles.append(layers[0].register_forward_pre_hook(self._watch.enter, with_kwargs=True))
        self._handles.append(self.parts.embeddings.register_forward_hook(self._watch.look_up))
        for number, layer in enumerate(layers, start=1):
            self._handles.append(layer.register_forward_hook(partial(self._watch.leave, number)))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.parts.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in."""
        return self.parts.dtype

    @property
    def identity(self) -> str | None:
        """Of the weights (`trunk.weights_identity`); None until it was set, or asked for by `identify`."""
        return self._identity

    @identity.setter
    def identity(self, value: str | None) -> None:
        if self._identity is not None and value != self._identity:
            raise ValueError(f"the weights of this trunk are {self._identity}, not {value}")
        self._identity = value

    def identify(self) -> str:
        """The identity of the weights, hashed if nobody has done so.

        Raises:
            UserError: if the place that it names has no weights to be read.
        """
        if self._identity is None:
            self._identity = weights_identity(self.name, self.revision)
        return self._identity

    def whole(self) -> PreTrainedModel:
        """The model itself."""
        return self.backbone

    def hold(self, layers: Iterable[int]) -> None:
        """Nothing to do: all of them are here."""

    def settle(self, model: nn.Module) -> None:
        """Nothing to do: it was loaded where it computes."""

    def view(self) -> "LiveTrunk":
        """Another trunk over a structural copy that shares all weights: a method may put its parts into it, and this
        one stays bare.
        """
        twin = LiveTrunk(structural_copy(self.backbone), self.name, self.revision)
        twin._identity = self._identity
        return twin

    def taps(self, request: TapRequest, batch: Batch, cache: Cache | None = None, /, **more: Any) -> Taps:
        """Run the decoder stack once, without gradients.

        Nothing but the requested layers' outputs outlives the call, and no layer runs after the last one requested.

        Args:
            request: which outputs.
            batch: rows; its labels and row ids are not read.
            cache: filled by the pass.
            more: further arguments of the backbone's own `forward` (ready masks, `inputs_embeds`, what engines hand
                on to the layers).
        """
        inputs = {**batch.inputs, **more, "past_key_values": cache, "use_cache": cache is not None}
        depth = len(self.parts.layers)
        last = depth if request.final else max(request.layers, default=0)
        running = _Pass(request.layers | {last}, last, stops=last < depth)
        self._watch.current = running
        try:
            # Not inference_mode: its tensors may not be saved for the side network's backward pass.
            with torch.no_grad(), contextlib.suppress(_Enough):
                self.parts.decoder(**inputs)
        finally:
            self._watch.current = None
        seen = running.outputs
        rungs = {number: seen[number] for number in (0, *sorted(request.layers))}
        return Taps(rungs, seen[last] if request.final else None, self._embed(running))

    def _embed(self, done: _Pass) -> Callable[[], Tensor] | None:
        """What looks the embeddings up again, where the first layer reads them as they are."""
        # Some architectures add positions to the embeddings, or scale them, before the first layer.
        if len(done.lookups) != 1 or done.lookups[0][1] is not done.outputs[0]:
            return None
        return partial(_look_up, self.parts.embeddings, done.lookups[0][0])

    def cost(self, request: TapRequest) -> TrunkCost:
        """Two FLOPs a token for each parameter, less those of layers that the request leaves out."""
        layers = self.parts.layers
        last = len(layers) if request.final else max(request.layers, default=0)
        parameters = parameter_count(self.backbone, trained=False)
        idle = sum(parameter_count(layer, trained=False) for layer in layers[last:])
        return TrunkCost(
            parameters=parameters,
            layers=len(layers),
            resident_bytes=sum(weight.nbytes for weight in self._resident()),
            moved_bytes=0,
            flops_per_token=2.0 * (parameters - idle),
            head=parameter_count(self.parts.head, trained=False),
        )

    def _resident(self) -> Iterable[Tensor]:
        """The frozen weights on the computing device, each once."""
        on_host = self.device.type == "cpu"
        frozen = (weight for weight in self.backbone.parameters() if not weight.requires_grad)
        return (weight for weight in frozen if on_host or weight.device.type != "cpu")


def trunk_over(backbone: PreTrainedModel | Trunk) -> Trunk:
    """A trunk as it is, or a live one over a loaded model."""
    return LiveTrunk(backbone) if isinstance(backbone, PreTrainedModel) else backbone


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()


@torch.no_grad()
def _look_up(embeddings: nn.Module, args: tuple) -> Tensor:
    return embeddings(*args)
