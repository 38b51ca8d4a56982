r"""Decides whether two LaTeX texts differ in value. The audit's own check, which shares nothing with the grader.

An expression is evaluated at three points, every symbol being a number drawn for its name; `i` is the imaginary unit
and `e` Euler's number. Lists, tuples, intervals, unions, matrices and relations are compared piece by piece. A text
that is not understood has no value, and nothing is decided. The check errs on the side of `same`: the audit uses it to
drop a perturbed answer that may be right after all.
"""

import cmath
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

POINTS = 3
Values = tuple[complex, ...]
_CLOSE = 1e-9
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "\\sin": cmath.sin,
    "\\cos": cmath.cos,
    "\\tan": cmath.tan,
    "\\cot": lambda x: 1 / cmath.tan(x),
    "\\sec": lambda x: 1 / cmath.cos(x),
    "\\csc": lambda x: 1 / cmath.sin(x),
    "\\arcsin": cmath.asin,
    "\\arccos": cmath.acos,
    "\\arctan": cmath.atan,
    "\\sinh": cmath.sinh,
    "\\cosh": cmath.cosh,
    "\\tanh": cmath.tanh,
    "\\ln": cmath.log,
    "\\log": cmath.log,
    "\\exp": cmath.exp,
}
_TOKEN = re.compile(
    r"(?P<skip>\s+|\\[,;:! ]|~|\$|\\(?:left|right|displaystyle|quad|limits|big[lr]?|Big[lr]?)(?![A-Za-z]))"
    r"|(?P<words>\\(?:text|mbox|mathrm|textbf|mathbf|operatorname|dot|ddot|hat|vec|bar|overline|prime)\s*\{[^{}]*\})"
    r"|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[A-Za-z]+|\\.)|(?P<other>.)",
    re.DOTALL,
)
_THOUSANDS = re.compile(r"(?<=\d)(?:,\s?\\!\s?|\{,\}|,)(?=\d{3}(?!\d))")
_PLAIN_THOUSANDS = re.compile(r"\\?\$?-?\d{1,3}(?:(?:,\s?\\!\s?|\{,\}|,)\s?\d{3})+(?:\.\d+)?")
_SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+\.?\d*|\.\d+)[eE]([+-]?\d+)(?![\w.])")
_RELATIONS = ("=", "<", ">", "\\le", "\\leq", "\\leqslant", "\\ge", "\\geq", "\\geqslant", "\\in", "\\neq")
_OPEN, _CLOSING = ("(", "[", "\\{", "\\lbrack"), (")", "]", "\\}", "\\rbrack")
_PRODUCT = ("\\cdot", "\\times", "*", "\u00d7")


@dataclass(frozen=True)
class Shape:
    """A text taken apart: `tag` says how its pieces belong together (a bracket pair, `list`, `union`, a relation)."""

    tag: str
    pieces: tuple["Shape | Values", ...]


class _Unread(Exception):
    """Not understood."""


def differ(first: str, second: str, relative: float = _CLOSE, absolute: float = 0.0) -> bool | None:
    """Return whether the two certainly differ; None if one of them is not understood.

    Args:
        relative, absolute: constants that are this near count as equal.
    """
    try:
        return not _same(_read(first), _read(second), relative, absolute)
    except (_Unread, RecursionError, IndexError, ValueError):
        return None


def tokens(text: str) -> list[str]:
    """Return the tokens of a text without spacing."""
    return [match.group() for match in _TOKEN.finditer(text) if match["skip"] is None]


def _read(text: str) -> "Shape | Values":
    text = _SCIENTIFIC.sub(lambda found: f"({found[1]}\\cdot 10^{{{found[2]}}})", text.replace("\u2212", "-"))
    if _PLAIN_THOUSANDS.fullmatch(text.strip()):
        text = _THOUSANDS.sub("", text)
    return _piece(tokens(text.replace("\\$", "").replace("dfrac", "frac").replace("tfrac", "frac").strip().rstrip(".")))


def _piece(given: list[str]) -> "Shape | Values":
    if not given:
        raise _Unread
    if given[:2] == ["\\begin", "{"]:
        return _matrix(given)
    for tag, separators in (("list", (",", ";")), ("union", ("\\cup",))):
        parts = _split(given, separators)
        if len(parts) > 1:
            return Shape(tag, tuple(_piece(part) for part in parts))
    for relation in _RELATIONS:
        parts = _split(given, (relation,))
        if len(parts) > 1:
            return Shape(relation, tuple(_piece(part) for part in parts))
    if given[0] in _OPEN and given[-1] in _CLOSING and len(_split(given[1:-1], (",",))) > 1 and _matched(given):
        return Shape(given[0] + given[-1], tuple(_piece(part) for part in _split(given[1:-1], (",",))))
    if given[0] == "\\{" and given[-1] == "\\}":
        return Shape("\\{\\}", (_piece(given[1:-1]),))
    return tuple(_Evaluation(given, point).value() for point in range(POINTS))


