"""The schema of every method: one dataclass per kind, with what its parts can be. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

from omegaconf import MISSING

from ladder_cli.config.choices import (
    Block,
    Combination,
    Gate,
    Init,
    Pattern,
    Projection,
    SideAttention,
    TapNorm,
    parse_choice,
)
from ladder_cli.config.options import choices_of, hints_of, option, settle
from ladder_cli.errors import UserError

# What a ladder starts as, by its combination and the first weights of its side network: the backbone, bit for bit, or
# something else.
STARTS_AS_THE_BACKBONE: dict[Combination, Callable[[Init], bool]] = {
    Combination.RESIDUAL: lambda init: True,
    Combination.GATED: lambda init: True,
    Combination.SIDE: lambda init: False,
    Combination.REPLACE: lambda init: init is Init.CLONED,
}


@dataclass
class MethodConfig:
    """What every method has; `kind` picks the schema of the rest (`METHOD_KINDS`).

    Attributes:
        reads_taps: the backbone, or its lower layers, are only read; else gradients pass through all of it.
        takes_over: what a model suggests (`model.side_reduction`), by the option that refers to it in conf/method.
    """

    reads_taps: ClassVar[bool] = True
    takes_over: ClassVar[Mapping[str, str]] = MappingProxyType({})
    name: str = option(MISSING, "name of the method, of its file in conf/method")
    kind: str = option(MISSING, "which options the method has")
    learning_rate: float = option(
        MISSING, "peak that suits the method; holds where `train.learning_rate` is not given", at_least=0.0, at_most=1.0
    )

    @property
    def starts_as_the_backbone(self) -> bool:
        """Whether its logits are the backbone's before anything was learned."""
        return True


@dataclass
class LadderMethodConfig(MethodConfig):
    """A side network fed by taps (docs/ladder.md; paper section 3)."""

    takes_over: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"model.side_reduction": "method.reduction", "model.side_recompute": "method.recompute"}
    )
    layers: int | None = option(None, "l, side layers; null: as many as the backbone has", at_least=1)
    connections: Any = option(
        Pattern.ALIGNED,
        f"{', '.join(Pattern)}, or pairs [[backbone layer, side layer], ...], both counted from 1",
    )
    delta: int | None = option(
        None,
        "connected layers; null: half of the side layers",
        at_least=1,
        needs=("connections", Pattern.LAST),
    )
    reduction: int = option(16, "r: side width = backbone width / r", at_least=1)
    gate: Gate = option(Gate.SUM, "how a tap joins the side state")
    combine: Combination = option(Combination.RESIDUAL, "how the side network joins the backbone at the end")
    projection: Projection = option(Projection.FULL, "down-projection of the taps")
    projection_rank: int = option(16, "of the down-projection", at_least=1, needs=("projection", Projection.LOW_RANK))
    tap_norm: TapNorm = option(TapNorm.NONE, "of a tap, before the down-projection")
    block: Block = option(Block.FULL, "a side layer: attention and feed-forward, or attention alone")
    attention: SideAttention = option(
        SideAttention.NARROW, "the side attention's head size and kv heads: narrow, or the backbone's"
    )
    init: Init = option(Init.UNIFORM, "first weights of the side network")
    recompute: bool = option(True, "side layers save their input alone for the backward pass, and are recomputed there")
    int8_taps: bool = option(False, "taps are saved for the backward pass in eight bits")
    init_samples: int = option(
        32, "that the pruning looks at", unit="training rows", at_least=1, needs=("init", Init.PRUNED_FISHER)
    )
    suffix_layers: int | None = option(
        0,
        "k, of the backbone's last layers, that learn by LoRA; the side network lies below and joins the backbone "
        "there; null: half of the backbone's",
        at_least=0,
    )
    rank: int = option(16, "of the suffix's low-rank matrices", at_least=1, unless=("suffix_layers", 0))
    alpha: int = option(32, "scale of their product, over the rank", at_least=1, unless=("suffix_layers", 0))
    dropout: float = option(
        0.0, "of their input", unit="share", at_least=0.0, at_most=0.99, unless=("suffix_layers", 0)
    )
    gradient_checkpointing: bool = option(
        False,
        "recompute the suffix in the backward pass: less memory, more arithmetic",
        unless=("suffix_layers", 0),
    )

    @property
    def starts_as_the_backbone(self) -> bool:
        """Whether it does, by its combination and first weights."""
        return STARTS_AS_THE_BACKBONE[self.combine](self.init)

    def __post_init__(self) -> None:
        settle(self, "method.")
        refuse_above_suffix(self.suffix_layers, self.combine, self.init)
        if isinstance(self.connections, str):
            self.connections = parse_choice("method.connections", self.connections, Pattern)
            return
        pairs = self.connections
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair) for pair in pairs
        ):
            raise UserError(
                f"method.connections={self.connections} is neither a pattern ({', '.join(Pattern)}) "
                "nor a list of pairs such as [[1,1],[2,2]]."
            )
        if any(end < 1 for pair in pairs for end in pair):
            raise UserError(f"method.connections={self.connections}: layers are counted from 1.")


