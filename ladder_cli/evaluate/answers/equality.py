r"""Decides whether two expressions are the same answer: exactly, if both are exact. Imports no torch.

This file dispatches by kind and compares part by part; `values.py` compares what has one value, `points.py`
expressions in symbols, `equations.py` and `real_sets.py` what relations say, `ratios.py` ratios and times, `units.py`
quantities.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ladder_cli.evaluate.answers.equations import (
    answers_of,
    is_bounds,
    renamed,
    same_inequality,
    same_names,
    same_names_of_values,
    shortened,
    unnamed,
)
from ladder_cli.evaluate.answers.nodes import Node, is_name, symbols, walk
from ladder_cli.evaluate.answers.points import proportional, same_zeros
from ladder_cli.evaluate.answers.ratios import same_ratio, same_time
from ladder_cli.evaluate.answers.real_sets import FLIPPED, same_real_sets
from ladder_cli.evaluate.answers.units import same_quantity
from ladder_cli.evaluate.answers.values import EXACT, Tolerance, same_value

__all__ = ["EXACT", "Tolerance", "is_name", "same", "unnamed"]


_SETS = ("cup", "cap", "setminus", "numbers")


def same(gold: Node, answer: Node, tolerance: Tolerance = EXACT) -> bool:
    """Return whether the answer equals the gold."""
    if gold == answer:
        return True
    for one in expanded(gold):
        for other in expanded(answer):
            if _same(one, other, tolerance):
                return True
    return False


def expanded(node: Node) -> Iterator[Node]:
    r"""Yield the expression, then with `\pm` written out as two parts."""
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
        return same_time(gold, answer, tolerance)
    if "unit" in (gold[0], answer[0]):
        return same_quantity(gold, answer, tolerance.unit, lambda one, other: _same(one, other, tolerance))
    if "list" in (gold[0], answer[0]) or "tuple" in (gold[0], answer[0]) or "set" in (gold[0], answer[0]):
        return _same_collections(gold, answer, tolerance)
    if gold[0] in ("cup", "cap", "setminus", "numbers") or answer[0] in ("cup", "cap", "setminus", "numbers"):
        return same_real_sets(gold, answer)
    if "ratio" in (gold[0], answer[0]):
        return same_ratio(gold, answer, tolerance)
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
    """Return the parts of an answer that lists several."""
    return list(node[1]) if node[0] in ("list", "set", "groups") else [node]


def matched(left: list[Node], right: list[Node], equal: Callable[[Node, Node], bool]) -> bool:
    """Return whether left and right can be paired one to one (a perfect matching, so that order does not matter)."""
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


def _same_relations(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    if gold[0] == answer[0] == "relation":
        return _both_relations(gold, answer, tolerance)
    if answer[0] == "relation":
        for meant in answers_of(answer):
            if same(gold, meant, tolerance):
                return True
        if gold[0] in ("tuple", "cup", "cap", "setminus", "numbers", "set"):
            return same_real_sets(gold, answer)
        return gold[0] == "list" and len(gold[1]) > 1 and _same_collections(gold, answer, tolerance)
    # The gold is a relation, the answer none.
    terms, operators = gold[1], gold[2]
    if set(operators) <= {"=", "~", "in", "mapsto", "==="} and (
        is_name(terms[0]) or len(terms) > 2 or not symbols(gold)
    ):
        for meant in answers_of(gold):
            if same(meant, answer, tolerance):
                return True
    if answer[0] in ("tuple", "cup", "cap", "setminus", "numbers", "set"):
        return same_real_sets(gold, answer)
    if answer[0] == "list":
        return _same_collections(gold, answer, tolerance)
    return False


def _both_relations(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    left, right = shortened(gold), shortened(answer)
    if set(left[2]) <= {"="} and set(right[2]) <= {"="} and len(left[1]) == len(right[1]) == 2:
        return _same_equations(left, right, tolerance)
    if "in" in left[2] or "in" in right[2] or is_bounds(left) != is_bounds(right):
        alike = symbols(left) == symbols(right) or same_names_of_values(left, right)
        return (alike and same_real_sets(gold, answer)) or _same_chain(left, right, tolerance)
    if _same_chain(left, right, tolerance) or same_inequality(left, right):
        return True
    return symbols(left) == symbols(right) and same_real_sets(left, right)


def _same_equations(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    (left, right), (other_left, other_right) = gold[1], answer[1]
    for one, other in (((left, right), (other_left, other_right)), ((left, right), (other_right, other_left))):
        if same_names(one[0], other[0]) and same(one[1], other[1], tolerance):
            return True
        other_right_side = renamed(one[0], other[0], other[1])
        if other_right_side is not None and same(one[1], other_right_side, tolerance):
            return True
    if any(
        item[0] in ("tuple", "set", "list", "matrix", "cup", "relation")
        for item in walk((left, right, other_left, other_right))
    ):
        return False
    if not symbols(gold) and not symbols(answer):
        return same(right, other_right, tolerance)
    one, other = ("+", (left, ("-", right))), ("+", (other_left, ("-", other_right)))
    return proportional(one, other) is not None or same_zeros(one, other)


def _same_chain(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    """Return whether the terms are the same in the same order, or all in reverse."""
    terms, operators = answer[1], answer[2]
    turned = tuple(reversed(terms)), tuple(FLIPPED.get(operator, operator) for operator in reversed(operators))
    for other_terms, other_operators in ((terms, operators), turned):
        if gold[2] == other_operators and _ordered(gold[1], other_terms, tolerance):
            return True
    return False


def _same_collections(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    def equal(one: Node, other: Node) -> bool:
        return _same(one, other, tolerance)

    if gold[0] in _SETS or answer[0] in _SETS:
        return same_real_sets(gold, answer)
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
            return same_real_sets(gold, answer)
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
    return both and any(map(is_bounds, left)) and same_real_sets(gold, answer)


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
    """Compare a tuple or interval with another spelling of it."""
    pair, other = (gold, answer) if gold[0] == "tuple" else (answer, gold)
    flipped = pair is answer
    if other[0] in ("relation",):
        return _same_relations(gold, answer, tolerance)
    if other[0] in ("cup", "cap", "setminus", "numbers"):
        return same_real_sets(gold, answer)
    if other[0] == "matrix" and (len(other[1]) == 1 or len(other[1][0]) == 1):
        flat = tuple(cell for row in other[1] for cell in row)
        return pair[1:3] == ("(", ")") and (
            _ordered(flat, pair[3], tolerance) if flipped else _ordered(pair[3], flat, tolerance)
        )
    if other[0] == "list":
        parts = other[1]
        bounds = all(part[0] == "relation" and is_bounds(part) for part in parts)
        if bounds:
            return same_real_sets(gold, answer)
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
    """Read `[[1, 2], [3, 4]]` as a matrix if the other side is one."""
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
