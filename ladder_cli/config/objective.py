"""What is minimised (the key `objective`), and what it goes together with. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ladder_cli.config.choices import ObjectiveKind, PreferenceLoss, RowFormat
from ladder_cli.config.methods import MethodConfig
from ladder_cli.config.options import option, settle
from ladder_cli.errors import UserError

# What the rows have to be, for each objective.
FORMATS: Mapping[ObjectiveKind, frozenset[RowFormat]] = MappingProxyType(
    {
        ObjectiveKind.SFT: frozenset(RowFormat) - {RowFormat.PREFERENCE},
        ObjectiveKind.DPO: frozenset({RowFormat.PREFERENCE}),
    }
)
# Those that hold what is trained against the bare backbone.
REFERRING = frozenset({ObjectiveKind.DPO})


@dataclass
class ObjectiveConfig:
    """What is minimised."""

    name: ObjectiveKind = option(
        ObjectiveKind.SFT, "what is learned: the completions (sft), or which of two is preferred (dpo)"
    )
    loss: PreferenceLoss = option(
        PreferenceLoss.SIGMOID, "of a pair: DPO's own, or IPO's", needs=("name", ObjectiveKind.DPO)
    )
    beta: float = option(
        0.1,
        "how closely the backbone is kept to; of ipo the margin is 1 / (2 beta), per token",
        at_least=1e-4,
        at_most=100.0,
        needs=("name", ObjectiveKind.DPO),
    )
    label_smoothing: float = option(
        0.0,
        "of the pairs that are taken to be labelled the wrong way round",
        unit="share",
        at_least=0.0,
        at_most=0.49,
        needs=("loss", PreferenceLoss.SIGMOID),
    )

    @property
    def refers(self) -> bool:
        """Whether it reads the bare backbone's state beside that of what is trained."""
        return self.name in REFERRING

    def __post_init__(self) -> None:
        settle(self, "objective.")


def check_objective(objective: ObjectiveConfig, method: MethodConfig, rows: RowFormat, packing: bool) -> None:
    """Refuse an objective that rows or method do not go with.

    Args:
        rows: the format of the data.
        packing: `data.packing`.

    Raises:
        UserError: naming what does.
    """
    if rows not in FORMATS[objective.name]:
        reads = " or ".join(sorted(kind.value for kind in FORMATS[objective.name]))
        fits = next(kind for kind, formats in FORMATS.items() if rows in formats)
        raise UserError(
            f"objective={objective.name} does not learn from rows of format {rows}: give rows of format {reads}, or "
            f"objective={fits}."
        )
    if objective.label_smoothing > 0 and objective.loss is not PreferenceLoss.SIGMOID:
        raise UserError(
            f"objective.label_smoothing={objective.label_smoothing:g} is for objective.loss=sigmoid, and "
            f"objective.loss={objective.loss} does not read it: leave one out."
        )
    if not objective.refers:
        return
    if packing:
        raise UserError(
            f"data.packing=true does not go with objective={objective.name}, which tells the two answers of a prompt "
            "apart by their rows: leave it out."
        )
    if not method.starts_as_the_backbone:
        raise UserError(
            f"method={method.name} does not start as the backbone (method.combine={getattr(method, 'combine', None)}), "
            f"which objective={objective.name} holds it against: train it with objective=sft, or choose a method that "
            "does, as method=ladder."
        )
