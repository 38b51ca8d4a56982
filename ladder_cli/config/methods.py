"""The schema of every method: one dataclass per kind, with what its parts can be. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ladder_cli.config.validation import at_least, between, one_of
from ladder_cli.errors import UserError

CONNECTION_PATTERNS = ("aligned", "first", "last", "even", "branch")
# What each part of a ladder can be (docs/ladder.md).
LADDER_CHOICES = {
    "gate": ("sum", "fixed", "learned", "vector", "tap"),
    "combine": ("residual", "side", "gated", "replace"),
    "projection": ("full", "low_rank", "shared", "none"),
    "tap_norm": ("none", "rms"),
    "block": ("full", "attention"),
    "attention": ("narrow", "backbone"),
    "init": ("uniform", "pruned_magnitude", "pruned_fisher", "cloned"),
}
# How gold answers are read (evaluate/answers/verdict.py).


def read_with(option: str, value: str, default: Any) -> Any:
    """A field that is read only where another option of the method has this value."""
    return field(default=default, metadata={"needs": (option, value)})


@dataclass
class MethodConfig:
    """What every method has; `kind` picks the schema of the rest (`METHOD_KINDS`)."""

    name: str = MISSING
    kind: str = MISSING
    learning_rate: float = MISSING  # peak rate that suits the method; holds where `train.learning_rate` is not given


@dataclass
class LadderMethodConfig(MethodConfig):
    """A side network fed by taps (docs/ladder.md; paper section 3)."""

    layers: int | None = None  # l, side layers; None: as many as the backbone has
    connections: Any = "aligned"  # a pattern, or pairs [[backbone layer, side layer], ...], both counted from 1
    delta: int | None = read_with("connections", "last", None)  # connected layers; None: half of the side layers
    reduction: int = 16  # r, side width = backbone width / r
    gate: str = "sum"  # how a tap joins the side state
    combine: str = "residual"  # how the side network joins the backbone at the end
    projection: str = "full"  # down-projection of the taps
    projection_rank: int = read_with("projection", "low_rank", 16)
    tap_norm: str = "none"  # before the down-projection
    block: str = "full"  # a side layer: attention and feed-forward, or attention alone
    attention: str = "narrow"  # the side attention's head size and kv heads: narrow, or the backbone's
    init: str = "uniform"  # first weights of the side network
    recompute: bool = True  # side layers keep their input alone for the backward pass and compute the rest again
    int8_taps: bool = False  # taps are kept for the backward pass in eight bits
    init_samples: int = read_with("init", "pruned_fisher", 32)  # training rows that init=pruned_fisher looks at

    def __post_init__(self) -> None:
        at_least("method.layers", self.layers, 1)
        at_least("method.delta", self.delta, 1)
        for name in ("reduction", "projection_rank", "init_samples"):
            at_least(f"method.{name}", getattr(self, name), 1)
        for name, choices in LADDER_CHOICES.items():
            one_of(f"method.{name}", getattr(self, name), choices)
        if isinstance(self.connections, str):
            one_of("method.connections", self.connections, CONNECTION_PATTERNS)
            return
        pairs = self.connections
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair) for pair in pairs
        ):
            raise UserError(
                f"method.connections={self.connections} is neither a pattern ({', '.join(CONNECTION_PATTERNS)}) "
                "nor a list of pairs such as [[1,1],[2,2]]."
            )
        if any(end < 1 for pair in pairs for end in pair):
            raise UserError(f"method.connections={self.connections}: layers are counted from 1.")


@dataclass
class QLoRAMethodConfig(MethodConfig):
    """Low-rank adapters on the linear layers of the (quantised) backbone, through peft."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        at_least("method.rank", self.rank, 1)
        at_least("method.alpha", self.alpha, 1)
        between("method.dropout", self.dropout, 0.0, 0.99)


@dataclass
class SuffixMethodConfig(QLoRAMethodConfig):
    """LoRA on the backbone's last layers alone; the layers below are only read, as under a ladder."""

    layers: int | None = None  # k, layers that learn, counted from the last; None: half of the backbone's

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("method.layers", self.layers, 1)


METHOD_KINDS: dict[str, type[MethodConfig]] = {
    "ladder": LadderMethodConfig,
    "qlora": QLoRAMethodConfig,
    "suffix": SuffixMethodConfig,
}
