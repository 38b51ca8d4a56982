"""Decides whether two values are equal, or as near as the tolerance allows. Imports no torch.

Fractions are compared as fractions; what is irrational is computed to 50 and to 110 digits. A decimal is equal to an
exact value which rounds to it, or is cut off, at its last digit, if it gives at least five digits that count (of a
fraction) or six places (of an irrational number, which is asked for as it is); below that it is another number.
"""

from dataclasses import dataclass
from fractions import Fraction

from mpmath import mp, mpf

from ladder_cli.evaluate.answers.nodes import Node, number, symbols, walk
from ladder_cli.evaluate.answers.numeric import Undefined, evaluate, exact
from ladder_cli.evaluate.answers.points import DIGITS, identical

# What a rounded decimal must give to stand for an exact value: digits that count for a fraction, decimal places (and as
# many digits that count) for an irrational number.
FRACTION_DIGITS, DECIMALS = 5, 6


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the gold.

    Attributes:
        relative: share of the gold.
        absolute: difference.
        unit: the unit of the benchmark's row, which need not be written.
    """

    relative: float = 0.0
    absolute: float = 0.0
    unit: str = ""

    @property
    def exact(self) -> bool:
        """Return whether only the gold itself is right."""
        return self.relative == 0.0 and self.absolute == 0.0


EXACT = Tolerance()


def same_value(gold: Node, answer: Node, tolerance: Tolerance = EXACT) -> bool:
    """Return whether two expressions are equal within the tolerance. Handles percent, degrees and bases."""
    if gold == answer:
        return True
    for kind in ("percent", "degree", "based"):
        if (gold[0] == kind) != (answer[0] == kind):
            one, other = (gold, answer) if gold[0] == kind else (answer, gold)
            return _one_sided_mark(kind, one, other, gold is one, tolerance)
    if gold[0] == answer[0] and gold[0] in ("percent", "degree"):
        return same_value(gold[1], answer[1], tolerance)
    left, right = exact(gold), exact(answer)
    if left is not None and right is not None:
        if _inexact(gold) != _inexact(answer) and left != right and tolerance.exact:
            return _rounds(gold, answer, left, right)
        return _close(left, right, tolerance)
    if not tolerance.exact and not symbols(gold) and not symbols(answer):
        return _numerically_close(gold, answer, tolerance)
    if _inexact(gold) != _inexact(answer) and not symbols(gold) and not symbols(answer):
        return _rounds(gold, answer, left, right)
    return identical(gold, answer)


def _one_sided_mark(kind: str, marked: Node, other: Node, is_gold: bool, tolerance: Tolerance) -> bool:
    if kind == "based":
        # 2516 for 2516_8: the base is the question's. The value in base ten is another answer.
        return other[0] == "number" and other[1].denominator == 1 and str(other[1]) == marked[1]

    def equal(value: Node) -> bool:
        return same_value(value, other, tolerance) if is_gold else same_value(other, value, tolerance)

    if kind == "percent":
        if equal(("/", marked[1], number(100))):
            return True
        plain = exact(other)
        # 0.5 may be a share, of which 0.5% is another.
        asked = is_gold or plain is None or abs(plain) >= 1 or plain == 0 or "%" in tolerance.unit
        return asked and equal(marked[1])
    radians = ("/", ("*", (marked[1], ("constant", "pi"))), number(180))
    return equal(marked[1]) or equal(radians)


def _inexact(node: Node) -> bool:
    """Return whether it has a decimal."""
    return any(item[0] == "number" and len(item) == 3 and item[2] is not None for item in walk(node))


def _decimal(node: Node) -> tuple[Fraction, int] | None:
    """Return value and digits after the point of a decimal, with or without sign or percent."""
    if node[0] == "-":
        inner = _decimal(node[1])
        return None if inner is None else (-inner[0], inner[1])
    if node[0] == "number" and node[2] is not None:
        return node[1], node[2]
    return None


def _rounds(gold: Node, answer: Node, left: Fraction | None, right: Fraction | None) -> bool:
    """Return whether a decimal is an exact value, or that value rounded to enough digits."""
    if left is not None and left == right:
        return True
    written, other = (_decimal(gold), answer) if _inexact(gold) else (_decimal(answer), gold)
    if written is None:
        return identical(gold, answer)
    value, digits = written
    counting = len(str(abs(value.numerator * 10**digits // value.denominator)))
    enough = (
        counting >= FRACTION_DIGITS
        if (left if other is gold else right) is not None
        else min(digits, counting) >= DECIMALS
    )
    if not enough:
        return identical(gold, answer)
    try:
        with mp.workdps(max(DIGITS, digits + 10)):
            meant = evaluate(other, {})
            if mp.im(meant) != 0:
                return False
            given, unit = mpf(value.numerator) / value.denominator, mpf(10) ** -digits
            cut_off = 0 <= abs(meant) - abs(given) < unit and mp.sign(meant) == mp.sign(given)
            return bool(cut_off or abs(meant - given) <= unit * mpf("0.5000000001"))
    except (Undefined, TypeError):
        return False


def _close(gold: Fraction, answer: Fraction, tolerance: Tolerance) -> bool:
    if tolerance.exact:
        return gold == answer
    slack = max(Fraction(tolerance.relative) * max(abs(gold), abs(answer)), Fraction(tolerance.absolute))
    return abs(gold - answer) <= slack * (1 + Fraction(1, 10**9))


def _numerically_close(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    try:
        with mp.workdps(DIGITS):
            left, right = evaluate(gold, {}), evaluate(answer, {})
            if isinstance(left, list) or isinstance(right, list):
                return False
            slack = max(tolerance.relative * max(abs(left), abs(right)), mpf(tolerance.absolute)) * (1 + mpf(10) ** -9)
            return bool(abs(left - right) <= slack)
    except (Undefined, TypeError):
        return False
