r"""How one completion is judged against one gold answer, by the rule of its benchmark. Imports no torch.

Every rule reads with Math-Verify: the gold answer is wrapped in `\boxed{}` (as it stands in the data, one in five of
MATH-500's fails against itself), the completion's boxes come before any other formula, and its last formula counts
where it has no box.

`expression`  Equal expressions, as Math-Verify sees it: numbers, sets, intervals, tuples, equations, matrices.
`physical`    (Minerva) A gold with a decimal point, an exponent, or in NumPy's notation (`1.6`, `4.5e33`, `-1./3`,
              `np.arcsin(10/13)`) is a measured number, and a number within 1% of it is right. Math-Verify compares
              decimals to six places, where all tiny numbers are equal. Whole numbers and formulas: as `expression`.
`several`     (OlympiadBench) A gold may hold several answers, of which all have to be given, in any order, in one box
              or in several. The row's unit may be written or not. A row with an `error` accepts numbers that differ by
              no more.
"""

import ast
import math
import operator
import re
from typing import Any

from ladder_cli.data.gold import PHYSICAL, SEVERAL, GoldRule

CORRECT, INCORRECT, NO_ANSWER = "correct", "incorrect", "no_answer"
GOLD_UNPARSED, TIMEOUT, CRASH = "gold_unparsed", "timeout", "crash"
VERDICTS = (CORRECT, INCORRECT, NO_ANSWER, GOLD_UNPARSED, TIMEOUT, CRASH)

RELATIVE_TOLERANCE = 0.01
# Longer completions are graded by their end, where the answer stands.
LONGEST_GRADED = 20_000
Judged = tuple[str, str | None]

_BRACES = re.compile(r"(?P<box>\\f?boxed\s*\{|\\fbox\s*\{)|\\[{}\\]|(?P<open>\{)|(?P<close>\})")
_BOXED = re.compile(r"\\boxed\s*\{|\\boxed\s+\S|\\fbox\s*\{")
_POINT_BEFORE_BRACE = re.compile(r"(?<=\d)\.(?=\s*\})")
_EXPONENT = re.compile(r"(?<![\w.\\])(\d+\.?\d*|\.\d+)[eE]([+-]?\d+)(?![\w.])")
_MANTISSA = r"(?P<mantissa>[+-]?(?:\d+(?:\.\d*)?|\.\d+))"
_POWER = r"10\^\{?(?P<power>[+-]?\d+)\}?"
_NUMBER = re.compile(rf"{_MANTISSA}(?:[eE](?P<exponent>[+-]?\d+)|(?:\\times|\\cdot|\*|\u00d7){_POWER})?")
_POWER_OF_TEN = re.compile(rf"(?P<sign>[+-]?){_POWER}")
_WORDS = re.compile(r"\\(?:text|mathrm|textrm|mbox|operatorname)\s*\{[^{}]*\}(?:\^\{?-?\d+\}?)?")
_SPACING = re.compile(r"\\[,;:!% ]|~|\$|\s|\\quad|\\left|\\right")
_AROUND_TIMES = re.compile(r"\s*(\\times|\\cdot)\s*")
_COMMA = re.compile(r"(?<!\\),(?=\S)")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?:\D|$))")


def judge(gold: str, completion: str, rule: GoldRule) -> Judged:
    """The verdict on one completion and the answer that was read from it, in this process, without any deadline."""
    completion = _POINT_BEFORE_BRACE.sub("", completion[-LONGEST_GRADED:])
    if rule.name == PHYSICAL:
        measured = measured_number(gold)
        if measured is not None:
            return _near(measured, completion, relative=RELATIVE_TOLERANCE)
        return _equal(gold, _EXPONENT.sub(_as_power, completion))
    if rule.name == SEVERAL:
        return _several(gold, completion, rule)
    return _equal(gold, completion)


def has_box(completion: str) -> bool:
    """Does the completion begin a boxed answer anywhere?"""
    return _BOXED.search(completion) is not None


def boxes(text: str) -> list[str]:
    r"""The contents of every closed `\boxed{}`, in the order in which they close; one pass, whatever the nesting."""
    found: list[str] = []
    opened: list[int | None] = []
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append(match.end())
        elif match["open"]:
            opened.append(None)
        elif match["close"] and opened:
            start = opened.pop()
            if start is not None:
                found.append(text[start : match.start()])
    return found