def _matched(given: list[str]) -> bool:
    """Return whether the last token closes the first bracket."""
    depth = 0
    for index, token in enumerate(given):
        depth += (token in _OPEN) - (token in _CLOSING)
        if depth == 0:
            return index == len(given) - 1
    return False


def _split(given: list[str], separators: tuple[str, ...]) -> list[list[str]]:
    """Split at the separators outside all brackets and braces."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in given:
        depth += (token in (*_OPEN, "{")) - (token in (*_CLOSING, "}"))
        if token in separators and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _matrix(given: list[str]) -> Shape:
    close, last = given.index("}"), len(given) - 1 - given[::-1].index("\\end")
    name = "".join(given[2:close])
    if name not in ("pmatrix", "bmatrix", "vmatrix", "matrix", "smallmatrix"):
        raise _Unread
    rows = _split(given[close + 1 : last], ("\\\\",))
    cells = [tuple(_piece(cell) for cell in _split(row, ("&",))) for row in rows if row]
    return Shape("matrix", tuple(Shape("row", row) for row in cells))


def _same(first: "Shape | Values", second: "Shape | Values", relative: float, absolute: float) -> bool:
    if not isinstance(first, Shape) or not isinstance(second, Shape):
        if isinstance(first, Shape) or isinstance(second, Shape):
            return False
        return all(_near(a, b, relative, absolute) for a, b in zip(first, second, strict=True))
    if first.tag != second.tag or len(first.pieces) != len(second.pieces):
        return False
    if first.tag == "=" and len(first.pieces) == 2:
        return _same_equation(first, second, relative, absolute)
    if first.tag in ("list", "union", "\\{\\}"):
        return _same_in_any_order(first, second, relative, absolute)
    return all(_same(a, b, relative, absolute) for a, b in zip(first.pieces, second.pieces, strict=True))


def _same_in_any_order(first: Shape, second: Shape, relative: float, absolute: float) -> bool:
    left = list(second.pieces)
    for piece in first.pieces:
        twin = next((other for other in left if _same(piece, other, relative, absolute)), None)
        if twin is None:
            return False
        left.remove(twin)
    return True


def _same_equation(first: Shape, second: Shape, relative: float, absolute: float) -> bool:
    """Return whether the sides are equal, exchanged, or all multiplied by one number."""
    sides = [*first.pieces, *second.pieces]
    if any(isinstance(side, Shape) for side in sides):
        straight = zip(first.pieces, second.pieces, strict=True)
        return all(_same(a, b, relative, absolute) for a, b in straight)
    a, b, c, d = (side for side in sides if not isinstance(side, Shape))
    try:
        ratios = [(w - x) / (y - z) for w, x, y, z in zip(a, b, c, d, strict=True)]
    except ZeroDivisionError:
        return True
    return all(_near(ratio, ratios[0], max(relative, _CLOSE), 0.0) for ratio in ratios)


def _near(first: complex, second: complex, relative: float, absolute: float) -> bool:
    return abs(first - second) <= max(relative * max(abs(first), abs(second)), absolute, 1e-300)


class _Evaluation:
    """One expression at one point."""

    def __init__(self, given: list[str], point: int) -> None:
        self._tokens, self._next, self._point = given, 0, point

    def value(self) -> complex:
        try:
            value = self._sum()
        except (ArithmeticError, ValueError, TypeError) as error:
            raise _Unread from error
        if self._next < len(self._tokens) or not cmath.isfinite(value):
            raise _Unread
        return value

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        if self._next >= len(self._tokens):
            raise _Unread
        self._next += 1
        return self._tokens[self._next - 1]

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise _Unread

    def _symbol(self, name: str) -> complex:
        return complex(random.Random(f"{name} {self._point}").uniform(0.6, 1.9))

    def _sum(self) -> complex:
        signs = {"+": complex(1), "-": complex(-1), "\\pm": self._symbol("\\pm"), "\\mp": -self._symbol("\\pm")}
        total = signs[self._take()] * self._product() if self._peek() in signs else self._product()
        while self._peek() in signs:
            total += signs[self._take()] * self._product()
        return total

    def _product(self) -> complex:
        value = self._power()
        while True:
            token = self._peek()
            if token in _PRODUCT:
                self._take()
                value *= self._power()
            elif token == "/":
                self._take()
                value /= self._power()
            elif self._starts_factor(token):
                value *= self._power()
            else:
                return value

    def _starts_factor(self, token: str) -> bool:
        known = ("\\frac", "\\sqrt", "\\binom", "\\lfloor", "\\lceil", "(", "[", "{", *_FUNCTIONS)
        stops = (*_PRODUCT, *_RELATIONS, "\\pm", "\\mp", "\\rfloor", "\\rceil", "\\}", "\\%", "\\right", "\\\\")
        if token in known:
            return True
        return bool(token) and (token[0].isalnum() or (token[0] == "\\" and token not in stops) or token[0] == ".")

    def _power(self) -> complex:
        if self._peek() in ("-", "+"):
            return (-1 if self._take() == "-" else 1) * self._power()
        value = self._atom()
        while True:
            token = self._peek()
            if token == "^":
                self._take()
                value = self._raised(value)
            elif token == "!":
                self._take()
                value = self._factorial(value)
            elif token in ("\\%", "%"):
                self._take()
                value /= 100
            elif token == "'":
                self._take()
                value *= self._symbol("prime")
            elif token == "\u00b0":
                self._take()
                value *= self._symbol("degree")
            else:
                return value

    def _raised(self, value: complex) -> complex:
        ahead = self._tokens[self._next : self._next + 3]
        if ahead[:1] == ["\\circ"] or ahead == ["{", "\\circ", "}"]:
            self._next += 1 if ahead[0] == "\\circ" else 3
            return value * self._symbol("degree")
        if "\\prime" in ahead[:2]:
            self._group()
            return value * self._symbol("prime")
        return value ** self._group()

    @staticmethod
    def _factorial(value: complex) -> complex:
        if value.imag or value.real < 0 or value.real > 150:
            raise _Unread
        return complex(math.gamma(value.real + 1))

    def _group(self) -> complex:
        """Return what a command or `^` applies to: a brace, or a single digit, letter or command."""
        token = self._peek()
        if token == "{":
            self._take()
            value = self._sum()
            self._expect("}")
            return value
        if token == "-":
            self._take()
            return -self._group()
        if token[:1].isdigit() and len(token) > 1:
            # \frac12: a digit each.
            self._tokens[self._next : self._next + 1] = [token[0], token[1:]]
        return self._atom()

    def _name(self) -> str:
        """A subscript, which belongs to the name."""
        if self._peek() != "_":
            return ""
        self._take()
        if self._peek() != "{":
            return "_" + self._take()
        depth, name = 0, ""
        while True:
            token = self._take()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return "_" + name
            name += "" if token == "{" else token

    def _atom(self) -> complex:
        token = self._take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            base = self._name()
            return complex(int(token, int(base[1:]))) if base else complex(float(token))
        if token in ("(", "[", "{"):
            value = self._sum()
            self._expect({"(": ")", "[": "]", "{": "}"}[token])
            return value
        if token == "|":
            value = self._sum()
            self._expect("|")
            return complex(abs(value))
        if token in ("\\lfloor", "\\lceil"):
            value = self._sum()
            self._expect("\\rfloor" if token == "\\lfloor" else "\\rceil")
            return complex(math.floor(value.real) if token == "\\lfloor" else math.ceil(value.real))
        if token == "\\frac":
            above = self._group()
            return above / self._group()
        if token == "\\binom":
            n, k = self._group(), self._group()
            return complex(math.gamma(n.real + 1) / math.gamma(k.real + 1) / math.gamma(n.real - k.real + 1))
        if token == "\\sqrt":
            return self._root()
        if token in _FUNCTIONS:
            return self._function(token)
        if token == "\\pi":
            return complex(math.pi)
        if token == "e" and self._peek() != "_":
            return complex(math.e)
        if token == "i" and self._peek() != "_":
            return 1j
        if token.isalpha() or token.startswith("\\"):
            if token in ("\\begin", "\\end", "\\\\", "\\{", "\\}", "\\sum", "\\int", "\\prod"):
                raise _Unread
            return self._symbol(re.sub(r"\s", "", token) + self._name())
        raise _Unread

    def _root(self) -> complex:
        degree = complex(2)
        if self._peek() == "[":
            self._take()
            degree = self._sum()
            self._expect("]")
        value = self._group()
        return complex(value ** (1 / degree))

    def _function(self, name: str) -> complex:
        scale = self._symbol("base" + self._name()) if self._peek() == "_" else complex(1)
        exponent = complex(1)
        if self._peek() == "^":
            self._take()
            exponent = self._group()
        value = self._power()
        if self._tokens[self._next - 1] not in (")", "}"):
            while self._starts_factor(self._peek()) and self._peek() not in (*_FUNCTIONS, "("):
                value *= self._power()
        return scale * _FUNCTIONS[name](value) ** exponent
