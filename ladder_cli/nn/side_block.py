"""One layer of the side network: the backbone's own decoder layer class at the side's width."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ladder_cli.config.choices import Block, SideAttention
from ladder_cli.errors import UserError
from ladder_cli.nn.dense import dense_in_place_of, holds_experts
from ladder_cli.trunk.parts import Anatomy

# Attention kernels want head sizes that are multiples of this; narrower heads also carry too little position.
_HEAD_SIZE_STEP = 8
# What Transformers' decoder-only models call the width of their feed-forward layer, and their dropouts.
_FEED_FORWARD_SIZES = ("intermediate_size", "ffn_dim", "n_inner", "moe_intermediate_size")
_DROPOUTS = (
    "attention_dropout", "hidden_dropout", "activation_dropout", "dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"
)  # fmt: skip


# Lists with an entry for each layer, beside `layer_types`.
_PER_LAYER = ("no_rope_layers", "mlp_layer_types")
# Lists with an entry for each pair of rotated dimensions of a head (longrope).
_PER_FREQUENCY = ("short_factor", "long_factor")


@dataclass(frozen=True)
class AttentionShape:
    """Heads of the side network's attention; (kv_heads, head_size) decide the shape of its key-value cache."""

    heads: int
    kv_heads: int
    head_size: int

    def as_dict(self) -> dict[str, int]:
        """Plain values, for the adapter's config."""
        return asdict(self)


def side_width(backbone: PreTrainedConfig, reduction: int) -> int:
    """D / r.

    Raises:
        UserError: if r does not divide the width, or leaves too little of it for one attention head.
    """
    width, rest = divmod(backbone.hidden_size, reduction)
    if rest or width % _HEAD_SIZE_STEP:
        good = [r for r in range(1, 65) if backbone.hidden_size % (r * _HEAD_SIZE_STEP) == 0]
        raise UserError(
            f"method.reduction={reduction} does not fit a backbone of width {backbone.hidden_size}: the side width "
            f"must be a multiple of {_HEAD_SIZE_STEP}. Choose from: {', '.join(map(str, good))}."
        )
    return width


def attention_shape(backbone: PreTrainedConfig, reduction: int, kind: SideAttention) -> AttentionShape:
    """The side attention's heads.

    * `narrow`: the heads together are as wide as the side network. As many heads as the backbone's (LST) where the
      width allows it, else the largest number that divides it. With r = 1 they are the backbone's.
    * `backbone`: the backbone's own (kv heads, head size), with one query head for each kv head, so that one paged
      cache of one shape serves backbone and side network.

    Raises:
        UserError: if the architecture ties head size to width and `backbone` was asked for.
    """
    return _SHAPES[kind](backbone, reduction, side_width(backbone, reduction))


def _backbones_shape(backbone: PreTrainedConfig, reduction: int, width: int) -> AttentionShape:
    if not hasattr(backbone, "num_key_value_heads"):
        raise UserError(
            f"method.attention=backbone does not go with {backbone.model_type}, whose head size is always width / "
            "heads: use method.attention=narrow."
        )
    heads = backbone.num_attention_heads
    kv_heads = backbone.num_key_value_heads or heads
    head_size = getattr(backbone, "head_dim", None) or backbone.hidden_size // heads
    return AttentionShape(kv_heads, kv_heads, head_size)


