"""What describes a ladder: everything needed to build it again over its backbone, as saved with the adapter."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ladder_cli.models.connections import Connections, copied_layers
from ladder_cli.models.side_block import AttentionShape, attention_shape

FULL_ATTENTION = "full_attention"
# What `generate` and the trainer read from a model's config, taken over from the backbone.
_INHERITED = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "sliding_window",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


class LadderConfig(PreTrainedConfig):
    """The shape of a ladder and the identity of the backbone that it stands on.

    Attributes:
        backbone: the backbone's own config as a dict (with its `model_type`).
        backbone_name: hub repository or folder it was loaded from; where `from_pretrained` looks by default.
        backbone_revision: revision on the hub.
        pairs: connections `[backbone layer, side layer]`, counted from 1.
        side_layers: l.
        reduction: r; the side width is d / r.
        gate, combine, projection, projection_rank, tap_norm, block, attention, init: see docs/ladder.md.
        side_shape: heads of the side attention, worked out from `attention` and recorded for engines that serve it.
    """

    model_type = "ladder"

    backbone: dict | None = None
    backbone_name: str = ""
    backbone_revision: str | None = None
    pairs: list | None = None
    side_layers: int = 0
    reduction: int = 16
    gate: str = "sum"
    combine: str = "residual"
    projection: str = "full"
    projection_rank: int = 16
    tap_norm: str = "none"
    block: str = "full"
    attention: str = "narrow"
    init: str = "uniform"
    side_shape: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.backbone is not None:
            backbone = self.backbone_config()
            for name in _INHERITED:
                setattr(self, name, getattr(backbone, name, None))
            # One cache serves both: L backbone layers, then l side layers.
            self.num_hidden_layers = backbone.num_hidden_layers + self.side_layers
            self.layer_types = self._layer_types(backbone)
            self.side_shape = attention_shape(backbone, self.reduction, self.attention).as_dict()
        super().__post_init__(**kwargs)

    def backbone_config(self) -> PreTrainedConfig:
        """The backbone's config as an object."""
        values = dict(self.backbone or {})
        return AutoConfig.for_model(values.pop("model_type"), **values)

    def connections(self) -> Connections:
        """The validated connections."""
        layers = self.backbone_config().num_hidden_layers
        return Connections(layers, self.side_layers, tuple((i, j) for i, j in self.pairs or []))

    def side_attention(self) -> AttentionShape:
        """Heads of the side network's attention."""
        return AttentionShape(**self.side_shape or {})

    def _layer_types(self, backbone: PreTrainedConfig) -> list[str]:
        """The backbone's attention types, then for each side layer that of the layer which last fed it (or, of a copy,
        that of the layer which was copied).
        """
        own = getattr(backbone, "layer_types", None)
        if own is None:
            windowed = getattr(backbone, "sliding_window", None) is not None
            own = ["sliding_attention" if windowed else FULL_ATTENTION] * backbone.num_hidden_layers
        sources = {j: i for i, j in self.pairs or []}
        if self.init == "cloned":
            return [*own, *(own[layer - 1] for layer in copied_layers(self.connections()))]
        side, source = [], 1
        for j in range(1, self.side_layers + 1):
            source = sources.get(j, source)
            side.append(own[source - 1])
        return [*own, *side]


def plain_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A config as JSON values, without marks of how and from where it was loaded."""
    values = config.to_diff_dict() if isinstance(config, LadderConfig) else config.to_dict()
    for name in ("quantization_config", "dtype", "_name_or_path", "transformers_version"):
        values.pop(name, None)
    return values
