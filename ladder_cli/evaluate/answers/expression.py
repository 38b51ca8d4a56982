r"""Reads a normal form as mathematics: the whole of it, or not at all. Imports no torch.

A recursive descent over the tokens of the string. Every token is used, or `Unreadable` is raised; nothing is skipped.
`nodes.py` lists the results.
"""

import re
from typing import Any

from ladder_cli.evaluate.answers.atoms import DEEPEST
from ladder_cli.evaluate.answers.functions import Functions
from ladder_cli.evaluate.answers.nodes import Node, Unreadable, number, symbols, walk
from ladder_cli.evaluate.answers.normal_form import LONGEST
from ladder_cli.evaluate.answers.tokens import BETWEEN, OPERATORS, tokens

__all__ = ["Node", "Unreadable", "number", "read", "symbols", "walk"]


_NO_UNIT = re.compile(
    r"(?<![\^a-zA-Z\d-])\d|\b(?:or|more|less|than|least|most|not|no|between|to|only|if|when|where|for|except|about|if)\b",
    re.IGNORECASE,
)


def read(text: str) -> Node:
    """Read the expression of a normal form.

    Raises:
        Unreadable: if any part of it is unknown.
    """
    if len(text) > LONGEST:
        raise Unreadable(f"longer than {LONGEST} characters")
    # What only holds off a brace, as in `{}_5C_2`.
    text = text.replace("{}", "")
    parser = _Parser(tokens(text))
    try:
        node = parser.answer()
        _check(node, False)
        return node
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except (IndexError, ZeroDivisionError) as error:
        raise Unreadable(f"ends too early ({error})") from None


