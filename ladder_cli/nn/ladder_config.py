"""What describes a ladder: everything needed to build it again over its backbone, as saved with the adapter."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ladder_cli.config.choices import Block, Combination, Gate, Init, Projection, SideAttention, TapNorm, parse_choice
from ladder_cli.config.methods import LADDER_CHOICES, refuse_above_suffix
from ladder_cli.errors import UserError
from ladder_cli.nn import adapter
from ladder_cli.nn.connections import Connections, copied_layers
from ladder_cli.nn.side_block import AttentionShape, attention_shape
from ladder_cli.trunk.parts import FULL_ATTENTION, SLIDING_ATTENTION

# Fields of a model's config by which Transformers finds code outside of itself: modules of a repository, kernels.
_NAMES_CODE = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config")
# No backbone that a ladder could stand on is deeper or wider; an adapter that says so wants to fill the memory.
LARGEST_DEPTH, LARGEST_WIDTH = 1024, 2**17
# Numbers of a suffix, and which of them count something.
_SUFFIX_BOUNDS: dict[str, tuple[float, float]] = {
    "suffix_layers": (0, LARGEST_DEPTH), "rank": (0, 2**14), "alpha": (0, 2**20), "dropout": (0, 0.99)
}  # fmt: skip
_WHOLE = ("suffix_layers", "rank")
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
        suffix_layers: k, of the backbone's last layers that learn too; 0: the side network joins at the end.
        rank, alpha, dropout: of the low-rank adapters in those; rank 0 where they were added to the weights.
        side_shape: heads of the side attention, worked out from `attention` and recorded for engines that serve it.
    """

    model_type = "ladder"

    backbone: dict | None = None
    backbone_name: str = ""
    backbone_revision: str | None = None
    pairs: list | None = None
    side_layers: int = 0
    reduction: int = 16
    gate: str = Gate.SUM
    combine: str = Combination.RESIDUAL
    projection: str = Projection.FULL
    projection_rank: int = 16
    tap_norm: str = TapNorm.NONE
    block: str = Block.FULL
    attention: str = SideAttention.NARROW
    init: str = Init.UNIFORM
    suffix_layers: int = 0
    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    side_shape: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # Here and not in the command's config alone: a word that is taken for another one would train another network.
        for name, choices in LADDER_CHOICES.items():
            setattr(self, name, parse_choice(name, getattr(self, name), choices))
        if self.reduction < 1 or self.projection_rank < 1:
            raise UserError(f"reduction={self.reduction}, projection_rank={self.projection_rank}: both are at least 1.")
        refuse_above_suffix(self.suffix_layers, Combination(self.combine), Init(self.init))
        if self.backbone is not None:
            backbone = self.backbone_config()
            for name in _INHERITED:
                setattr(self, name, getattr(backbone, name, None))
            # One cache serves both: L backbone layers, then l side layers.
            self.num_hidden_layers = backbone.num_hidden_layers + self.side_layers
            self.layer_types = self._layer_types(backbone)
            self.side_shape = attention_shape(backbone, self.reduction, SideAttention(self.attention)).as_dict()
        super().__post_init__(**kwargs)

    def backbone_config(self) -> PreTrainedConfig:
        """The backbone's config as an object."""
        values = dict(self.backbone or {})
        return AutoConfig.for_model(values.pop("model_type"), **values)

    def connections(self) -> Connections:
        """The validated connections."""
        layers = self.backbone_config().num_hidden_layers
        return Connections(layers, self.side_layers, tuple((i, j) for i, j in self.pairs or []), self.suffix_layers)

    def side_attention(self) -> AttentionShape:
        """Heads of the side network's attention."""
        return AttentionShape(**self.side_shape or {})

    def sources(self) -> list[int]:
        """For each side layer the backbone layer, counted from 1, that it is built like: the one which last fed it, or
        of a copy the one which was copied.
        """
        if self.init == Init.CLONED:
            return copied_layers(self.connections())
        sources = {j: i for i, j in self.pairs or []}
        built_like, source = [], 1
        for j in range(1, self.side_layers + 1):
            source = sources.get(j, source)
            built_like.append(source)
        return built_like

    def takes_place_of(self) -> list[int]:
        """The backbone's last layers, counted from 1, whose place whole side layers take; none where the side is
        a second network. With the layers below they are a model like the backbone (docs/decisions/0007-branch.md).
        """
        backbone, connections = self.backbone_config(), self.connections()
        layers = backbone.num_hidden_layers
        whole = attention_shape(backbone, 1, SideAttention.NARROW).as_dict() == self.side_shape
        shape = self.gate, self.projection, self.tap_norm, self.block, self.init, self.combine, self.reduction
        as_copied = Gate.TAP, Projection.NONE, TapNorm.NONE, Block.FULL, Init.CLONED, Combination.REPLACE, 1
        runs_to_the_end = connections.pairs == ((layers - self.side_layers, 1),)
        if not whole or shape != as_copied or not runs_to_the_end or self.suffix_layers:
            return []
        return copied_layers(connections)

    def _layer_types(self, backbone: PreTrainedConfig) -> list[str]:
        """The backbone's attention types, then the side layers'."""
        own = getattr(backbone, "layer_types", None)
        if own is None:
            windowed = getattr(backbone, "sliding_window", None) is not None
            own = [SLIDING_ATTENTION if windowed else FULL_ATTENTION] * backbone.num_hidden_layers
        return [*own, *(own[source - 1] for source in self.sources())]


