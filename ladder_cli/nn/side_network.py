"""The side network: narrow decoder layers of the backbone's own class, fed by taps.

    s_0 = P_0(h_0)
    s_j = Block_j(gate_j(s_{j-1}, P_j(h_i)))   where backbone layer i feeds side layer j
    s_j = Block_j(s_{j-1})                     where nothing does
    output = combine(h_L, U(s_l))

(paper section 3; every choice of gate, projection, block and combination is explained in docs/ladder.md)
"""

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import Cache
from transformers.pytorch_utils import Conv1D

from ladder_cli.config.choices import Block, Combination, Gate, Init, Projection, TapNorm
from ladder_cli.errors import UserError
from ladder_cli.nn.combine import make_combine
from ladder_cli.nn.gates import make_gate
from ladder_cli.nn.ladder_config import LadderConfig
from ladder_cli.nn.projections import DownProjections, uniform_
from ladder_cli.nn.runtime import Runtime
from ladder_cli.nn.saved_taps import CompactProjection, EightBits, Recomputed, TapSaving
from ladder_cli.nn.side_block import build_block, side_config
from ladder_cli.trunk.base import Taps
from ladder_cli.trunk.parts import Anatomy

# Choices that leave the tap, or the state, as wide as the backbone.
_FULL_WIDTH: dict[str, StrEnum] = {
    "projection": Projection.NONE, "combine": Combination.REPLACE, "init": Init.CLONED
}  # fmt: skip


def in_type(dtype: torch.dtype, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module with its weights cast."""
    weights = {name: weight.to(dtype) for name, weight in module.named_parameters() if weight.dtype != dtype}
    return functional_call(module, weights, args, kwargs) if weights else module(*args, **kwargs)


def recomputed(dtype: torch.dtype, module: nn.Module, state: Tensor, **kwargs: Any) -> Any:
    """The same, keeping `state` alone for the backward pass, which computes the rest again."""
    return checkpoint(in_type, dtype, module, state, use_reentrant=False, **kwargs)


def initialise_parts(side: nn.Module, anatomy: Anatomy) -> None:
    """First weights, by the backbone's own rules, of what is no matrix: norms, attention sinks.

    Matrices are left alone (`projections.uniform_` is theirs), so that no random number is drawn for them twice.
    """
    for part in side.modules():
        owned = dict(part.named_parameters(recurse=False))
        if owned and not isinstance(part, nn.Linear | Conv1D) and type(part).__module__.startswith("transformers."):
            anatomy.initialise(part)


class SideNetwork(nn.Module):
    """The trained part of a ladder. Parameters are float32 and compute in the type of the taps.

    They are cast once for each pass. Autocast would cast every activation for every matrix that reads it, and keep all
    those copies for the backward pass.
    """

    def __init__(self, anatomy: Anatomy, ladder: LadderConfig, runtime: Runtime) -> None:
        """Uniform weights; `pruning.initialise_pruned` or `cloning.initialise_cloned` can replace them.

        Raises:
            UserError: if the parts do not go together.
        """
        super().__init__()
        backbone = anatomy.config
        self.connections = connections = ladder.connections()
        attention = ladder.side_attention()
        self.config = config = side_config(
            backbone, ladder.reduction, attention, list(ladder.layer_types), ladder.sources()
        )
        width, side_width = backbone.hidden_size, config.hidden_size
        if side_width != width:
            for option, value in _FULL_WIDTH.items():
                if getattr(ladder, option) == value:
                    raise UserError(f"method.{option}={value} needs method.reduction=1, not {ladder.reduction}.")
        fed = [j for _, j in connections.pairs]
        first_index = connections.backbone_layers
        self.layer_types: list[str] = ladder.layer_types[first_index:]

        self.down = DownProjections(
            Projection(ladder.projection),
            width,
            side_width,
            [0, *fed],
            ladder.projection_rank,
            TapNorm(ladder.tap_norm),
        )
        self.gates = nn.ModuleDict({str(j): make_gate(Gate(ladder.gate), side_width) for j in fed})
        self.layers = nn.ModuleList(
            build_block(anatomy, config, first_index + j, Block(ladder.block)) for j in range(connections.side_layers)
        )
        rotary: Any = type(anatomy.rotary) if anatomy.rotary is not None else None
        self.rotary = rotary(config=config) if rotary is not None else None
        self._rotary_by_type = anatomy.rotary_by_type
        self._cache_name = anatomy.cache_name
        self.runtime = runtime
        initialise_parts(self, anatomy)
        uniform_(self)
        self.combine = make_combine(Combination(ladder.combine), width, side_width, anatomy.final_norm)

    def forward(
        self,
        taps: Taps,
        masks: dict[str, Tensor | None],
        position_ids: Tensor,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The hidden state that the head reads.

        Args:
            taps: of one batch.
            masks: attention mask by layer type, as Transformers makes them.
            position_ids: `[batch, tokens]`.
            past_key_values: the cache shared with the backbone; side layer j lies at index L + j - 1.

        Returns:
            `[batch, tokens, d]`, before the backbone's final norm, or instead of it where `combine.normed`.
        """
        dtype = taps.rungs[0].dtype
        state = self._projected(0, taps, 0, dtype)
        kwargs[self._cache_name] = past_key_values
        rotations = self._rotations(state, position_ids)
        for j, layer in enumerate(self.layers, start=1):
            source = self.connections.source_of(j)
            if source is not None:
                tap = self._projected(j, taps, source, dtype)
                state = in_type(dtype, self.gates[str(j)], state, tap)
            layer_type = self.layer_types[j - 1]
            if rotations is not None:
                kwargs["position_embeddings"] = rotations[layer_type]
            run = recomputed if self.runtime.recompute and torch.is_grad_enabled() else in_type
            output = run(
                dtype,
                layer,
                state,
                attention_mask=masks[layer_type],
                position_ids=position_ids,
                **kwargs,
            )
            state = output[0] if isinstance(output, tuple) else output
        return in_type(dtype, self.combine, taps.final, state)

    def _rotations(self, state: Tensor, position_ids: Tensor) -> dict[str, Any] | None:
        """Rotary positions by type of attention; None where the layers need none."""
        if self.rotary is None:
            return None
        types = sorted(set(self.layer_types))
        if self._rotary_by_type:
            return {layer_type: self.rotary(state, position_ids, layer_type) for layer_type in types}
        return dict.fromkeys(types, self.rotary(state, position_ids))

    def _projected(self, rung: int, taps: Taps, source: int, dtype: torch.dtype) -> Tensor:
        projection = self.down.of(rung)
        if torch.is_grad_enabled() and not isinstance(projection, nn.Identity):
            keeping = self._keeping(taps, source)
            if keeping is not None:
                projection = CompactProjection(projection, keeping)
        return in_type(dtype, projection, self.down.normed(taps.rungs[source]))

    def _keeping(self, taps: Taps, source: int) -> TapSaving | None:
        """How the backward pass gets a tap; None leaves it to autograd, which keeps it whole."""
        embed = taps.embed
        if source == 0 and embed is not None:
            return Recomputed(lambda: self.down.normed(embed()))
        return EightBits() if self.runtime.int8_taps else None