def _narrow_shape(backbone: PreTrainedConfig, reduction: int, width: int) -> AttentionShape:
    heads = backbone.num_attention_heads
    kv_heads = getattr(backbone, "num_key_value_heads", None) or heads
    if reduction == 1:
        return AttentionShape(heads, kv_heads, getattr(backbone, "head_dim", None) or backbone.hidden_size // heads)
    fitting = [
        n for n in range(1, heads + 1)
        if width % (n * _HEAD_SIZE_STEP) == 0 and _rotates_evenly(backbone, width // n)
    ]  # fmt: skip
    if not fitting:
        raise UserError(
            f"method.reduction={reduction} leaves no head size that {backbone.model_type}'s partial rotary positions "
            "divide evenly: choose a smaller method.reduction."
        )
    side_heads = fitting[-1]
    side_kv_heads = max(n for n in range(1, min(side_heads, kv_heads) + 1) if side_heads % n == 0)
    return AttentionShape(side_heads, side_kv_heads, width // side_heads)


_SHAPES: dict[SideAttention, Callable[[PreTrainedConfig, int, int], AttentionShape]] = {
    SideAttention.NARROW: _narrow_shape,
    SideAttention.BACKBONE: _backbones_shape,
}


def rotary_settings(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The rotary settings of a model: one, or one for each type of attention (Gemma 3, OLMo 3); none without any."""
    settings = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in settings.values() if isinstance(value, dict)]
    return nested or ([settings] if settings else [])


def rotated_dimensions(config: PreTrainedConfig, head_size: int) -> int:
    """How many dimensions of a head of this size are rotated, the first ones: the most of any type of attention."""
    shares = [settings.get("partial_rotary_factor", 1.0) for settings in rotary_settings(config)]
    return max(int(head_size * share) for share in shares or [1.0])


def _rotates_evenly(backbone: PreTrainedConfig, head_size: int) -> bool:
    shares = [settings.get("partial_rotary_factor", 1.0) for settings in rotary_settings(backbone)]
    return all(int(head_size * share) % 2 == 0 and int(head_size * share) > 0 for share in shares or [1.0])


def side_config(
    backbone: PreTrainedConfig,
    reduction: int,
    attention: AttentionShape,
    layer_types: list[str],
    sources: list[int],
) -> PreTrainedConfig:
    """The backbone's config at the side's shape, for building its own layer class.

    Args:
        layer_types: attention type of the backbone's and then the side's layers, L + l in all: side layer j has
            index L + j - 1, in the attention module as in the shared cache.
        sources: for each side layer the backbone layer, counted from 1, that it is built like.

    Raises:
        UserError: see `side_width`.
    """
    config = copy.deepcopy(backbone)
    config.hidden_size = side_width(backbone, reduction)
    for name in _FEED_FORWARD_SIZES:
        size = getattr(backbone, name, None)
        if size is not None:
            setattr(config, name, max(_HEAD_SIZE_STEP, size // reduction))
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.num_attention_heads = attention.heads
    if hasattr(backbone, "num_key_value_heads"):
        config.num_key_value_heads = attention.kv_heads
        config.head_dim = attention.head_size
    head_size = getattr(backbone, "head_dim", None) or backbone.hidden_size // backbone.num_attention_heads
    if attention.head_size != head_size:
        # Gemma scales attention by this in place of the head size.
        if hasattr(backbone, "query_pre_attn_scalar"):
            config.query_pre_attn_scalar = attention.head_size
        # Granite divides scores by something like the head size, not by its root.
        if hasattr(backbone, "attention_multiplier"):
            config.attention_multiplier = backbone.attention_multiplier * head_size / attention.head_size
    for settings in rotary_settings(config):
        for name in _PER_FREQUENCY:
            if settings.get(name):
                share = settings.get("partial_rotary_factor", 1.0)
                settings[name] = _at_frequencies(settings[name], int(attention.head_size * share) // 2)
    for name in _PER_LAYER:
        values = getattr(backbone, name, None)
        if values is not None:
            setattr(config, name, [*values, *(values[source - 1] for source in sources)])
    for name in ("num_local_experts", "num_experts"):
        if hasattr(backbone, name):
            # A dense layer takes the experts' place (`dense`); until then there need not be many of them.
            setattr(config, name, 1)
    config.num_hidden_layers = len(layer_types)
    config.layer_types = layer_types
    config._attn_implementation = backbone._attn_implementation
    return config


def _at_frequencies(values: list[float], count: int) -> list[float]:
    """Of values for each rotary frequency of a wide head those that a head of `count` frequencies rotates with."""
    return [values[number * len(values) // count] for number in range(count)]


class _NoFeedForward(nn.Module):
    """In place of a feed-forward layer: adds nothing."""

    def __init__(self, returns_scores: bool) -> None:
        super().__init__()
        self._returns_scores = returns_scores

    def forward(self, hidden: Tensor, *_: Any) -> Any:
        nothing = torch.zeros_like(hidden)
        return (nothing, None) if self._returns_scores else nothing


def build_block(anatomy: Anatomy, config: PreTrainedConfig, index: int, kind: Block) -> nn.Module:
    """A side layer of the backbone's own class.

    Args:
        config: from `side_config`.
        index: layer number in the shared cache.
        kind: `full`, or `attention` for one without its feed-forward layer (LAST).

    Raises:
        UserError: if the architecture's feed-forward layer cannot be left out.
    """
    layer_class: Any = type(anatomy.layers[0])
    block = layer_class(config, layer_idx=index)
    if holds_experts(block):
        dense_in_place_of(block, anatomy.name, getattr(anatomy.config, "num_experts_per_tok", 1))
    return _BLOCKS[kind](block, config)


def _whole_block(block: Any, config: PreTrainedConfig) -> nn.Module:
    return block


def _attention_block(block: Any, config: PreTrainedConfig) -> nn.Module:
    if not isinstance(getattr(block, "mlp", None), nn.Module):
        raise UserError(
            f"method.block=attention is not supported for {config.model_type}, whose feed-forward layer is no module "
            "of its own: use method.block=full."
        )
    block.mlp = _NoFeedForward(getattr(block.mlp, "returns_scores", False))
    # The norms around a feed-forward layer have nothing left to do, and a parameter that gets no gradient would stop
    # distributed training.
    around: tuple[str, ...] = ("ln_2", "pre_feedforward_layernorm", "post_feedforward_layernorm", "post_mlp_layernorm")
    # Where the feed-forward layer has a norm behind it and none before (OLMo 2), or one of its own before (Gemma 2),
    # this one belongs to the attention.
    if not any(hasattr(block, name) for name in around[1:3]):
        around += ("post_attention_layernorm",)
    for name in around:
        if hasattr(block, name):
            setattr(block, name, nn.Identity())
    return block


_BLOCKS: dict[Block, Callable[[Any, PreTrainedConfig], nn.Module]] = {
    Block.FULL: _whole_block,
    Block.ATTENTION: _attention_block,
}