def read_ladder_config(folder: str | Path | adapter.AdapterFolder) -> LadderConfig:
    """The config of the ladder that is stored in `folder`, whoever wrote it.

    Only a ladder's own fields are taken over, and of the backbone nothing that names code to be run.

    Raises:
        UserError: if there is none, or it describes no ladder that could be built.
    """
    folder = adapter.AdapterFolder.open(folder)
    config = checked_config(folder.config(adapter.LADDER), str(folder))
    # A side layer has square matrices of its width at least: what is built stays in proportion to what was stored.
    needed = config.side_layers * (config.backbone_config().hidden_size // config.reduction) ** 2
    if folder.weights_size < needed:
        raise UserError(
            f"{folder} describes no ladder of {config.side_layers} layers: its weights' file is too small for them."
        )
    return config


def has_suffix(folder: adapter.AdapterFolder) -> bool:
    """Whether a folder holds a ladder that changes the backbone's last layers; of other adapters, no."""
    return folder.loader == adapter.LADDER and folder.config().get("suffix_layers", 0) != 0


def checked_config(values: dict[str, Any], folder: str, kind: type[LadderConfig] = LadderConfig) -> LadderConfig:
    """The config that a file's values describe, whoever wrote them.

    Args:
        values: as they were read; those that are no ladder's are left out.
        folder: where they stand, for messages.
        kind: of the config.

    Raises:
        UserError: if they describe no ladder that could be built.
    """
    own = {name: value for name, value in values.items() if name in LadderConfig.__annotations__}
    where = f"{folder} describes no ladder"
    backbone = own.get("backbone")
    if not isinstance(backbone, dict) or not isinstance(backbone.get("model_type"), str):
        raise UserError(f"{where}: it names no backbone.")
    own["backbone"] = {
        name: value for name, value in backbone.items() if not name.startswith("_") and name not in _NAMES_CODE
    }
    for name, largest in (("side_layers", LARGEST_DEPTH), ("reduction", LARGEST_WIDTH)):
        value = own.get(name, 1)
        if type(value) is not int or not 1 <= value <= largest:
            raise UserError(f"{where}: its {name} is {str(value)[:40]}.")
    rank = own.get("projection_rank", 1)
    if type(rank) is not int or not 1 <= rank <= LARGEST_WIDTH:
        raise UserError(f"{where}: its projection_rank is {str(rank)[:40]}.")
    for name, (smallest, highest) in _SUFFIX_BOUNDS.items():
        number: Any = own.get(name, smallest)
        kinds = (int,) if name in _WHOLE else (int, float)
        if type(number) not in kinds or not smallest <= number <= highest:
            raise UserError(f"{where}: its {name} is {str(number)[:40]}.")
    try:
        config = kind(**own)
        config.connections()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:  # Transformers' configs raise whatever a wrong value leads to
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{where}: {type(error).__name__}, {reason}.") from error
    return config


def plain_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A config as JSON values, without marks of how and from where it was loaded."""
    values = config.to_diff_dict() if isinstance(config, LadderConfig) else config.to_dict()
    unsaid: tuple[str, ...] = ("quantization_config", "dtype", "_name_or_path", "transformers_version")
    if isinstance(config, LadderConfig) and not config.suffix_layers:
        unsaid += tuple(_SUFFIX_BOUNDS)  # as before there were any
    for name in unsaid:
        values.pop(name, None)
    return values
