r"""Judges one completion against one gold answer, by the rule of its benchmark. Imports no torch.

`answer.py` finds the answer, `normal_form.py` gives it one spelling, `expression.py` reads it whole, `equality.py`
compares. A gold or answer that cannot be read whole is compared as a string in its normal form; `unread` says why a
gold cannot.

`expression`  Equal expressions: numbers, sets, intervals, tuples, equations, inequalities, matrices, words, letters.
`physical`    (Minerva) A gold with a decimal point, an exponent, or in NumPy's notation (`1.6`, `4.5e33`, `-1./3`,
              `np.arcsin(10/13)`) is a measured number, and a number within 1% of it is right. Whole numbers and
              formulas: as `expression`; `\log` may be the natural one.
`several`     (OlympiadBench) As `expression`. The row's unit may be written or not. A row with an `error` accepts
              numbers that differ by no more.
"""

import ast
import math
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ladder_cli.data.gold import PHYSICAL, GoldRule
from ladder_cli.evaluate.answers.answer import BOX, LONGEST_READ, Answer, has_box, read_answer
from ladder_cli.evaluate.answers.boxes import boxes, find_boxes
from ladder_cli.evaluate.answers.equality import EXACT, Tolerance, is_name, same, unnamed
from ladder_cli.evaluate.answers.expression import Node, Unreadable, read, walk
from ladder_cli.evaluate.answers.normal_form import normal_form, squeezed

CORRECT, INCORRECT, NO_ANSWER = "correct", "incorrect", "no_answer"
GOLD_UNPARSED, TIMEOUT, CRASH = "gold_unparsed", "timeout", "crash"
VERDICTS = (CORRECT, INCORRECT, NO_ANSWER, GOLD_UNPARSED, TIMEOUT, CRASH)

RELATIVE_TOLERANCE = 0.01
LONGEST_GRADED = LONGEST_READ
_LONGEST_KEPT = 200
_LONGEST_GOLD, _WORDS_OF_PROSE = 200, 20
__all__ = ["boxes", "has_box", "judge", "measured_number", "unread"]

_DECIMAL_COMMA = re.compile(r"-?(?:\d+,(?:\d{1,2}|\d{4,})|\d{4,},\d+|0,\d+)")
_LETTER = re.compile(r"[(\[]?\s*([A-J])\s*[)\]]?\.?")
_ONE_LETTER = r"(?:\(\s*[A-J]\s*\)|\[[A-J]\]|[A-J][.)]?)"
_LETTERS = re.compile(rf"{_ONE_LETTER}(?:\s*(?:,\s*(?:and|or)|[,;&]|and|or)\s*{_ONE_LETTER})*")
_LETTER_AND_MORE = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Judged:
    """A verdict; it unpacks to `verdict, answer`.

    Attributes:
        answer: the string that was compared, cut to 200 characters; None where there was none.
        reading: how the answer was found, and what was left out of it.
    """

    verdict: str
    answer: str | None
    reading: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.verdict, self.answer))

    def __getitem__(self, index: int) -> Any:
        return (self.verdict, self.answer)[index]


@dataclass(frozen=True)
class _Gold:
    """A gold as it is compared.

    Attributes:
        text: what is compared, out of its box.
        nodes: its readings, the likeliest first; none if it cannot be read whole.
        reason: why it cannot be read whole.
        letter: it is the letter of a choice.
        parts: how many answers it holds.
    """

    text: str
    nodes: tuple[Node, ...]
    reason: str | None
    letter: str | None
    parts: int


def judge(gold: str, completion: str, rule: GoldRule, truncated: bool = False) -> Judged:
    """Judge one completion, in this process and without a deadline.

    Args:
        truncated: the completion was cut off at the token limit; then only a complete box is an answer.
    """
    meant = _gold(gold, rule)
    if not meant.text:
        return Judged(GOLD_UNPARSED, None)
    answer = read_answer(completion, truncated, meant.parts, meant.letter is not None)
    if answer.text is None:
        return Judged(NO_ANSWER, None, answer.record())
    reading = answer.record()
    correct, how = _compare(meant, answer, rule)
    reading["compared"] = how
    return Judged(CORRECT if correct else INCORRECT, answer.text[:_LONGEST_KEPT], reading)


def unread(gold: str, rule: GoldRule) -> str | None:
    """Say why a gold cannot be read whole, and is therefore compared as a string; None if it can be read.

    A letter of a choice and words count as read.
    """
    meant = _gold(gold, rule)
    if not meant.text:
        return "the gold is empty"
    if meant.nodes and not same(meant.nodes[0], _shuffled(meant.nodes[0])):
        return "it is read, but has no value that can be computed"
    return meant.reason


