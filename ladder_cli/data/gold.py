"""How the gold answers of a benchmark are to be read; `evaluate/answers/verdict.py` applies it."""

from dataclasses import dataclass

from ladder_cli.config.choices import GoldReading

# `evaluate/answers/verdict.py` says what each does, and docs/evaluation.md why.
EXPRESSION, PHYSICAL, SEVERAL = GoldReading.EXPRESSION, GoldReading.PHYSICAL, GoldReading.SEVERAL


@dataclass(frozen=True)
class GoldRule:
    """A rule and what the row itself says about its gold answer.

    Attributes:
        name: one of `choices.GoldReading`.
        unit: that the answer is in, and may or may not be written with; empty for none.
        tolerance: absolute difference that a numerical answer may have; None: none.
    """

    name: GoldReading = EXPRESSION
    unit: str = ""
    tolerance: float | None = None


AS_EXPRESSION = GoldRule()