def refuse_above_suffix(suffix_layers: int | None, combine: Combination, init: Init) -> None:
    """Refuse a side network that takes the place of layers, below others that begin from the backbone's state.

    Args:
        suffix_layers: k; None: some.
        combine: how the side network joins.
        init: its first weights.

    Raises:
        UserError: if k is not 0 and it does.
    """
    if suffix_layers == 0:
        return
    adds = (Combination.RESIDUAL, Combination.GATED)
    if combine not in adds:
        raise UserError(
            f"method.combine={combine} does not go with method.suffix_layers: the suffix begins from the backbone's "
            f"state, which the side network is added to: use method.combine={' or '.join(adds)}."
        )
    if init is Init.CLONED:
        raise UserError(
            "method.init=cloned does not go with method.suffix_layers: copies take the place of the backbone's last "
            "layers, and those are the suffix: use method.init=uniform."
        )


@dataclass
class QLoRAMethodConfig(MethodConfig):
    """Low-rank adapters on the linear layers of the (quantised) backbone, through peft."""

    reads_taps: ClassVar[bool] = False
    rank: int = option(16, "of the low-rank matrices", at_least=1)
    alpha: int = option(32, "scale of their product, over the rank", at_least=1)
    dropout: float = option(0.0, "of their input", unit="share", at_least=0.0, at_most=0.99)
    gradient_checkpointing: bool = option(
        False, "recompute the layers that learn in the backward pass: less memory, more arithmetic"
    )

    def __post_init__(self) -> None:
        settle(self, "method.")


@dataclass
class SuffixMethodConfig(QLoRAMethodConfig):
    """LoRA on the backbone's last layers alone; the layers below are only read, as under a ladder."""

    reads_taps: ClassVar[bool] = True
    takes_over: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"model.side_recompute": "method.gradient_checkpointing"}
    )
    layers: int | None = option(
        None, "k, layers that learn, counted from the last; null: half of the backbone's", at_least=1
    )


# The parts of a ladder that are chosen by name, which its adapter records too (nn/ladder_config.py).
LADDER_CHOICES: dict[str, type[StrEnum]] = {
    name: choices for name, hint in hints_of(LadderMethodConfig).items() if (choices := choices_of(hint)) is not None
}
METHOD_KINDS: dict[str, type[MethodConfig]] = {
    "ladder": LadderMethodConfig,
    "qlora": QLoRAMethodConfig,
    "suffix": SuffixMethodConfig,
}
# What a model suggests, and an option that takes it over.
SUGGESTED: dict[str, str] = {
    option: reader for kind in reversed(METHOD_KINDS.values()) for option, reader in kind.takes_over.items()
}
# Options of a kind that came later, by their full names, and what was done before: a config.yaml without them was
# written then (`schema.ADDED`).
ADDED_TO_KIND: dict[str, dict[str, Any]] = {
    "ladder": {
        f"method.{item.name}": item.default
        for item in fields(LadderMethodConfig)
        if item.name in ("suffix_layers", "rank", "alpha", "dropout", "gradient_checkpointing")
    }
}
