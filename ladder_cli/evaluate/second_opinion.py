"""What Math-Verify by itself says of a completion, beside our own verdict.

Math-Verify is what papers report ("Math-Verify Pass@1"), so its score is printed too, and every completion on which
the two disagree can be looked up. It reads the completion in its own way, which takes the last formula for an answer,
reads some strings in part, and calls 1e-7 and 2e-7 equal: so its word is an opinion here, and ours the verdict
(docs/decisions/0011-one-reading.md).
"""

from typing import Any

from ladder_cli.evaluate.answers.verdict import CORRECT, GOLD_UNPARSED, INCORRECT, LONGEST_GRADED, NO_ANSWER

PACKAGES = ("math-verify", "latex2sympy2-extended", "sympy", "antlr4-python3-runtime")


def math_verify_says(gold: str, completion: str) -> str:
    """Math-Verify's verdict, in this process and without any deadline.

    The gold answer stands in a box, since 108 of MATH-500's golds fail against themselves without one; the
    completion's boxes come before its other formulas.
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