def measured_number(gold: str) -> float | None:
    """The value of a gold in decimal, scientific or NumPy notation; None for whole numbers and all else."""
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
    """Arithmetic of numbers and `np.` functions; nothing else is evaluated.

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


def _parse(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    boxed_first = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    return list(parse(text, boxed_first, parsing_timeout=None))


def _equal(gold: str, completion: str) -> Judged:
    from math_verify import verify

    parsed_gold = _parse(f"\\boxed{{{gold}}}")
    if not parsed_gold:
        return GOLD_UNPARSED, None
    answer = _parse(completion)
    if not answer:
        return NO_ANSWER, None
    correct = verify(parsed_gold, answer, timeout_seconds=None)
    return (CORRECT if correct else INCORRECT), str(answer[-1])[:200]


def _near(gold: float, completion: str, relative: float = 0.0, absolute: float = 0.0) -> Judged:
    """Compare numbers by tolerance, and never by Math-Verify, to which all tiny numbers are equal."""
    boxed = boxes(completion)
    if boxed:
        answer = boxed[-1]
        value = plain_number(answer)
        if value is None:
            value = measured_number(answer)
        if value is None:
            parsed = _parse(f"\\boxed{{{_EXPONENT.sub(_as_power, answer)}}}")
            value = next((number for number in map(_value, parsed) if number is not None), None)
    else:
        written = list(_NUMBER.finditer(_AROUND_TIMES.sub(r"\1", completion)))
        if not written:
            return NO_ANSWER, None
        answer = written[-1].group()
        value = plain_number(answer)
    right = value is not None and math.isclose(value, gold, rel_tol=relative, abs_tol=absolute)
    return (CORRECT if right else INCORRECT), answer[:200]


def plain_number(text: str) -> float | None:
    r"""The value of `1,234.5`, `4.5e33`, `4.5 \times 10^{33}` or `10^{-8}`, with or without a unit in words."""
    text = _THOUSANDS.sub("", _SPACING.sub("", _WORDS.sub("", text)))
    text = re.sub(r"\\(?:text|mathrm)\b", "", text)
    match = _NUMBER.fullmatch(text)
    if match:
        exponent = match["exponent"] or match["power"] or "0"
        return float(f"{match['mantissa']}e{exponent[:6]}")
    match = _POWER_OF_TEN.fullmatch(text)
    return float(f"{match['sign']}1e{match['power'][:6]}") if match else None


def _value(parsed: Any) -> float | None:
    """The number that a parsed answer stands for: also the right side of an equation, and a set of one."""
    import sympy

    if isinstance(parsed, sympy.Eq):
        parsed = parsed.rhs
    if isinstance(parsed, sympy.FiniteSet) and len(parsed) == 1:
        (parsed,) = parsed
    if not isinstance(parsed, sympy.Expr) or parsed.free_symbols:
        return None
    try:
        value = complex(parsed.evalf(15))
    except (TypeError, ValueError, OverflowError):
        return None
    return value.real if value.imag == 0 else None


def _as_power(match: re.Match[str]) -> str:
    return f"{match[1]} \\times 10^{{{match[2].lstrip('+')}}}"


def _several(gold: str, completion: str, rule: GoldRule) -> Judged:
    gold = gold.replace("$", "").strip().rstrip(".")
    if "," in gold:
        # Between answers, not between thousands.
        gold, completion = _COMMA.sub(", ", gold), _COMMA.sub(", ", completion)
    named = gold
    if rule.unit:
        completion = _without_unit(completion, rule.unit)
        # An angle or a length whose name stands before its value may be left unnamed.
        gold = ",".join(part.rpartition("=")[2] for part in gold.split(","))
    if rule.tolerance is not None:
        number = plain_number(gold)
        if number is not None:
            return _near(number, completion, absolute=rule.tolerance * (1 + 1e-9))
    judged = _equal(gold, completion)
    if judged[0] == INCORRECT and named != gold:
        judged = _equal(named, completion)
    given = list(dict.fromkeys(boxes(completion)))
    if judged[0] == INCORRECT and len(given) > 1:
        # One answer to a box, with words between them, which Math-Verify does not join.
        joined = _equal(gold, f"\\boxed{{{', '.join(given)}}}")
        return joined if joined[0] == CORRECT else judged
    return judged


def _without_unit(completion: str, unit: str) -> str:
    """The completion without the unit where it stands at the end of a box."""
    plain = re.escape(unit.replace("$", "").strip().lstrip("^\\"))
    marks = rf"(?:\\[,;: ]|~|\s)*(?:\^?\{{?\\circ\}}?|\\?%|\\(?:text|mathrm)\s*\{{[^{{}}]*\}}(?:\^\{{?\d\}}?)?|{plain})"
    return re.sub(rf"{marks}(?=\s*\}})", "", completion)
