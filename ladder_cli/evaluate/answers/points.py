r"""Decides whether two expressions are equal at points that are drawn from the names of their symbols.

The points are the same in every run. Symbols are positive there, so that `\sqrt{x^2}` is x. If a function is piecewise
(an absolute value, a rounding), many points of either sign are tried as well. Imports no torch.
"""

import hashlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from mpmath import mp, mpf

from ladder_cli.evaluate.answers.nodes import Node, number, symbols, walk
from ladder_cli.evaluate.answers.numeric import Undefined, evaluate

DIGITS, _MORE_DIGITS = 50, 110
_POINTS, _TRIES, _MORE_POINTS = 3, 9, 12
# Where the points lie.
_NEAR, _WIDE, _WHOLE = "near", "wide", "whole"
_ROUNDING = frozenset(("floor", "ceil"))
_KINKED = _ROUNDING | {"abs", "sgn", "sign", "max", "min"}
# Letters that stand for whole numbers where a formula rounds.
_COUNTERS = frozenset("nmkN")


def identical(gold: Node, answer: Node) -> bool:
    """Return whether two expressions are equal at every point that is tried."""
    names = symbols(gold) | symbols(answer)
    if not _equal_at_points(gold, answer, names, _NEAR):
        return _equal_at_whole_numbers(gold, answer, names)
    if not names or not _kinked(gold, answer):
        return True
    # \lfloor x \rfloor + 1 and \lceil x \rceil differ at whole numbers alone.
    if (_rounds_off(gold) or _rounds_off(answer)) and not _equal_at_points(gold, answer, names, _WHOLE):
        return False
    return _equal_at_points(gold, answer, names, _WIDE) or _equal_at_whole_numbers(gold, answer, names)


def _rounds_off(node: Node) -> bool:
    return any(item[0] == "function" and item[1] in _ROUNDING for item in walk(node))


def _kinked(*nodes: Node) -> bool:
    """Return whether a function is piecewise, so that a few points near zero prove nothing."""
    return any(item[0] == "function" and item[1] in _KINKED for item in walk(nodes))


def _equal_at_whole_numbers(gold: Node, answer: Node, names: set[str]) -> bool:
    r"""`(-1)^n` and `\cos n\pi`, `\lceil n/2 \rceil` and `\lfloor (n+1)/2 \rfloor`.

    If the gold makes sense only for whole numbers, those are tried.
    """
    counting = {
        item[2][1] for item in walk(gold) if item[0] == "^" and item[1] == ("-", number(1)) and item[2][0] == "symbol"
    }
    if _rounds_off(gold) and _rounds_off(answer):
        counting |= names & _COUNTERS
    return bool(counting) and names == counting and _equal_at_points(gold, answer, names, _WHOLE)


def _equal_at_points(gold: Node, answer: Node, names: set[str], where: str) -> bool:
    tried, enough = 0, _MORE_POINTS if where == _WIDE or (where == _WHOLE and _kinked(gold, answer)) else _POINTS
    for env in points(names, where):
        verdict = _equal_at(gold, answer, env)
        if verdict is False:
            return False
        if verdict:
            tried += 1
            if tried == enough or not names:
                return True
    return tried >= _POINTS


def _equal_at(gold: Node, answer: Node, env: dict[str, Callable[[], Any]]) -> bool | None:
    distances = []
    for digits in (DIGITS, _MORE_DIGITS):
        with mp.workdps(digits):
            try:
                left = evaluate(gold, env)
            except Undefined:
                return None
            try:
                right = evaluate(answer, env)
            except Undefined:
                return False if symbols(answer) == set() else None
            distance, size = _distance(left, right)
            if distance is None:
                return False
            if mp.isnan(distance):
                return None
            if distance == 0:
                return True
            distances.append(distance)
            if digits == DIGITS and distance > mpf(10) ** (12 - digits) * size and distance > mpf(10) ** (22 - digits):
                return False
    # What is only rounding becomes smaller with the digits.
    return bool(distances[1] < distances[0] * mpf(10) ** (DIGITS - _MORE_DIGITS + 15))


