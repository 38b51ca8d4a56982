"""Compares equations and chains of them: their names, their last values, when two say the same. Imports no torch."""

from collections.abc import Iterator
from typing import Any

from mpmath import mp

from ladder_cli.evaluate.answers.nodes import Node, is_name, symbols, walk
from ladder_cli.evaluate.answers.numeric import Undefined, evaluate
from ladder_cli.evaluate.answers.points import proportional
from ladder_cli.evaluate.answers.real_sets import FLIPPED
from ladder_cli.evaluate.answers.values import same_value

_INEQUALITIES = ("<", ">", "<=", ">=")


def unnamed(node: Node) -> Node:
    """Return the end of a chain of equations that begins with a name, numbers, or a sum that is worked out."""
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


def answers_of(node: Node) -> Iterator[Node]:
    """Return what an answer that is a relation may mean if the gold is none."""
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
    """Return whether it is -x: nobody is asked for that, so what it equals is no answer."""
    return node[0] == "-" and is_name(node[1])


def _near(one: Node, other: Node) -> bool:
    """Return whether one is an approximation of the other."""
    try:
        with mp.workdps(20):
            left, right = evaluate(one, {}), evaluate(other, {})
            return bool(abs(left - right) <= 0.05 * max(abs(left), abs(right)))
    except (Undefined, TypeError):
        return True


def shortened(node: Node) -> Node:
    """Shorten a chain `z = 1 + 1 = 2` to `z = 2`; drop approximations at the end."""
    terms, operators = list(node[1]), list(node[2])
    while len(operators) > 1 and operators[-1] == "~":
        terms.pop()
        operators.pop()
    operators = ["=" if operator in ("~", "mapsto") else operator for operator in operators]
    if len(operators) > 1 and set(operators) == {"="}:
        terms, operators = [terms[0], terms[-1]], ["="]
    return ("relation", tuple(terms), tuple(operators))


def same_names(one: Node, other: Node) -> bool:
    """Return whether two names are the same, as written or with their factors in another order."""
    if one == other:
        return True
    if one[0] == other[0] == "tuple":
        return len(one[3]) == len(other[3]) and all(map(same_names, one[3], other[3]))
    return is_name(one) and is_name(other) and bool(symbols(one)) and same_value(one, other)


def same_names_of_values(one: Node, other: Node) -> bool:
    """Return whether two names, such as y and f(x), both stand for the values of a function."""
    names = [symbols(one), symbols(other)]
    return {"y"} in names and any(item[0] == "apply" and item[2] == (("symbol", "x"),) for item in walk((one, other)))


def renamed(one: Node, other: Node, right: Node) -> Node | None:
    """Rewrite the right side of f(t) = .. in x if the gold has f(x); the same for y = .. and f(x)."""
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


def is_bounds(node: Node) -> bool:
    """Return whether all its relations are inequalities."""
    return bool(node[2]) and all(operator in _INEQUALITIES for operator in node[2])


def same_inequality(gold: Node, answer: Node) -> bool:
    """Return whether one is a multiple of the other, with its sign reversed if the factor is negative."""
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
    return other_operator == (operator if ratio > 0 else FLIPPED.get(operator))
