"""Asks Math-Verify for its own verdict on a completion, beside ours.

Papers report "Math-Verify Pass@1", so its score is printed too, and every completion on which the two disagree can be
looked up. Math-Verify takes the last formula for an answer, reads some strings only in part, and calls 1e-7 and 2e-7
equal. So its verdict is an opinion here, and ours decides (docs/decisions/0011-one-reading.md).
"""

from typing import Any

from ladder_cli.evaluate.answers.verdict import CORRECT, GOLD_UNPARSED, INCORRECT, LONGEST_GRADED, NO_ANSWER

PACKAGES = ("math-verify", "latex2sympy2-extended", "sympy", "antlr4-python3-runtime")


def math_verify_says(gold: str, completion: str) -> str:
    """Return Math-Verify's verdict, computed in this process and without a deadline.

    The gold answer is put into a box: without one, 108 of MATH-500's golds do not equal themselves. In the completion,
    boxes come before other formulas.
    """
    from math_verify import verify

    meant = _parse(f"\\boxed{{{gold}}}")
    if not meant:
        return GOLD_UNPARSED
    answer = _parse(completion[-LONGEST_GRADED:])
    if not answer:
        return NO_ANSWER
    return CORRECT if verify(meant, answer, timeout_seconds=None) else INCORRECT


def _parse(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    boxed_first = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    return list(parse(text, boxed_first, parsing_timeout=None))