def _distance(left: Any, right: Any) -> tuple[Any, Any]:
    if isinstance(left, list) != isinstance(right, list):
        return None, None
    if isinstance(left, list):
        if len(left) != len(right) or len(left[0]) != len(right[0]):
            return None, None
        pairs = [pair for rows in zip(left, right, strict=True) for pair in zip(*rows, strict=True)]
    else:
        pairs = [(left, right)]
    distance, size = mpf(0), mpf(0)
    for one, other in pairs:
        if mp.isinf(one) or mp.isinf(other):
            if one != other:
                return None, None
            continue
        distance = max(distance, abs(one - other))
        size = max(size, abs(one), abs(other))
    return distance, size


def points(names: set[str], where: str) -> Iterator[Any]:
    """Return values for the symbols: the same in every run, and different for different symbols.

    Args:
        where: near zero and positive; of either sign up to 60; or whole numbers up to 60.
    """
    for attempt in range(_TRIES if where == _NEAR else 3 * _MORE_POINTS):
        env: dict[str, Any] = {}
        for name in sorted(names):
            digest = hashlib.sha256(f"{name}/{attempt}".encode()).digest()
            share = Fraction(int.from_bytes(digest[:12], "big"), 1 << 96)
            reach = (3, 12, 60)[attempt % 3]
            match where:
                case "whole":
                    value = Fraction(1 + attempt % 4 + int(share * reach))
                case "wide":
                    value = (share * 2 - 1) * reach
                case _:
                    value = Fraction(1, 3) + share * (2 + attempt)
            env[name] = _Lazy(value)
        yield env


class _Lazy(Fraction):
    """A rational value of a symbol, which is a number of mpmath's at whatever precision it is asked."""

    def __call__(self) -> Any:
        return mpf(self.numerator) / self.denominator


def proportional(one: Node, other: Node) -> float | None:
    """Return the constant by which one expression is a multiple of the other; None if there is none."""
    ratios = []
    where, enough = (_WIDE, _MORE_POINTS) if _kinked(one, other) else (_NEAR, _POINTS)
    with mp.workdps(DIGITS):
        for env in points(symbols(one) | symbols(other), where):
            try:
                left, right = evaluate(one, env), evaluate(other, env)
                if not isinstance(left, list) and not isinstance(right, list) and right != 0 and left != 0:
                    ratios.append(left / right)
            except Undefined:
                continue
            if len(ratios) == enough:
                break
        if len(ratios) < _POINTS:
            return None
        if all(abs(ratio - ratios[0]) < mpf(10) ** (15 - DIGITS) * abs(ratios[0]) for ratio in ratios):
            return float(mp.re(ratios[0])) if abs(mp.im(ratios[0])) < mpf(10) ** -20 else None
    return None


def same_zeros(one: Node, other: Node) -> bool:
    """Return whether two equations, linear in one variable, have the same solutions: each solves the other."""
    names = symbols(one)
    if names != symbols(other) or not names:
        return False
    with mp.workdps(DIGITS):
        kinks = [item for item in walk((one, other)) if item[0] == "function" and item[1] in _KINKED]
        rounded = {name for item in kinks for name in symbols(item)}
        for name in sorted(names - rounded):
            agreed: list[Any] = []
            where, enough = (_WIDE, _MORE_POINTS) if _kinked(one, other) else (_NEAR, _POINTS)
            for env in points(names, where):
                try:
                    root, its = _linear_root(one, name, dict(env)), _linear_root(other, name, dict(env))
                except (Undefined, TypeError, ZeroDivisionError):
                    break
                if root is None or its is None or abs(root - its) > mpf(10) ** (20 - DIGITS) * max(1, abs(root)):
                    break
                if root == 0:
                    # M R = S R M C and M R = -S R M C both have M = 0, and say nothing by it.
                    break
                agreed.append(root)
                if len(agreed) == enough:
                    return True
    return False


def _linear_root(node: Node, name: str, env: dict[str, Any]) -> Any:
    values = []
    for point in (mpf(1) / 3, mpf(2) / 3, mpf(1)):
        env[name] = point
        values.append(evaluate(node, env))
    slope = values[1] - values[0]
    if abs(values[2] - values[1] - slope) > mpf(10) ** (20 - DIGITS) * max(1, abs(slope)) or slope == 0:
        return None
    return mpf(1) / 3 - values[0] / (slope * 3)