def _shuffled(node: Any) -> Any:
    """Reverse sums and products, so that only the value can show that the expression is equal."""
    if not isinstance(node, tuple):
        return node
    if node and node[0] in ("+", "*") and not any(item[0] == "matrix" for item in walk(node)):
        return (node[0], tuple(_shuffled(item) for item in reversed(node[1])))
    return tuple(_shuffled(item) for item in node)


@lru_cache(maxsize=4096)
def _gold(gold: str, rule: GoldRule) -> _Gold:
    # GSM8K's solutions end in "#### answer".
    text = gold.rpartition("####")[2].strip()
    if re.search(r"\\(?:boxed|fbox)", text):
        found = find_boxes(text)
        if found and found[-1].content is None:
            text = re.sub(r"^.*\\(?:boxed|fbox)\s*\{", "", text, flags=re.DOTALL)
        else:
            text = read_answer(text, parts=2).text or ""
    elif len(text) > _LONGEST_GOLD and len(re.findall(r"[a-z]{2,}[.,]?\s", text)) > _WORDS_OF_PROSE:
        # A worked solution without a box.
        text = read_answer(text, parts=2).text or ""
    measured = measured_number(text) if rule.name == PHYSICAL else None
    if measured is not None:
        return _Gold(text, (("number", Fraction(measured), 6),), None, None, 1)
    nodes, reason = _readings(text, rule)
    flat = _flat(text)
    letter = _LETTER.fullmatch(flat)
    parts = len(nodes[0][1]) if nodes and nodes[0][0] == "list" else 1
    if reason is not None and (
        letter or _LETTER_AND_MORE.fullmatch(flat) or re.fullmatch(r"[a-z'., -]+", squeezed(text))
    ):
        reason = None
    return _Gold(text, tuple(nodes), reason, letter[1] if letter else None, parts)


def _flat(text: str) -> str:
    """Return the normal form with text commands replaced by their content."""
    flat = re.sub(r"\\text\{([^{}]*)\}", r"\1", normal_form(text)).strip()
    return re.sub(r"^(?i:option|choice|answer)\s*:?\s*(?=[(\[]?[A-J]\b)", "", flat)


def _readings(text: str, rule: GoldRule, units: bool = False) -> tuple[list[Node], str | None]:
    r"""Return what a string can mean: `1,234` a number or a list, `60 m/s` a speed. The likeliest first."""
    found: list[Node] = []
    reason: str | None = None
    plain = _without_unit(text, rule.unit) if rule.unit else text
    for string in dict.fromkeys((plain, text)):
        for thousands, compound in ((True, False), (False, False), *(((True, True),) if units else ())):
            try:
                node = read(normal_form(string, thousands, compound))
            except Unreadable as error:
                reason = reason or str(error)
                continue
            if node not in found and not any(item[0] == "text" for item in walk(node)):
                found.append(node)
    return found, None if found else (reason or "unreadable")


def _without_unit(text: str, unit: str) -> str:
    """Remove the unit of the benchmark's row after a value."""
    plain = unit.replace("$", "").strip()
    marks = "|".join({re.escape(plain), re.escape(plain.replace("\\mathrm", "").strip("{}"))} - {""})
    if not marks:
        return text
    return re.sub(rf"(?<=[\d}})])(?:\\[,;: ]|~|\s)*(?:{marks})s?(?=\s*(?:$|[,;.$]|\\\)))", "", text)


def _compare(gold: _Gold, answer: Answer, rule: GoldRule) -> tuple[bool, str]:
    assert answer.text is not None
    text = answer.text
    if squeezed(gold.text) == squeezed(text):
        return True, "the same string"
    choice = _same_choice(gold, text, rule)
    if choice is not None:
        return choice, "the letter of a choice"
    tolerance = _tolerance(gold, rule)
    nodes, reason = _readings(text, rule, units=True)
    if not gold.nodes:
        return False, f"as strings: the gold cannot be read whole ({gold.reason})"
    if not nodes:
        return False, f"as strings: the answer cannot be read whole ({reason})"
    for meant in gold.nodes[: 1 if len(nodes) == 1 and nodes[0][0] != "list" else None]:
        for node in nodes:
            if same(meant, node, tolerance) or _once(meant, node, tolerance, rule):
                return True, "as expressions"
    if (
        len(answer.boxes) > 1
        and gold.parts == 1
        and all(_compare(gold, Answer(box, BOX), rule)[0] for box in answer.boxes)
    ):
        return True, "every box as expressions"
    natural = _natural(gold.nodes[0])
    if rule.name == PHYSICAL and natural != gold.nodes[0] and any(same(natural, node, tolerance) for node in nodes):
        return True, "as expressions, with the natural logarithm"
    if _decimal_comma(gold, answer, nodes):
        return True, "as a decimal comma"
    return False, "as expressions"


