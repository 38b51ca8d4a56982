"""A suffix: the backbone's own last layers with low-rank adapters, above the place where a side network enters.

    s   = side network over taps of layers 0 to L - k
    x   = combine(h_{L-k}, U(s))                   as at the end of a ladder without a suffix
    out = final_norm(layers L - k + 1 to L of x)   their matrices W + B A

The layers below are only read. Both parts start at zero (U, or the gate; B), so that the start is the backbone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import cast_adapter_dtype
from torch import Tensor, nn

from ladder_cli.errors import UserError
from ladder_cli.nn.ladder_config import LadderConfig
from ladder_cli.nn.low_rank import on_last_layers, quiet_peft, recompute_layers, without_dropout
from ladder_cli.nn.runtime import Runtime
from ladder_cli.trunk.base import TapRequest, Taps, Trunk
from ladder_cli.trunk.parts import Anatomy, keep_differentiable
from ladder_cli.trunk.upper import run_above, run_joining

PREFIX = "suffix."
_ADAPTER = "default"


class Suffix:
    """The layers above the place where the side network enters.

    Its weights are parameters of the backbone's layers, float32, and compute in the backbone's type by autocast.

    Attributes:
        below: layers that are only read; the state enters behind the last of them.
    """

    def __init__(
        self,
        trunk: Trunk,
        layers: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> None:
        """Put untrained adapters into a backbone.

        Args:
            trunk: over it; none of its layers carries adapters yet.
            layers: k, counted from the last; fewer than there are.
            rank: of the adapters; 0: the layers are taken as they are (of an export, whose weights they were added to).
            alpha, dropout: of the adapters.
            recompute: the layers are run again in the backward pass.

        Raises:
            UserError: if adapters are in the backbone already.
        """
        backbone = trunk.whole()
        self._parts: Anatomy = trunk.parts
        self.below = len(self._parts.layers) - layers
        if any(isinstance(module, LoraLayer) for module in backbone.modules()):
            raise UserError(
                "low-rank adapters are in this backbone already, and a ladder with a suffix brings its own: load the "
                "backbone anew."
            )
        keep_differentiable(backbone)
        trunk.hold(range(self.below + 1, self.below + layers + 1))
        if rank:
            with quiet_peft():
                inject_adapter_in_model(on_last_layers(backbone, layers, rank, alpha, dropout), backbone, _ADAPTER)
            cast_adapter_dtype(backbone, _ADAPTER)
            # Left by peft, for its own wrappers.
            vars(backbone).pop("peft_config", None)
        if recompute:
            recompute_layers(backbone, from_embeddings=False)

    @classmethod
    def of(cls, config: LadderConfig, trunk: Trunk, runtime: Runtime) -> "Suffix | None":
        """The one that a ladder's config describes; None where it has none.

        Raises:
            UserError: if it leaves no layer below, or a tap lies in it; told before the backbone is changed.
        """
        if not config.suffix_layers:
            return None
        config.connections()
        numbers = config.suffix_layers, config.rank, config.alpha, config.dropout
        return cls(trunk, *numbers, recompute=runtime.recompute_suffix)

    def request(self, taps: frozenset[int]) -> TapRequest:
        """What is read of the backbone where a side network reads `taps`."""
        return TapRequest(taps | {self.below}, final=False)

    def entry(self, taps: Taps) -> Taps:
        """The same taps, with the state behind the last layer that is only read in place of the backbone's last."""
        return Taps(taps.rungs, taps.rungs[self.below], taps.embed)

    def above(self, state: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Run the layers and the final norm.

        Args:
            state: the joined state that they begin from, `[batch, tokens, d]`.
            inputs: of the decoder's own `forward`, for the same rows.

        Returns:
            What the head reads, `[batch, tokens, d]`.
        """
        with self._parts.autocast():
            return run_above(self._parts, self.below, state, inputs)

    def bare(self, taps: Taps, inputs: dict[str, Any]) -> Tensor:
        """As `above`, of the backbone's own state and as its layers were: without adapters, joined state or dropout."""
        with without_dropout(self._parts.layers[self.below :]), self.off():
            return self.above(taps.rungs[self.below], inputs)

    def through(self, join: Callable[[Taps], Tensor], taps: frozenset[int], inputs: dict[str, Any]) -> Tensor:
        """Run the whole backbone in one pass, and the side network in its middle; a key-value cache serves both.

        Args:
            join: makes the joined state of taps as `entry` gives them.
            taps: backbone layers that the side network reads.
            inputs: of the decoder's own `forward`.

        Returns:
            What the head reads, `[batch, tokens, d]`.
        """

        def joined(seen: dict[int, Tensor]) -> Tensor:
            return join(self.entry(Taps(dict(seen), None)))

        return run_joining(self._parts, self.below, joined, taps, self._parts.autocast(), inputs)

    def train(self, mode: bool) -> None:
        """Training or evaluation mode of the layers; those below are not touched."""
        for layer in self._parts.layers[self.below :]:
            layer.train(mode)

    def weights(self) -> dict[str, nn.Parameter]:
        """The low-rank matrices, named by layer (from 1) and place: `suffix.25.self_attn.q_proj.lora_A`."""
        found = {}
        for name, layer in self._adapted():
            for part in ("lora_A", "lora_B"):
                found[f"{PREFIX}{name}.{part}"] = getattr(layer, part)[_ADAPTER].weight
        return found

    @torch.no_grad()
    def load(self, stored: dict[str, Tensor]) -> None:
        """Overwrite the low-rank matrices by those of the same names and shapes."""
        for name, weight in self.weights().items():
            weight.copy_(stored[name])

    @contextmanager
    def off(self) -> Iterator[None]:
        """The backbone's layers as they were, within a `with` block."""
        layers = [layer for _, layer in self._adapted()]
        learning = {weight: weight.requires_grad for weight in self.weights().values()}
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            for weight, learns in learning.items():
                weight.requires_grad_(learns)

    def _adapted(self) -> Iterator[tuple[str, Any]]:
        for number, layer in enumerate(self._parts.layers[self.below :], start=self.below + 1):
            for name, module in layer.named_modules():
                if isinstance(module, LoraLayer):
                    yield f"{number}.{name}", module
