"""Compares ratios and times of day, which are written alike. Imports no torch."""

from ladder_cli.evaluate.answers.nodes import Node, number
from ladder_cli.evaluate.answers.numeric import exact
from ladder_cli.evaluate.answers.values import Tolerance, same_value


def same_time(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    """Compare times of day, with or without a.m. and p.m.; if one side is no time, `4:30` is a ratio."""
    left, right = _clock(gold), _clock(answer)
    if left is None or right is None:
        return same_ratio(gold, answer, tolerance)
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


def same_ratio(gold: Node, answer: Node, tolerance: Tolerance) -> bool:
    """Return whether two ratios are equal: their terms are proportional."""
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
