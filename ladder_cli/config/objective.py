"""What is minimised (the key `objective`), and what it goes together with. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ladder_cli.config.choices import EngineKind, ObjectiveKind, PreferenceLoss, RowFormat
from ladder_cli.config.methods import MethodConfig
from ladder_cli.config.options import incidental, option, settle
from ladder_cli.errors import UserError

# What the rows have to be, for each objective.
FORMATS: Mapping[ObjectiveKind, frozenset[RowFormat]] = MappingProxyType(
    {
        ObjectiveKind.SFT: frozenset(RowFormat) - {RowFormat.PREFERENCE},
        ObjectiveKind.DPO: frozenset({RowFormat.PREFERENCE}),
        ObjectiveKind.GRPO: frozenset({RowFormat.PAIRS, RowFormat.CHAT, RowFormat.GENERATED}),
    }
)
# Those that hold what is trained against the bare backbone.
REFERRING = frozenset({ObjectiveKind.DPO, ObjectiveKind.GRPO})
_LEAST_BETA = 1e-4  # of preferences: the margin of ipo is divided by it
GRADER = "grader"  # as a reward: 1 for an answer that is right by our own grader, else 0


@dataclass
class ObjectiveConfig:
    """What is minimised."""

    name: ObjectiveKind = option(
        ObjectiveKind.SFT,
        "what is learned: the completions (sft), which of two is preferred (dpo), or what is rewarded of the model's "
        "own (grpo)",
    )
    learning_rate_scale: float = option(
        1.0, "times the method's rate: what is learned from preferences or rewards takes smaller steps", at_least=0.0
    )
    loss: PreferenceLoss = option(
        PreferenceLoss.SIGMOID, "of a pair: DPO's own, or IPO's", needs=("name", ObjectiveKind.DPO)
    )
    beta: float = option(
        0.1,
        "how closely the backbone is kept to; of ipo the margin is 1 / (2 beta), per token; of grpo the weight of the "
        "divergence from it, which may be 0",
        at_least=0.0,
        at_most=100.0,
        needs=("name", (ObjectiveKind.DPO, ObjectiveKind.GRPO)),
    )
    label_smoothing: float = option(
        0.0,
        "of the pairs that are taken to be labelled the wrong way round",
        unit="share",
        at_least=0.0,
        at_most=0.49,
        needs=("loss", PreferenceLoss.SIGMOID),
    )
    reward: str = option(
        GRADER,
        "what a completion is worth: grader (1 if its answer is right, else 0), or a Python function as "
        "package.module:function",
        needs=("name", ObjectiveKind.GRPO),
    )
    group: int = option(
        8, "of each prompt, held against each other", unit="completions", at_least=2, needs=("name", ObjectiveKind.GRPO)
    )
    max_new_tokens: int = option(
        256, "of a completion at most", unit="tokens", at_least=1, needs=("name", ObjectiveKind.GRPO)
    )
    temperature: float = option(
        1.0, "of sampling, and of the policy that is trained", at_least=0.01, at_most=10.0,
        needs=("name", ObjectiveKind.GRPO),
    )  # fmt: skip
    engine: EngineKind = option(
        EngineKind.TRANSFORMERS,
        "what samples completions: the model itself (transformers), or vllm beside it, which is sent the trained "
        "weights before each sampling",
        needs=("name", ObjectiveKind.GRPO),
    )
    engine_memory: float = incidental(
        0.4, "of the device's memory that vLLM takes", unit="share", at_least=0.02, at_most=0.95,
        needs=("engine", EngineKind.VLLM),
    )  # fmt: skip
    sampler_cap: float = option(
        2.0,
        "of the weight of a token for what vLLM's probability of it differs from that of what learns",
        at_least=1.0,
        at_most=1000.0,
        needs=("engine", EngineKind.VLLM),
    )
    sample_batch: int | None = option(
        None,
        "generated at a time; null: all of a step, of vllm as many as its memory holds",
        unit="completions",
        at_least=1,
        needs=("name", ObjectiveKind.GRPO),
    )
    iterations: int = option(
        1, "of the weights for each sampling", unit="updates", at_least=1, needs=("name", ObjectiveKind.GRPO)
    )
    clip: float = option(
        0.2, "how far below 1 a ratio to the policy that sampled still counts", at_least=0.0, at_most=1.0,
        needs=("name", ObjectiveKind.GRPO),
    )  # fmt: skip
    clip_high: float = option(
        0.28, "how far above 1 (DAPO's is higher than the lower one)", at_least=0.0, at_most=100.0,
        needs=("name", ObjectiveKind.GRPO),
    )  # fmt: skip
    divide_by_std: bool = option(
        False,
        "advantages are divided by the deviation of their group's rewards, as GRPO's first paper has it",
        needs=("name", ObjectiveKind.GRPO),
    )
    grade_seconds: float = option(
        5.0, "deadline of one verification by the grader", unit="seconds", at_least=0.5, at_most=600.0,
        needs=("reward", GRADER),
    )  # fmt: skip

    @property
    def refers(self) -> bool:
        """Whether it reads the bare backbone's state beside that of what is trained."""
        return self.name in REFERRING

    @property
    def samples(self) -> bool:
        """Whether it learns from completions that are sampled while it trains, and not from those of the rows."""
        return self.name is ObjectiveKind.GRPO

    @property
    def completions_each(self) -> int:
        """Rows of a batch that a row of the data becomes, where the model writes them itself; else 1."""
        return self.group if self.samples else 1

    def __post_init__(self) -> None:
        settle(self, "objective.")
        if self.name is ObjectiveKind.DPO and self.beta < _LEAST_BETA:
            raise UserError(
                f"objective.beta={self.beta:g} is too small for objective=dpo: give {_LEAST_BETA:g} or more."
            )


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
            f"data.packing=true does not go with objective={objective.name}, which tells the answers to a prompt apart "
            "by their rows: leave it out."
        )
    if not method.starts_as_the_backbone:
        raise UserError(
            f"method={method.name} does not start as the backbone (method.combine={getattr(method, 'combine', None)}), "
            f"which objective={objective.name} holds it against: train it with objective=sft, or choose a method that "
            "does, as method=ladder."
        )