def _tolerance(gold: _Gold, rule: GoldRule) -> Tolerance:
    if rule.name == PHYSICAL and gold.nodes and gold.nodes[0][0] == "number" and gold.nodes[0][2] == 6:
        return Tolerance(relative=RELATIVE_TOLERANCE, unit=rule.unit)
    if rule.tolerance is not None:
        return Tolerance(absolute=rule.tolerance, unit=rule.unit)
    return Tolerance(unit=rule.unit) if rule.unit else EXACT


def _same_choice(gold: _Gold, text: str, rule: GoldRule) -> bool | None:
    """Judge by the letter of a choice; None if no choice is meant."""
    flat, gold_flat = _flat(text), _flat(gold.text)
    letters, wanted_letters = _letters(flat), _letters(gold_flat)
    if letters and wanted_letters and len(letters) + len(wanted_letters) > 2:
        return letters == wanted_letters
    letter = _LETTER.fullmatch(flat)
    more = _LETTER_AND_MORE.fullmatch(flat) if len(letters) < 2 else None
    if gold.letter is not None:
        if letter:
            return letter[1] == gold.letter
        if more:
            return (more[1] or more[2]) == gold.letter
        lower = re.fullmatch(r"\(([a-j])\)", flat)
        return lower[1].upper() == gold.letter if lower else None
    wanted = _LETTER_AND_MORE.fullmatch(gold_flat)
    if wanted and letter:
        return (wanted[1] or wanted[2]) == letter[1]
    if more and more[3].strip():
        if wanted:
            return (wanted[1] or wanted[2]) == (more[1] or more[2])
        value, _ = _readings(more[3], rule, units=True)
        tolerance = _tolerance(gold, rule)
        if squeezed(gold.text) == squeezed(more[3]) or any(
            same(meant, node, tolerance) for meant in gold.nodes for node in value
        ):
            return True
    return None


def _letters(flat: str) -> list[str]:
    """Return the letters of choices of which a text consists, sorted; none if it has anything else."""
    return sorted(re.findall("[A-J]", flat)) if _LETTERS.fullmatch(flat) else []


def _once(gold: Node, answer: Node, tolerance: Tolerance, rule: GoldRule) -> bool:
    r"""Return whether 90 answers `\angle A = 90, \angle B = 90`."""
    if gold[0] != "list" or answer[0] in ("list", "relation") or not rule.unit:
        return False
    if not all(part[0] == "relation" and is_name(part[1][0]) for part in gold[1]):
        return False
    return all(same(unnamed(part), answer, tolerance) for part in gold[1])


def _natural(node: Any) -> Any:
    if not isinstance(node, tuple):
        return node
    if node[:2] == ("function", "log") and node[2][1] == ("number", Fraction(10), None):
        return ("function", "log", (_natural(node[2][0]), ("constant", "e")))
    return tuple(_natural(item) for item in node)


def _decimal_comma(gold: _Gold, answer: Answer, nodes: list[Node]) -> bool:
    """Compare a decimal with a comma, as gold or as answer outside of a box, with one with a point."""
    written = gold.text if _DECIMAL_COMMA.fullmatch(gold.text) else answer.text or ""
    if _DECIMAL_COMMA.fullmatch(written) is None or (written is not gold.text and answer.found == BOX):
        return False
    value = Fraction(written.replace(",", "."))
    return any(
        node[0] == "number" and node[2] is not None and node[1] == value
        for node in (nodes if written is gold.text else gold.nodes)
    )


def measured_number(gold: str) -> float | None:
    """Return the value of a gold in decimal, scientific or NumPy notation; None for whole numbers and all else."""
    if not re.search(r"\.|\d[eE]|np", gold):
        return None
    try:
        value = _python_value(ast.parse(gold.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, KeyError):
        return None
    return value if math.isfinite(value) else None


_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS = {name: getattr(math, name.replace("arc", "a")) for name in ("arcsin", "arccos", "arctan", "sin", "cos")}
_FUNCTIONS |= {name: getattr(math, name) for name in ("tan", "sqrt", "exp", "log")}


def _python_value(node: ast.AST) -> float:
    """Evaluate arithmetic of numbers and `np.` functions, and nothing else.

    Raises:
        ValueError, KeyError, ArithmeticError: for anything else.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.UnaryOp(op=op, operand=operand):
            return float(_OPERATORS[type(op)](_python_value(operand)))
        case ast.BinOp(left=left, op=op, right=right):
            return float(_OPERATORS[type(op)](_python_value(left), _python_value(right)))
        case ast.Attribute(value=ast.Name(id="np"), attr="pi"):
            return math.pi
        case ast.Call(func=ast.Attribute(value=ast.Name(id="np"), attr=name), args=[argument], keywords=[]):
            return float(_FUNCTIONS[name](_python_value(argument)))
    raise ValueError(f"not a number: {ast.dump(node)[:80]}")
