"""First weights of the side network out of the backbone's own: pruned initialisation (Ladder Side-Tuning, section 3.3).

The residual stream ties all layers together, so its d_s channels are chosen once for the whole network. Then, layer by
layer: the heads and the feed-forward units that matter most; within a head one shared choice of dimensions for q, k and
v. Where positions are rotary, that choice keeps the frequencies that the narrower head will be rotated with, so that
the pruned head attends as the wide one did.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ladder_cli.errors import UserError
from ladder_cli.nn.combine import SideCombine
from ladder_cli.nn.dense import holds_experts
from ladder_cli.nn.importance import LayerImportance
from ladder_cli.nn.layer_weights import Matrix, matrices, set_weight, weight_of
from ladder_cli.nn.side_block import rotated_dimensions
from ladder_cli.nn.side_network import SideNetwork
from ladder_cli.trunk.parts import Anatomy

_WRITES_STREAM = ("o", "out")


@dataclass(frozen=True)
class _Heads:
    """Head counts and sizes of one attention."""

    heads: int
    kv_heads: int
    size: int
    rotated: int  # dimensions of a head that are rotated, the first ones

    @classmethod
    def of(cls, config: PreTrainedConfig, has_rotary: bool) -> "_Heads":
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(heads, kv_heads, size, rotated_dimensions(config, size) if has_rotary else 0)


def initialise_pruned(side: SideNetwork, anatomy: Anatomy, importance: LayerImportance) -> None:
    """Overwrite the blocks of `side`, and what leads into and out of them, by choices from the backbone.

    A side layer takes after the backbone layer that feeds it; one that nothing feeds takes after the layer at the same
    relative height.
    """
    _refuse_experts(anatomy)
    wide = _Heads.of(anatomy.config, anatomy.rotary is not None)
    narrow = _Heads.of(side.config, anatomy.rotary is not None)
    kind = anatomy.config.model_type
    stream = _stream_channels(anatomy, importance, side.config.hidden_size)
    for j, block in enumerate(side.layers, start=1):
        number = (side.connections.source_of(j) or max(1, round(j * len(anatomy.layers) / len(side.layers)))) - 1
        source = anatomy.layers[number]
        by_name = {matrix.name: matrix for matrix in matrices(source, kind)}
        targets = matrices(block, kind)
        chosen = _choose(number, list(by_name.values()), importance, wide, narrow, targets)
        chosen["stream"] = stream
        for target in targets:
            _copy_matrix(by_name[target.name], target, chosen)
        _copy_norms(source, block, chosen, anatomy.config.hidden_size, wide)
    side.down.select(0, stream)
    if isinstance(side.combine, SideCombine):
        for _, j in side.connections.pairs:
            side.down.select(j, stream)
        side.combine.select(stream, anatomy.final_norm)


def _stream_channels(anatomy: Anatomy, importance: LayerImportance, count: int) -> Tensor:
    """The channels of the residual stream that all matrices together use most, in rising order."""
    total = torch.zeros(anatomy.config.hidden_size)
    for number, layer in enumerate(anatomy.layers):
        for matrix in matrices(layer, anatomy.config.model_type):
            own = importance[number, matrix.name]
            scores = own.rows if matrix.role in _WRITES_STREAM else own.columns
            total += scores / scores.mean().clamp_min(1e-30)
    return _top(total, count)


def _choose(
    number: int,
    sources: list[Matrix],
    importance: LayerImportance,
    wide: _Heads,
    narrow: _Heads,
    targets: list[Matrix],
) -> dict[str, Tensor]:
    """Rows to keep of one backbone layer: of queries, keys and values, and of the feed-forward layer."""
    q = torch.zeros(wide.heads * wide.size)
    kv = torch.zeros(wide.kv_heads * wide.size)
    units: Tensor | float = 0.0
    for matrix in sources:
        own = importance[number, matrix.name]
        if matrix.role == "q":
            q += own.rows
        elif matrix.role in ("k", "v"):
            kv += own.rows
        elif matrix.role == "qkv":
            parts = own.rows.chunk(3)
            q += parts[0]
            kv += parts[1] + parts[2]
        elif matrix.role == "o":
            q += own.columns
        elif matrix.role == "inner":
            units = units + own.rows
        elif matrix.role == "out":
            units = units + own.columns
    dimensions = _head_dimensions(q.view(wide.heads, wide.size).sum(0), wide, narrow)
    kv_heads = _top(kv.view(wide.kv_heads, wide.size).sum(1), narrow.kv_heads)
    group, narrow_group = wide.heads // wide.kv_heads, narrow.heads // narrow.kv_heads
    by_head = q.view(wide.kv_heads, group, wide.size).sum(2)
    heads = torch.cat([head * group + _top(by_head[head], narrow_group) for head in kv_heads])
    chosen = {
        "q": (heads[:, None] * wide.size + dimensions).flatten(),
        "kv": (kv_heads[:, None] * wide.size + dimensions).flatten(),
        "head": dimensions,
    }
    inner = next((target for target in targets if target.role == "inner"), None)
    if inner is not None:
        assert isinstance(units, Tensor)
        chosen["units"] = _top(units, weight_of(inner.module).shape[0])
    return chosen


def _head_dimensions(scores: Tensor, wide: _Heads, narrow: _Heads) -> Tensor:
    """Which dimensions of a head are kept: those with the side's own rotary frequencies, elsewhere the strongest."""
    half, narrow_half = wide.rotated // 2, narrow.rotated // 2
    rotated = torch.arange(narrow_half) * half // max(narrow_half, 1)
    rest = _top(scores[wide.rotated :], narrow.size - narrow.rotated) + wide.rotated
    return torch.cat([rotated, rotated + half, rest])