class _Parser(Functions):
    """Reads lists, relations and arithmetic around what `functions.py` and `atoms.py` read."""

    def answer(self) -> Node:
        if not self.found:
            raise Unreadable("empty")
        node = self.over(self.items(""), "")
        if self.next():
            raise Unreadable(f"stops at {''.join(self.found[self.at :])[:30]!r}")
        return node

    def items(self, *closing: str) -> Node:
        """Read parts between commas, semicolons, "and", "or"; a single part stands for itself."""
        groups: list[list[Node]] = [[]]
        joints: list[str] = []
        while True:
            groups[-1].append(self.relation())
            separator = self.separator()
            if not separator:
                break
            if self.next() in closing or (not self.next() and "" in closing):
                break
            joints.append(separator)
            if separator == ";":
                groups.append([])
        semicolons = len(groups) > 1
        if semicolons and any(len(group) > 1 for group in groups):
            return ("groups", tuple(("list", tuple(group)) for group in groups))
        parts = [part for group in groups for part in group]
        if len(parts) == 1:
            return parts[0]
        if joints and set(joints) == {"or"} and all(_is_inequality(part) for part in parts):
            union = parts[0]
            for part in parts[1:]:
                union = ("cup", union, part)
            return union
        return ("list", tuple(parts))

    def separator(self) -> str:
        token = self.next()
        if token in (",", ";"):
            self.at += 1
            # ", and"
            return self.separator() or token if self.next() in ("\\text{and}", "\\text{or}") else token
        if token in ("\\text{and}", "\\text{or}"):
            self.at += 1
            return token[6:-1]
        if token == "\\&":
            self.at += 1
            return "and"
        return ""

    def relation(self) -> Node:
        terms, operators = [self.sets()], []
        while True:
            token = self.next()
            if token in ("<", ">") and self.next(1) == "=":
                self.at += 2
                operators.append(f"{token}=")
            elif token == "!" and self.next(1) == "=":
                self.at += 2
                operators.append("!=")
            elif token in OPERATORS:
                self.at += 1
                operators.append(OPERATORS[token])
            else:
                break
            terms.append(self.sets())
        node = terms[0] if not operators else ("relation", tuple(terms), tuple(operators))
        return ("mod", node, self.group()) if self.take("\\pmod") else node

    def sets(self) -> Node:
        left = self.ratio()
        while True:
            operator = self.take("\\cup", "\\cap", "\\setminus")
            if not operator:
                return left
            left = (operator[1:], left, self.ratio())

    def ratio(self) -> Node:
        return self.with_unit(self.plain_ratio())

    def plain_ratio(self) -> Node:
        terms = [self.sum()]
        digits: list[str] = []
        start = self.at
        while self.next() == ":":
            self.at += 1
            digits.append(self.next())
            terms.append(self.sum())
        if not digits:
            return terms[0]
        written = "".join(self.found[start - 1 : self.at])
        clock = re.fullmatch(r"(\d{1,2}):([0-5]\d)", written)
        if clock:
            return ("clock", int(clock[1]), int(clock[2])) if self.next() != ":" else ("ratio", tuple(terms))
        return ("ratio", tuple(terms))

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("nested too deeply")
        sign = self.take("+", "-", "\\pm", "\\mp")
        node = self.signed(sign, self.product())
        terms = [node]
        while True:
            sign = self.take("+", "-", "\\pm", "\\mp")
            if not sign:
                break
            if sign in ("\\pm", "\\mp"):
                left: Node = terms[0] if len(terms) == 1 else ("+", tuple(terms))
                terms = [(sign[1:], left, self.product())]
            else:
                terms.append(self.signed(sign, self.product()))
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", tuple(terms))

    def with_unit(self, node: Node) -> Node:
        """Read a unit in words after the value."""
        unit: list[str] = []
        while self.next().startswith("\\text{") and self.next() not in ("\\text{and}", "\\text{or}"):
            words = self.next()[6:-1]
            if _NO_UNIT.search(words):
                raise Unreadable(f"{words.strip()!r} is no unit")
            unit.append(words)
            self.at += 1
            if self.take("^"):
                unit.append("^" + self.braced_words())
            if self.next() in ("/", "\\cdot") and self.next(1).startswith("\\text{"):
                unit.append(self.next())
                self.at += 1
        return ("unit", node, "".join(unit).strip()) if unit else node

    def signed(self, sign: str, node: Node) -> Node:
        if sign == "-":
            return ("-", node)
        if sign in ("\\pm", "\\mp"):
            return (sign[1:], None, node)
        return node

    def product(self) -> Node:
        node = self.factors()
        while True:
            operator = self.take("*", "\\cdot", "\\times", "/", "\\div")
            if not operator:
                break
            # A sign may follow: 3 \cdot -2.
            sign = self.take("-", "+")
            right = self.factors()
            if sign == "-":
                right = ("-", right)
            node = ("/", node, right) if operator in ("/", "\\div") else _times(node, right)
        return node

    def factors(self) -> Node:
        """Read factors side by side."""
        if self.next() == "-":
            self.at += 1
            return ("-", self.factors())
        if self.next() == "+":
            self.at += 1
            return self.factors()
        node = self.power()
        mixed = _mixed(node, self.peek_fraction())
        if mixed is not None:
            # 33 1/3 %: the sign is that of the whole.
            mark = self.power()[0]
            node = (mark, mixed) if mark in ("percent", "degree") else mixed
        parts = [node]
        while self.starts_factor():
            if self.next()[-1].isdigit() and self.found[self.at - 1][-1].isdigit():
                raise Unreadable("two numbers side by side")
            parts.append(self.power())
        return parts[0] if len(parts) == 1 else ("*", tuple(parts))

    def peek_fraction(self) -> Node | None:
        if self.next() != "\\frac":
            return None
        at, depth = self.at, self.depth
        try:
            return self.power()
        finally:
            self.at, self.depth = at, depth

    def starts_factor(self) -> bool:
        token = self.next()
        if not token or token in OPERATORS:
            return False
        if token == "|":
            return self.bars == 0
        if token[0].isalnum() or token in ("(", "[", "{", "\\{", "."):
            return True
        if token.startswith(("\\begin", "\\text")):
            return token.startswith("\\begin")
        if token[0] == "\\" and token[1].isalpha():
            return token not in BETWEEN and not token.startswith("\\end")
        return False

    def power(self) -> Node:
        node = self.postfix(self.atom())
        if self.take("^"):
            if self.circle():
                node = self.postfix(("degree", node))
                if self.next() == "^":
                    raise Unreadable("a power of degrees")
                return self.minutes(node)
            if self.next() in ("\\prime", "'"):
                self.at += 1
                return self.postfix(("symbol", f"{_name(node)}'"))
            # Writers of `2^10` mean ten.
            node = self.postfix(("^", node, self.numeral(self.next()) if self.next().isdigit() else self.argument()))
            if self.next() == "^":
                raise Unreadable("two exponents")
        return node

    def minutes(self, node: Node) -> Node:
        r"""Read the minutes of an angle: `18^\circ 30'`."""
        if re.fullmatch(r"\d+(\.\d+)?", self.next()) and self.next(1) in ("'",):
            part = number(self.next())
            self.at += 2
            return ("degree", ("+", (node[1], ("/", part, number(60)))))
        return node

    def circle(self) -> bool:
        if self.next() == "\\circ":
            self.at += 1
            return True
        if self.next() == "{" and self.next(1) == "\\circ" and self.next(2) == "}":
            self.at += 3
            return True
        return False

    def postfix(self, node: Node) -> Node:
        while True:
            if self.next() == "!" and self.next(1) != "=":
                self.at += 1
                if self.take("!"):
                    node = ("function", "doublefactorial", (node,))
                else:
                    node = ("function", "factorial", (node,))
            elif self.take("\\%", "%"):
                node = ("percent", node)
            elif self.next() == "'" and node[0] in ("symbol", "apply"):
                self.at += 1
                node = ("symbol", f"{_name(node)}'")
            elif self.next() == "^" and self.next(1) == "{" and self.next(2) in ("\\prime", "'"):
                self.at += 2
                primes = 0
                while self.take("\\prime", "'"):
                    primes += 1
                self.need("}")
                node = ("symbol", _name(node) + "'" * primes)
            else:
                return node


