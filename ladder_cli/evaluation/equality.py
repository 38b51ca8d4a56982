# ruff: noqa: E501
r"""Are two expressions the same answer? Exact where both are exact. Imports no torch.

Numbers: fractions are compared as fractions; what is irrational is computed to 50 and to 110 digits. A decimal is
equal to an exact value which rounds to it, or is cut off, at its last digit, if it gives at least five digits that count (of a
fraction) or six places (of an irrational number, which is asked for as it is); below that it is another number. Expressions in symbols: equal at several points, drawn from the symbols'
names, positive (so that `\sqrt{x^2}` is x); if either has an absolute value, at negative points too.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpmath import mp, mpc, mpf

from ladder_cli.evaluation.expression import Node, number, symbols, walk
from ladder_cli.evaluation.numeric import Undefined, evaluate, exact
from ladder_cli.evaluation.units import same_quantity

_DIGITS, _MORE_DIGITS = 50, 110
_POINTS, _TRIES, _MORE_POINTS = 3, 9, 12
# Where the points lie.
_NEAR, _WIDE, _WHOLE = "near", "wide", "whole"
_ROUNDING = frozenset(("floor", "ceil"))
_KINKED = _ROUNDING | {"abs", "sgn", "sign", "max", "min"}
# Letters that stand for whole numbers where a formula rounds.
_COUNTERS = frozenset("nmkN")
# What a rounded decimal must give to stand for an exact value: digits that count for a fraction, decimal places (and as
# many digits that count) for an irrational number.
FRACTION_DIGITS, DECIMALS = 5, 6
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~"}
_SETS = ("cup", "cap", "setminus", "numbers")
_INEQUALITIES = ("<", ">", "<=", ">=")


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
        """Is nothing but the gold itself right?"""
        return self.relative == 0.0 and self.absolute == 0.0


EXACT = Tolerance()


def same(gold: Node, answer: Node, tolerance: Tolerance = EXACT) -> bool:
    """Is the answer the gold?"""
    if gold == answer:
        return True
    for one in expanded(gold):
        for other in expanded(answer):
            if _same(one, other, tolerance):
                return True
    return False


def expanded(node: Node) -> Iterator[Node]:
    r"""The expression, and what it says with `\pm` written out as two parts."""
    parts = _written_out(node)
    yield parts


def _written_out(node: Node) -> Node:
    if not any(item[0] in ("pm", "mp") for item in walk(node)):
        return node
    kind = node[0]
    if kind in ("list", "set"):
        items: list[Node] = []
        for item in node[1]:
            written = _written_out(item)
            items += written[1] if written[0] == "list" else [written]
        return (kind, tuple(items))
    if kind == "tuple":
        return node
    upper, lower = _signed(node, True), _signed(node, False)
    return ("list", (upper, lower))


def _signed(node: Any, upper: bool) -> Any:
    if not isinstance(node, tuple) or not node:
        return node
    if node[0] in ("pm", "mp") and len(node) == 3:
        left, right = _signed(node[1], upper), _signed(node[2], upper)
        plus = upper == (node[0] == "pm")
        right = right if plus else ("-", right)
        return right if left is None else ("+", (left, right))
    return tuple(_signed(item, upper) for item in node)


# Kinds


def _same(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    if gold == answer:
        return True
    if gold[0] == "groups" or answer[0] == "groups":
        return _same_groups(gold, answer, tolerance)
    if "mod" in (gold[0], answer[0]):
        return _same_remainder(gold, answer, tolerance)
    if "relation" in (gold[0], answer[0]):
        return _same_relations(gold, answer, tolerance)
    if "clock" in (gold[0], answer[0], *(node[1][0] for node in (gold, answer) if node[0] == "unit")):
        return _same_time(gold, answer, tolerance)
    if "unit" in (gold[0], answer[0]):
        return same_quantity(gold, answer, tolerance.unit, lambda one, other: _same(one, other, tolerance))
    if "list" in (gold[0], answer[0]) or "tuple" in (gold[0], answer[0]) or "set" in (gold[0], answer[0]):
        return _same_collections(gold, answer, tolerance)
    if gold[0] in ("cup", "cap", "setminus", "numbers") or answer[0] in ("cup", "cap", "setminus", "numbers"):
        return _same_real_sets(gold, answer)
    if "ratio" in (gold[0], answer[0]):
        return _same_ratio(gold, answer, tolerance)
    gold, answer = _matrix(gold, answer), _matrix(answer, gold)
    if gold[0] == answer[0] == "matrix":
        return _same_matrices(gold, answer, tolerance)
    return same_value(gold, answer, tolerance)


def _same_groups(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    left, right = _parts(gold), _parts(answer)
    if gold[0] == answer[0] == "groups":
        return matched(left, right, lambda one, other: _same(one, other, tolerance))
    if gold[0] == "groups" and answer[0] != "groups":
        if matched(left, right, lambda one, other: _same(one, other, tolerance)):
            return True
        flat = [item for group in left for item in _parts(group)]
        return matched(flat, right, lambda one, other: _same(one, other, tolerance))
    return _same_groups(answer, gold, tolerance)


def _parts(node: Node) -> list[Node]:
    """The parts of an answer that lists several."""
    return list(node[1]) if node[0] in ("list", "set", "groups") else [node]


def matched(left: list[Node], right: list[Node], equal: Callable[[Node, Node], bool]) -> bool:
    """Can each on the left be paired with its own on the right? (A perfect matching, so that order does not matter.)"""
    if len(left) != len(right) or len(left) > 200:
        return False
    pairs: dict[int, int] = {}
    cache: dict[tuple[int, int], bool] = {}

    def alike(one: int, other: int) -> bool:
        if (one, other) not in cache:
            cache[one, other] = equal(left[one], right[other])
        return cache[one, other]

    def find(one: int, seen: set[int]) -> bool:
        for other in range(len(right)):
            if other not in seen and alike(one, other):
                seen.add(other)
                if other not in pairs or find(pairs[other], seen):
                    pairs[other] = one
                    return True
        return False

    return all(find(one, set()) for one in range(len(left)))


# Relations


def is_name(node: Node) -> bool:
    r"""Can it stand before an equals sign to name what follows: x, f(x), I_{max}, (p, q), AB, |AB|, A:B, \angle A?"""
    kind = node[0]
    if kind in ("symbol", "apply"):
        return True
    if kind == "constant":
        return node[1] in ("e", "i")
    if kind == "*":
        return all(is_name(part) for part in node[1])
    if kind == "/":
        return is_name(node[1]) and is_name(node[2])
    if kind == "function":
        return node[1] in ("abs", "norm") and is_name(node[2][0])
    if kind in ("tuple", "list", "ratio"):
        return all(is_name(part) for part in node[-1])
    return False


def unnamed(node: Node) -> Node:
    """What a chain of equations ends in, if it begins with a name, with numbers, or with a sum that is worked out."""
    if node[0] == "list":
        return ("list", tuple(unnamed(part) for part in node[1]))
    if node[0] != "relation":
        return node
    terms, operators = node[1], node[2]
    if operators[-1] == "in" and len(operators) == 1 and is_name(terms[0]):
        return unnamed(terms[-1])
    # x = 1/3 \approx 0.33: the exact one.
    while len(terms) > 2 and operators[-1] == "~":
        terms, operators = terms[:-1], operators[:-1]
    if operators[-1] not in ("=", "~", "mapsto"):
        return node
    return unnamed(terms[-1]) if terms[-1][0] != "relation" else terms[-1]


def _answers(node: Node) -> Iterator[Node]:
    """What an answer that is a relation may mean where the gold is none."""
    terms, operators = node[1], node[2]
    if operators[-1] == "in" and len(operators) == 1:
        if not _is_negated_name(terms[0]):
            yield terms[-1]
        return
    if set(operators) <= {"=", "~", "===", "mapsto"}:
        if operators[-1] == "~":
            before = terms[-2]
            if not is_name(before):
                yield before if len(terms) == 2 or operators[-2] == "=" else terms[-2]
                if not _near(before, terms[-1]):
                    return
            yield terms[-1]
            return
        last = terms[-1]
        zero = last[0] == "number" and last[1] == 0
        if zero and not is_name(terms[0]) and symbols(terms[0]):
            # An equation, and not the value 0.
            return
        if not (len(terms) == 2 and _is_negated_name(terms[0])):
            yield last
        if is_name(last) and len(terms) == 2 and not is_name(terms[0]):
            yield terms[0]


def _is_negated_name(node: Node) -> bool:
    """-x: nobody is asked for that, so what it equals is no answer."""
    return node[0] == "-" and is_name(node[1])


def _near(one: Node, other: Node) -> bool:
    """Is one an approximation of the other?"""
    try:
        with mp.workdps(20):
            left, right = evaluate(one, {}), evaluate(other, {})
            return bool(abs(left - right) <= 0.05 * max(abs(left), abs(right)))
    except (Undefined, TypeError):
        return True


def _same_relations(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    if gold[0] == answer[0] == "relation":
        return _both_relations(gold, answer, tolerance)
    if answer[0] == "relation":
        for meant in _answers(answer):
            if same(gold, meant, tolerance):
                return True
        if gold[0] in ("tuple", "cup", "cap", "setminus", "numbers", "set"):
            return _same_real_sets(gold, answer)
        return gold[0] == "list" and len(gold[1]) > 1 and _same_collections(gold, answer, tolerance)
    # The gold is a relation, the answer none.
    terms, operators = gold[1], gold[2]
    if set(operators) <= {"=", "~", "in", "mapsto", "==="} and (
        is_name(terms[0]) or len(terms) > 2 or not symbols(gold)
    ):
        for meant in _answers(gold):
            if same(meant, answer, tolerance):
                return True
    if answer[0] in ("tuple", "cup", "cap", "setminus", "numbers", "set"):
        return _same_real_sets(gold, answer)
    if answer[0] == "list":
        return _same_collections(gold, answer, tolerance)
    return False


def _both_relations(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    left, right = _shortened(gold), _shortened(answer)
    if set(left[2]) <= {"="} and set(right[2]) <= {"="} and len(left[1]) == len(right[1]) == 2:
        return _same_equations(left, right, tolerance)
    if "in" in left[2] or "in" in right[2] or _is_bounds(left) != _is_bounds(right):
        alike = symbols(left) == symbols(right) or _same_names_of_values(left, right)
        return (alike and _same_real_sets(gold, answer)) or _same_chain(left, right, tolerance)
    if _same_chain(left, right, tolerance) or _same_inequality(left, right):
        return True
    return symbols(left) == symbols(right) and _same_real_sets(left, right)


def _shortened(node: Node) -> Node:
    """A chain `z = 1 + 1 = 2` as `z = 2`; approximations at the end are left out."""
    terms, operators = list(node[1]), list(node[2])
    while len(operators) > 1 and operators[-1] == "~":
        terms.pop()
        operators.pop()
    operators = ["=" if operator in ("~", "mapsto") else operator for operator in operators]
    if len(operators) > 1 and set(operators) == {"="}:
        terms, operators = [terms[0], terms[-1]], ["="]
    return ("relation", tuple(terms), tuple(operators))


def _same_equations(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    (left, right), (other_left, other_right) = gold[1], answer[1]
    for one, other in (((left, right), (other_left, other_right)), ((left, right), (other_right, other_left))):
        if _same_names(one[0], other[0]) and same(one[1], other[1], tolerance):
            return True
        renamed = _renamed(one[0], other[0], other[1])
        if renamed is not None and same(one[1], renamed, tolerance):
            return True
    if any(
        item[0] in ("tuple", "set", "list", "matrix", "cup", "relation")
        for item in walk((left, right, other_left, other_right))
    ):
        return False
    if not symbols(gold) and not symbols(answer):
        return same(right, other_right, tolerance)
    one, other = ("+", (left, ("-", right))), ("+", (other_left, ("-", other_right)))
    return proportional(one, other) is not None or _same_zeros(one, other)


def _same_names(one: Node, other: Node) -> bool:
    if one == other:
        return True
    if one[0] == other[0] == "tuple":
        return len(one[3]) == len(other[3]) and all(map(_same_names, one[3], other[3]))
    return is_name(one) and is_name(other) and not _is_number(one) and same_value(one, other)


def _same_names_of_values(one: Node, other: Node) -> bool:
    """y and f(x) are both what a function takes as its values."""
    names = [symbols(one), symbols(other)]
    return {"y"} in names and any(item[0] == "apply" and item[2] == (("symbol", "x"),) for item in walk((one, other)))


def _is_number(node: Node) -> bool:
    return not symbols(node)


def _renamed(one: Node, other: Node, right: Node) -> Node | None:
    """The right side of f(t) = .. in terms of x, where the gold speaks of f(x), or y = .. where it speaks of f(x)."""
    if one[0] == other[0] == "apply" and one[1] == other[1] and len(one[2]) == len(other[2]):
        if all(part[0] == "symbol" for part in (*one[2], *other[2])):
            return _substituted(right, dict(zip((part[1] for part in other[2]), one[2], strict=True)))
    elif {one[0], other[0]} == {"apply", "symbol"}:
        function, name = (one, other) if one[0] == "apply" else (other, one)
        if name[1] == "y" and len(function[2]) == 1 and function[2][0] == ("symbol", "x"):
            return right
    return None


def _substituted(node: Any, values: dict[str, Node]) -> Any:
    if not isinstance(node, tuple) or not node:
        return node
    if node[0] == "symbol" and node[1] in values:
        return values[node[1]]
    return tuple(_substituted(item, values) for item in node)


def _is_bounds(node: Node) -> bool:
    return bool(node[2]) and all(operator in _INEQUALITIES for operator in node[2])


def _same_chain(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    """The same terms in the same order, or all the other way round."""
    terms, operators = answer[1], answer[2]
    turned = tuple(reversed(terms)), tuple(_FLIPPED.get(operator, operator) for operator in reversed(operators))
    for other_terms, other_operators in ((terms, operators), turned):
        if gold[2] == other_operators and _ordered(gold[1], other_terms, tolerance):
            return True
    return False


def _same_inequality(gold: Node, answer: Node) -> bool:
    if len(gold[2]) != 1 or len(answer[2]) != 1:
        return False
    (left, right), (other_left, other_right) = gold[1], answer[1]
    one, other = ("+", (left, ("-", right))), ("+", (other_left, ("-", other_right)))
    operator, other_operator = gold[2][0], answer[2][0]
    ratio = proportional(one, other)
    if ratio is None:
        return False
    if operator in ("!=", "~~", "==="):
        return operator == other_operator
    return other_operator == (operator if ratio > 0 else _FLIPPED.get(operator))


def proportional(one: Node, other: Node) -> float | None:
    """The constant by which one expression is a multiple of the other; None if there is none."""
    ratios = []
    where, enough = (_WIDE, _MORE_POINTS) if _kinked(one, other) else (_NEAR, _POINTS)
    with mp.workdps(_DIGITS):
        for env in _points(symbols(one) | symbols(other), where):
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
        if all(abs(ratio - ratios[0]) < mpf(10) ** (15 - _DIGITS) * abs(ratios[0]) for ratio in ratios):
            return float(mp.re(ratios[0])) if abs(mp.im(ratios[0])) < mpf(10) ** -20 else None
    return None


def _same_zeros(one: Node, other: Node) -> bool:
    """Equations that are linear in one variable have the same solutions if each is solved by the other's."""
    names = symbols(one)
    if names != symbols(other) or not names:
        return False
    with mp.workdps(_DIGITS):
        rounded = {name for item in walk((one, other)) if item[0] == "function" and item[1] in _KINKED for name in symbols(item)}  # fmt: skip
        for name in sorted(names - rounded):
            agreed: list[Any] = []
            where, enough = (_WIDE, _MORE_POINTS) if _kinked(one, other) else (_NEAR, _POINTS)
            for env in _points(names, where):
                try:
                    root, its = _linear_root(one, name, dict(env)), _linear_root(other, name, dict(env))
                except (Undefined, TypeError, ZeroDivisionError):
                    break
                if root is None or its is None or abs(root - its) > mpf(10) ** (20 - _DIGITS) * max(1, abs(root)):
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
    if abs(values[2] - values[1] - slope) > mpf(10) ** (20 - _DIGITS) * max(1, abs(slope)) or slope == 0:
        return None
    return mpf(1) / 3 - values[0] / (slope * 3)