def _copy_matrix(source: Matrix, target: Matrix, chosen: dict[str, Tensor]) -> None:
    stream, q, kv = chosen["stream"], chosen["q"], chosen["kv"]

    def fused() -> Tensor:
        third = source.module.get_parameter("bias").shape[0] // 3
        return torch.cat([q, kv + third, kv + 2 * third])

    taken: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "q": lambda: (q, stream),
        "k": lambda: (kv, stream),
        "v": lambda: (kv, stream),
        "qkv": lambda: (fused(), stream),
        "o": lambda: (stream, q),
        "inner": lambda: (chosen["units"], stream),
        "out": lambda: (stream, chosen["units"]),
    }
    rows, columns = taken[source.role]()
    weight = weight_of(source.module).cpu()
    set_weight(target.module, weight[rows][:, columns])
    bias = getattr(source.module, "bias", None)
    if bias is not None:
        with torch.no_grad():
            target.module.get_parameter("bias").copy_(bias.detach().cpu()[rows])


def _copy_norms(source: nn.Module, block: nn.Module, chosen: dict[str, Tensor], width: int, wide: _Heads) -> None:
    """Scales (and biases) of the norms, at the channels that were kept.

    Raises:
        UserError: if a norm is over something else than the residual stream, one head, or all heads.
    """
    inside = {name.rpartition(".")[0] for name, _ in block.named_parameters()}
    linear = {matrix.name for matrix in matrices(block, "")}
    for name in sorted(inside - linear):
        # A norm of queries or keys is over one head (Qwen 3) or over all of them (OLMo 2).
        heads = next((count for ending, count in _head_norms(wide).items() if name.endswith(ending)), None)
        sizes = {width: "stream"} if heads is None else {heads * wide.size: "q" if "q_" in name else "kv"}
        if heads is not None:
            sizes[wide.size] = "head"
        for part, parameter in block.get_submodule(name).named_parameters(recurse=False):
            values = source.get_submodule(name).get_parameter(part).detach().float().cpu()
            if len(values) not in sizes:
                raise UserError(
                    f"method.init=pruned is not supported here: what the {len(values)} weights of '{name}' scale is "
                    "not known. Use method.init=uniform."
                )
            with torch.no_grad():
                parameter.copy_(values[chosen[sizes[len(values)]]])


def _head_norms(wide: _Heads) -> dict[str, int]:
    return {"q_norm": wide.heads, "q_layernorm": wide.heads, "k_norm": wide.kv_heads, "k_layernorm": wide.kv_heads}


def _refuse_experts(anatomy: Anatomy) -> None:
    if any(holds_experts(layer) for layer in anatomy.layers):
        raise UserError(
            f"method.init=pruned is not supported for {anatomy.name}: its side layers are dense, and there is no one "
            "choice of units over its experts. Use method.init=uniform."
        )


def _top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, rising; all of them again where more are wanted than there are."""
    if count > len(scores):
        return torch.arange(count) % len(scores)
    return scores.topk(count).indices.sort().values