_ARITHMETIC = frozenset(("+", "*", "/", "^", "-", "pm", "mp", "function", "percent", "degree", "sum", "prod"))
_COLLECTIONS = frozenset(
    ("tuple", "set", "list", "groups", "relation", "mod", "cup", "cap", "setminus", "numbers", "clock", "ratio", "unit")
)


def _check(node: Any, inside: bool) -> None:
    """Refuse collections inside arithmetic: `t(0, 4]` is no product.

    Raises:
        Unreadable: if there is one.
    """
    if not isinstance(node, tuple) or not node:
        return
    kind = node[0] if isinstance(node[0], str) else ""
    if inside and kind in _COLLECTIONS and len(node) > 1 and isinstance(node[1], tuple | str):
        raise Unreadable(f"a {kind} inside an expression")
    inner = kind in _ARITHMETIC or (kind not in _COLLECTIONS and inside)
    for item in node[1:] if kind else node:
        _check(item, inner)


def _times(left: Node, right: Node) -> Node:
    if left[0] == "*":
        return ("*", (*left[1], right))
    return ("*", (left, right))


def _mixed(node: Node, following: Node | None) -> Node | None:
    r"""Read `3\frac{1}{5}` as a mixed number."""
    if following is None or node[0] != "number" or node[1].denominator != 1 or node[2] is not None:
        return None
    if following[0] in ("percent", "degree"):
        following = following[1]
    if following[0] == "/" and all(part[0] == "number" and part[1].denominator == 1 for part in following[1:]):
        top, bottom = following[1][1], following[2][1]
        if 0 < top < bottom:
            return ("+", (node, following))
    return None


def _name(node: Node) -> str:
    if node[0] in ("symbol", "apply"):
        return str(node[1])
    if node[0] == "constant":
        return str(node[1])
    raise Unreadable("a prime after what is no name")


def _is_inequality(node: Node) -> bool:
    return node[0] == "relation" and all(operator in ("<", ">", "<=", ">=") for operator in node[2])
