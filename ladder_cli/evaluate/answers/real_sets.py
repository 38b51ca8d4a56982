"""Compares sets of real numbers (intervals, unions, inequalities) as disjoint pieces. Imports no torch."""

from typing import Any

from mpmath import mp, mpc, mpf

from ladder_cli.evaluate.answers.nodes import Node, is_name, symbols
from ladder_cli.evaluate.answers.numeric import Undefined, evaluate
from ladder_cli.evaluate.answers.points import DIGITS

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~"}
_Piece = tuple[Any, bool, Any, bool]


def same_real_sets(gold: Node, answer: Node) -> bool:
    """Return whether both stand for the same real numbers."""
    with mp.workdps(DIGITS):
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
    return bool(abs(one - other) <= mpf(10) ** (15 - DIGITS) * max(abs(one), abs(other)))


def real_set(node: Node) -> list[_Piece] | None:
    """Return the real numbers of an interval, a union, or inequalities in one variable, as disjoint pieces.

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
    """Solve inequalities between one variable, or its absolute value, and numbers."""
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
    """Return where a linear term's variable lies if the term lies in these pieces: -x in [1, 2] is x in [-2, -1]."""
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
        left, right, operator = right, left, FLIPPED.get(operator, operator)
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
        operator = FLIPPED.get(operator, operator)
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
    """Return slope and shift of an expression that is linear in its one name."""
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