# Collections


def _same_collections(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    def equal(one: Node, other: Node) -> bool:
        return _same(one, other, tolerance)

    if gold[0] in _SETS or answer[0] in _SETS:
        return _same_real_sets(gold, answer)
    if gold[0] == answer[0] == "tuple":
        return bool(gold[1:3] == answer[1:3] and _ordered(gold[3], answer[3], tolerance))
    if gold[0] == answer[0] == "set":
        return matched(_distinct(gold[1]), _distinct(answer[1]), equal)
    if "matrix" in (gold[0], answer[0]) and _matrix(gold, answer)[0] == _matrix(answer, gold)[0] == "matrix":
        return _same_matrices(_matrix(gold, answer), _matrix(answer, gold), tolerance)
    if gold[0] == "tuple" or answer[0] == "tuple":
        return _tuple_and_other(gold, answer, tolerance)
    left, right = _parts(gold), _parts(answer)
    if "set" in (gold[0], answer[0]) and "list" not in (gold[0], answer[0]):
        other = answer if gold[0] == "set" else gold
        if other[0] in ("cup", "cap", "setminus", "numbers"):
            return _same_real_sets(gold, answer)
        if other[0] == "relation":
            return _same_relations(gold, answer, tolerance)
        # {5} and 5.
        return len(left) == len(right) == 1 and equal(left[0], right[0])
    if "set" in (gold[0], answer[0]):
        left, right = _distinct(left), _distinct(right)
    if matched(left, right, equal):
        return True
    if len(right) > len(left) and all(part[0] == "tuple" for part in right):
        # A solution that is named twice is still one solution.
        right = _distinct(right)
        if matched(left, right, equal):
            return True
    spread_left, spread_right = _spread(left), _spread(right)
    if (spread_left != left or spread_right != right) and matched(spread_left, spread_right, equal):
        return True
    both = symbols(gold) == symbols(answer) and all(part[0] == "relation" for part in (*left, *right))
    return both and any(map(_is_bounds, left)) and _same_real_sets(gold, answer)


def _distinct(parts: Any) -> list[Node]:
    found: list[Node] = []
    for part in parts:
        if not any(_same(part, other, EXACT) for other in found):
            found.append(part)
    return found


def _spread(parts: list[Node]) -> list[Node]:
    r"""`n=2, 3, 4` as 2, 3, 4; `x = 1 \pm 2, 7` with both; names only where they say nothing about which is which."""
    found: list[Node] = []
    names = [part[1][0] for part in parts if part[0] == "relation" and part[2][0] in ("=", "in")]
    alone = len(names) <= 1 or all(name == names[0] for name in names)
    for part in parts:
        if part[0] == "relation" and part[2] in (("=",), ("in",)) and is_name(part[1][0]) and alone:
            part = part[1][1]
        found += part[1] if part[0] in ("list", "set") else [part]
    return found


def _ordered(gold: Any, answer: Any, tolerance: Tolerance) -> bool:
    return len(gold) == len(answer) and all(
        same(one, other, tolerance) for one, other in zip(gold, answer, strict=True)
    )


def _tuple_and_other(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    """A tuple or interval against what is written otherwise."""
    pair, other = (gold, answer) if gold[0] == "tuple" else (answer, gold)
    flipped = pair is answer
    if other[0] in ("relation",):
        return _same_relations(gold, answer, tolerance)
    if other[0] in ("cup", "cap", "setminus", "numbers"):
        return _same_real_sets(gold, answer)
    if other[0] == "matrix" and (len(other[1]) == 1 or len(other[1][0]) == 1):
        flat = tuple(cell for row in other[1] for cell in row)
        return pair[1:3] == ("(", ")") and (
            _ordered(flat, pair[3], tolerance) if flipped else _ordered(pair[3], flat, tolerance)
        )
    if other[0] == "list":
        parts = other[1]
        bounds = all(part[0] == "relation" and _is_bounds(part) for part in parts)
        if bounds:
            return _same_real_sets(gold, answer)
        if pair[1:3] != ("(", ")"):
            return False
        # x = 3, y = 5 for (3, 5); 1, 2 for (1, 2).
        plain = tuple(unnamed(part) for part in parts)
        return _ordered(plain, pair[3], tolerance) if flipped else _ordered(pair[3], plain, tolerance)
    if other[0] == "set":
        # One point, in braces.
        return len(other[1]) == 1 and (
            _same(other[1][0], pair, tolerance) if flipped else _same(pair, other[1][0], tolerance)
        )
    return False


def _matrix(node: Node, other: Node) -> Node:
    """`[[1, 2], [3, 4]]` as a matrix, against one."""
    rows = node[3] if node[0] == "tuple" and node[1] == "[" and other[0] == "matrix" else ()
    if rows and all(row[0] == "tuple" and row[1] == "[" for row in rows):
        return ("matrix", tuple(row[3] for row in rows))
    return node


def _same_matrices(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    rows, others = gold[1], answer[1]
    return bool(
        len(rows) == len(others)
        and all(_ordered(row, other, tolerance) for row, other in zip(rows, others, strict=True))
    )


def _same_remainder(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    r"""`x \equiv 3 \pmod 8`: the modulus may be left out, but not be another."""
    if gold[0] == answer[0]:
        return same(gold[2], answer[2]) and same(gold[1], answer[1], tolerance)
    return _same(gold[1] if gold[0] == "mod" else gold, answer[1] if answer[0] == "mod" else answer, tolerance)


def _same_time(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    """Times of day, with or without a.m. and p.m.; where one side is no time, `4:30` is a ratio."""
    left, right = _clock(gold), _clock(answer)
    if left is None or right is None:
        return _same_ratio(gold, answer, tolerance)
    (hour, minute, half), (other_hour, other_minute, other_half) = left, right
    if minute != other_minute or (half and other_half and half != other_half):
        return False
    if half == other_half or (hour == other_hour and hour <= 12):
        return bool(hour == other_hour)
    # 20:34 is 8:34 p.m.
    return bool(_of_day(hour, half) == _of_day(other_hour, other_half))


def _of_day(hour: int, half: str) -> int:
    return hour % 12 + (12 if half == "pm" else 0) if half else hour


def _clock(node: Node) -> tuple[int, int, str] | None:
    half = ""
    if node[0] == "unit":
        half = "".join(character for character in node[2].lower() if character.isalpha())
        if half not in ("am", "pm"):
            return None
        node = node[1]
        if node[0] == "number" and node[2] is None and node[1].denominator == 1 and 1 <= node[1] <= 12:
            # 3 p.m.
            return int(node[1]), 0, half
    return (node[1], node[2], half) if node[0] == "clock" else None


def _same_ratio(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    if gold[0] == answer[0] == "clock":
        return gold[1:] == answer[1:]
    left, right = _terms_of_ratio(gold), _terms_of_ratio(answer)
    if left is None or right is None or len(left) != len(right):
        return False
    return all(
        same_value(("*", (left[0], other)), ("*", (right[0], one)))
        for one, other in zip(left[1:], right[1:], strict=True)
    ) and not all(exact(term) == 0 for term in right)


def _terms_of_ratio(node: Node) -> list[Node] | None:
    if node[0] == "clock":
        return [number(node[1]), number(node[2])]
    if node[0] == "ratio":
        return list(node[1])
    if node[0] == "/":
        return [node[1], node[2]]
    return [node, number(1)] if node[0] in ("number", "function", "symbol", "*", "+") else None


# Real sets

_Piece = tuple[Any, bool, Any, bool]


def _same_real_sets(gold: Node, answer: Node) -> bool:
    with mp.workdps(_DIGITS):
        left, right = real_set(gold), real_set(answer)
        if left is None or right is None or len(left) != len(right):
            return False
        return all(
            _same_end(one[0], other[0]) and _same_end(one[2], other[2]) and one[1] == other[1] and one[3] == other[3]
            for one, other in zip(left, right, strict=True)
        )


def _same_end(one: Any, other: Any) -> bool:
    if mp.isinf(one) or mp.isinf(other):
        return bool(one == other)
    return bool(abs(one - other) <= mpf(10) ** (15 - _DIGITS) * max(abs(one), abs(other)))


def real_set(node: Node) -> list[_Piece] | None:
    """The real numbers that an interval, a union, or inequalities in one variable stand for, as disjoint pieces.

    Returns:
        Pieces (from, is it open there, to, is it open there) from left to right; None for what is no such set.
    """
    try:
        return _merged(_pieces(node))
    except (Undefined, TypeError):
        return None


def _pieces(node: Node) -> list[_Piece]:
    kind = node[0]
    if kind == "tuple" and len(node[3]) == 2:
        low, high = _bound(node[3][0]), _bound(node[3][1])
        if low > high:
            raise Undefined("an interval that ends before it begins")
        return [(low, node[1] == "(", high, node[2] == ")")]
    if kind == "set":
        return [(value, False, value, False) for value in map(_bound, node[1])]
    if kind == "cup":
        return _pieces(node[1]) + _pieces(node[2])
    if kind == "cap":
        return _intersection(_merged(_pieces(node[1])), _merged(_pieces(node[2])))
    if kind == "setminus":
        return _intersection(_merged(_pieces(node[1])), _complement(_merged(_pieces(node[2]))))
    if kind == "numbers" and node[1] in ("R", "R^+", "R^-"):
        return {
            "R": [(mpf("-inf"), True, mpf("inf"), True)],
            "R^+": [(mpf(0), True, mpf("inf"), True)],
            "R^-": [(mpf("-inf"), True, mpf(0), True)],
        }[node[1]]
    if kind == "relation":
        return _solutions(node)
    if kind == "list" and all(part[0] == "tuple" for part in node[1]):
        return [piece for part in node[1] for piece in _pieces(part)]
    if kind == "list" and all(part[0] == "relation" for part in node[1]) and len(symbols(node)) == 1:
        pieces = [(mpf("-inf"), True, mpf("inf"), True)]
        for part in node[1]:
            pieces = _intersection(pieces, _merged(_pieces(part)))
        # x < -1, x > 1 can only mean either.
        return pieces or [piece for part in node[1] for piece in _pieces(part)]
    raise Undefined(f"a {kind} is no set of real numbers")


def _bound(node: Node) -> Any:
    if node[0] == "-" and node[1] == ("constant", "infinity"):
        return mpf("-inf")
    value = mpc(evaluate(node, {}))
    if value.imag != 0:
        raise Undefined("a complex bound")
    return value.real


def _solutions(node: Node) -> list[_Piece]:
    """Of inequalities between one variable, or its absolute value, and numbers."""
    terms, operators = node[1], node[2]
    if operators in (("in",), ("notin",)):
        pieces = _solved(terms[0], _pieces(terms[1]))
        return pieces if operators == ("in",) else _complement(_merged(pieces))
    everywhere = [(mpf("-inf"), True, mpf("inf"), True)]
    pieces = everywhere
    variables = [term for term in terms if symbols(term)]
    if len(variables) != 1 or len(terms) > 3:
        raise Undefined("not inequalities in one variable")
    variable = variables[0]
    for left, operator, right in zip(terms, operators, terms[1:], strict=False):
        pieces = _intersection(pieces, _one_sided(left, operator, right, variable))
    return pieces


def _solved(term: Node, pieces: list[_Piece]) -> list[_Piece]:
    """The values of the variable in a linear term for which the term lies in these pieces: -x in [1, 2] is x in [-2, -1]."""
    if is_name(term):
        return pieces
    slope, shift = _line(term)
    found = []
    for low, low_open, high, high_open in pieces:
        ends = ((low - shift) / slope, low_open), ((high - shift) / slope, high_open)
        (low, low_open), (high, high_open) = ends if slope > 0 else reversed(ends)
        found.append((low, low_open, high, high_open))
    return found


def _one_sided(left: Node, operator: str, right: Node, variable: Node) -> list[_Piece]:
    if right == variable:
        left, right, operator = right, left, _FLIPPED.get(operator, operator)
    if left != variable:
        return [(mpf("-inf"), True, mpf("inf"), True)]
    bound = _bound(right)
    if variable[0] == "function" and variable[1] == "abs":
        inside = variable[2][0]
        if operator in ("<", "<="):
            return _solved(inside, [(-bound, operator == "<", bound, operator == "<")])
        if operator in (">", ">="):
            outside = [(mpf("-inf"), True, -bound, operator == ">"), (bound, operator == ">", mpf("inf"), True)]
            return _solved(inside, outside)
        raise Undefined("an absolute value unequal to")
    slope, shift = _line(variable)
    value = (bound - shift) / slope
    if slope < 0:
        operator = _FLIPPED.get(operator, operator)
    match operator:
        case "<" | "<=":
            return [(mpf("-inf"), True, value, operator == "<" or mp.isinf(value))]
        case ">" | ">=":
            return [(value, operator == ">" or mp.isinf(value), mpf("inf"), True)]
        case "!=":
            return [(mpf("-inf"), True, value, True), (value, True, mpf("inf"), True)]
        case "=":
            return [(value, False, value, False)]
    raise Undefined(operator)


def _line(node: Node) -> tuple[Any, Any]:
    """Slope and shift of an expression that is linear in its one name."""
    names = symbols(node)
    if is_name(node):
        return mpf(1), mpf(0)
    if len(names) != 1:
        raise Undefined("not one variable")
    (name,) = names
    at = [evaluate(node, {name: mpf(point)}) for point in (0, 1, 2)]
    if abs(at[2] - 2 * at[1] + at[0]) > mpf(10) ** -30 or at[1] == at[0]:
        raise Undefined("not linear")
    return at[1] - at[0], at[0]


def _merged(pieces: list[_Piece]) -> list[_Piece]:
    kept = [
        piece for piece in pieces if piece[0] < piece[2] or (piece[0] == piece[2] and not piece[1] and not piece[3])
    ]
    found: list[_Piece] = []
    for piece in sorted(kept, key=lambda piece: (piece[0], piece[1])):
        if found:
            low, low_open, high, high_open = found[-1]
            if piece[0] < high or (piece[0] == high and not (piece[1] and high_open)):
                if piece[2] > high or (piece[2] == high and not piece[3]):
                    high, high_open = piece[2], piece[3]
                found[-1] = (low, low_open, high, high_open)
                continue
        found.append(piece)
    return found


def _complement(pieces: list[_Piece]) -> list[_Piece]:
    found, low, low_open = [], mpf("-inf"), True
    for piece in pieces:
        found.append((low, low_open, piece[0], not piece[1]))
        low, low_open = piece[2], not piece[3]
    found.append((low, low_open, mpf("inf"), True))
    return _merged(found)


def _intersection(left: list[_Piece], right: list[_Piece]) -> list[_Piece]:
    found = []
    for one in left:
        for other in right:
            low, low_open = max((one[0], one[1]), (other[0], other[1]))
            high, high_closed = min((one[2], not one[3]), (other[2], not other[3]))
            found.append((low, low_open, high, not high_closed))
    return _merged(found)


# Values


def same_value(gold: Node, answer: Node, tolerance: Tolerance = EXACT) -> bool:
    """Are two expressions equal, or as near as the tolerance says? Percent, degrees and bases are settled here."""
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
    return _identical(gold, answer)


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
    """Is there a decimal in it?"""
    return any(item[0] == "number" and len(item) == 3 and item[2] is not None for item in walk(node))


def _decimal(node: Node) -> tuple[Fraction, int] | None:
    """A decimal, with or without a sign or percent: its value and how many digits it gives after the point."""
    if node[0] == "-":
        inner = _decimal(node[1])
        return None if inner is None else (-inner[0], inner[1])
    if node[0] == "number" and node[2] is not None:
        return node[1], node[2]
    return None


def _rounds(gold: Node, answer: Node, left: Fraction | None, right: Fraction | None) -> bool:
    """A decimal against an exact value: is it that value, or that value rounded to six digits or more?"""
    if left is not None and left == right:
        return True
    written, other = (_decimal(gold), answer) if _inexact(gold) else (_decimal(answer), gold)
    if written is None:
        return _identical(gold, answer)
    value, digits = written
    counting = len(str(abs(value.numerator * 10**digits // value.denominator)))
    enough = (
        counting >= FRACTION_DIGITS
        if (left if other is gold else right) is not None
        else min(digits, counting) >= DECIMALS
    )
    if not enough:
        return _identical(gold, answer)
    try:
        with mp.workdps(max(_DIGITS, digits + 10)):
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
        with mp.workdps(_DIGITS):
            left, right = evaluate(gold, {}), evaluate(answer, {})
            if isinstance(left, list) or isinstance(right, list):
                return False
            slack = max(tolerance.relative * max(abs(left), abs(right)), mpf(tolerance.absolute)) * (1 + mpf(10) ** -9)
            return bool(abs(left - right) <= slack)
    except (Undefined, TypeError):
        return False


def _identical(gold: Node, answer: Node) -> bool:
    """Equal at every point that is tried."""
    names = symbols(gold) | symbols(answer)
    if not _equal_at_points(gold, answer, names, _NEAR):
        return _equal_at_whole_numbers(gold, answer, names)
    if not names or not _kinked(gold, answer):
        return True
    if _rounds_off(gold) or _rounds_off(answer):
        # \lfloor x \rfloor + 1 and \lceil x \rceil differ at whole numbers alone.
        if not _equal_at_points(gold, answer, names, _WHOLE):
            return False
    return _equal_at_points(gold, answer, names, _WIDE) or _equal_at_whole_numbers(gold, answer, names)


def _rounds_off(node: Node) -> bool:
    return any(item[0] == "function" and item[1] in _ROUNDING for item in walk(node))


def _kinked(*nodes: Node) -> bool:
    """Is there a function that is one thing here and another there, so that few points near zero prove nothing?"""
    return any(item[0] == "function" and item[1] in _KINKED for item in walk(nodes))


def _equal_at_whole_numbers(gold: Node, answer: Node, names: set[str]) -> bool:
    r"""`(-1)^n` and `\cos n\pi`, `\lceil n/2 \rceil` and `\lfloor (n+1)/2 \rfloor`.

    Where the gold only makes sense for whole numbers, those are tried.
    """
    counting = {
        item[2][1] for item in walk(gold) if item[0] == "^" and item[1] == ("-", number(1)) and item[2][0] == "symbol"
    }
    if _rounds_off(gold) and _rounds_off(answer):
        counting |= names & _COUNTERS
    return bool(counting) and names == counting and _equal_at_points(gold, answer, names, _WHOLE)


def _equal_at_points(gold: Node, answer: Node, names: set[str], where: str) -> bool:
    tried, enough = 0, _MORE_POINTS if where == _WIDE or (where == _WHOLE and _kinked(gold, answer)) else _POINTS
    for env in _points(names, where):
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
    for digits in (_DIGITS, _MORE_DIGITS):
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
            if digits == _DIGITS and distance > mpf(10) ** (12 - digits) * size and distance > mpf(10) ** (22 - digits):
                return False
    # What is only rounding becomes smaller with the digits.
    return bool(distances[1] < distances[0] * mpf(10) ** (_DIGITS - _MORE_DIGITS + 15))


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


def _points(names: set[str], where: str) -> Iterator[Any]:
    """Values for the symbols: the same at every run, no two symbols alike.

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
