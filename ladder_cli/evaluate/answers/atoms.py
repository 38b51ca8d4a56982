"""Reads numbers, names, brackets and braces. Imports no torch."""

import re
from abc import ABC, abstractmethod

from ladder_cli.evaluate.answers.nodes import Node, Unreadable, number
from ladder_cli.evaluate.answers.tokens import GREEK, OPERATORS, UNKNOWN_FUNCTIONS, TokenReader

_CLOSING = {"(": (")", "]"), "[": ("]", ")")}
DEEPEST = 60


class Atoms(TokenReader, ABC):
    """Reads numbers, names, brackets and braces; `expression.py` reads their contents."""

    def argument(self) -> Node:
        r"""Read an argument of `^`, `\frac` or `\sqrt`: a group, or one token."""
        token = self.next()
        if token == "{":
            return self.group()
        if token.isdigit() and len(token) > 1:
            # `\frac12`, `x^23`: one digit is taken, the rest stays.
            self.found[self.at : self.at + 1] = [token[0], token[1:]]
            self.at += 1
            return number(token[0])
        if token == "-":
            self.at += 1
            return ("-", self.argument())
        if token.startswith("\\text{") and re.fullmatch(r"\\text\{[a-zA-Z]\}", token):
            self.at += 1
            return ("symbol", token[6:-1])
        return self.atom()

    def group(self) -> Node:
        """Read a group in braces."""
        self.need("{")
        bars, self.bars = self.bars, 0
        node = self.over(self.items("}"), "}")
        self.need("}")
        self.bars = bars
        return node

    def over(self, top: Node, closing: str) -> Node:
        r"""Read `{a \over b}` and `{a \choose b}`."""
        operator = self.take("\\over", "\\choose")
        if not operator:
            return top
        bottom = self.items(closing)
        return ("/", top, bottom) if operator == "\\over" else ("function", "binomial", (top, bottom))

    def atom(self) -> Node:
        """Read a number, name, bracket or command."""
        token = self.next()
        if not token:
            raise Unreadable("ends too early")
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("nested too deeply")
        try:
            return self._atom(token)
        finally:
            self.depth -= 1

    def _atom(self, token: str) -> Node:
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return self.numeral(token)
        if len(token) == 1 and token.isalpha():
            return self.letter(token)
        if token == "{":
            return self.group()
        if token in ("(", "["):
            return self.bracket(token)
        if token == "\\{":
            return self.braces()
        if token.startswith("\\text{") and (self.next(1) in OPERATORS or self.next(1) == "_"):
            # A name in words: \text{Area} = 5.
            self.at += 1
            digits = re.fullmatch(r"[0-9A-Z]+", token[6:-1])
            if digits and self.next() == "_" and any(map(str.isdigit, token)):
                return ("based", token[6:-1], self.base())
            return ("symbol", token[6:-1].strip() + (self.subscript() if self.next() == "_" else ""))
        if token == "|":
            self.at += 1
            self.bars += 1
            inner = self.sum()
            self.need("|")
            self.bars -= 1
            return self.absolute(inner)
        if token == "\\|":
            self.at += 1
            inner = self.sum()
            self.need("\\|")
            return ("function", "norm", (inner,))
        if token.startswith("\\begin"):
            return self.matrix()
        if token[0] == "\\" and len(token) > 1 and token[1].isalpha() and not token.startswith(("\\text", "\\end")):
            return self.command(token[1:])
        raise Unreadable(f"{token!r} stands for nothing known here")

    def absolute(self, inner: Node) -> Node:
        """Read an expression between bars."""
        return ("function", "abs", (inner,))

    def numeral(self, token: str) -> Node:
        """Read a number, or digits with a base."""
        self.at += 1
        if self.next() == "." and self.next(1) not in (".",):
            # `5.` before an operator, as in -1./3.
            self.at += 1
        if self.next() == "_" and token.isdigit():
            base = self.base()
            return ("based", token.lstrip("0") or "0", base)
        return number(token)

    def base(self) -> int:
        """Read the base of a number from its subscript."""
        self.need("_")
        if self.take("{"):
            digits = self.next()
            self.at += 1
            self.need("}")
        else:
            digits = self.next()
            self.at += 1
        if not digits.isdigit() or not 2 <= int(digits) <= 36:
            raise Unreadable(f"base {digits!r}")
        return int(digits)

    def letter(self, token: str) -> Node:
        """Read a name of one letter with its subscript."""
        self.at += 1
        name = token
        if self.next() == "_":
            name += self.subscript()
        if name == "e":
            return ("constant", "e")
        if name == "i":
            return ("constant", "i")
        return self.named(name)

    def named(self, name: str) -> Node:
        """Return a symbol, or an unknown function of the arguments in parentheses after it."""
        primes = ""
        while self.next() == "'":
            primes += "'"
            self.at += 1
        name += primes
        if self.next() != "(":
            return ("symbol", name)
        known = name.split("_")[0].rstrip("'") in UNKNOWN_FUNCTIONS
        end = self.found.index(")", self.at) if ")" in self.found[self.at :] else self.at
        inside = self.found[self.at + 1 : end]
        simple = len(inside) == 1 and (inside[0].isalnum() or inside[0][1:] in GREEK)
        several = "," in inside and "(" not in inside
        if not known and not (simple and (primes or name[0] in "PQRSTpqrsuvyxz" or name[0] == "\\")) and not several:
            return ("symbol", name)
        self.need("(")
        node = self.items(")")
        self.need(")")
        return ("apply", name, node[1] if node[0] == "list" else (node,))

    def bracket(self, opening: str) -> Node:
        """Read round or square brackets: a tuple, an interval, or one expression."""
        self.at += 1
        bars, self.bars = self.bars, 0
        node = self.items(")", "]")
        closing = self.need(")", "]")
        self.bars = bars
        if node[0] == "list":
            node = ("tuple", opening, closing, node[1])
        elif closing not in _CLOSING[opening][:1]:
            raise Unreadable(f"{opening} closed by {closing}")
        elif node[0] in ("number", "based") and self.next() == "_" and node[0] == "number" and node[1].denominator == 1:
            return ("based", str(node[1]), self.base())
        return node

    def braces(self) -> Node:
        """Read a set."""
        self.need("\\{")
        builder = self.builder()
        if builder:
            self.at += builder
            node = self.items("\\}")
            self.need("\\}")
            return node
        if self.take("\\}"):
            return ("set", ())
        node = self.items("\\}")
        self.need("\\}")
        return ("set", node[1] if node[0] == "list" else (node,))

    def builder(self) -> int:
        r"""Count the tokens that begin `\{x | ...\}` or `\{x \in \mathbb{R} | ...\}` here; 0 for another set."""
        if not (self.next().isalpha() and len(self.next()) == 1):
            return 0
        if self.next(1) in ("|", ":"):
            return 2
        reals = ["\\in", "\\mathbb", "{", "R", "}"]
        if self.found[self.at + 1 : self.at + 6] == reals and self.next(6) in ("|", ":", ","):
            return 7
        return 0

    @abstractmethod
    def items(self, *closing: str) -> Node:
        """Read parts between commas and the like."""

    @abstractmethod
    def relation(self) -> Node:
        """Read terms with signs of relation between them."""

    @abstractmethod
    def sum(self) -> Node:
        """Read terms with plus and minus between them."""

    @abstractmethod
    def product(self) -> Node:
        """Read factors with signs of multiplication between them."""

    @abstractmethod
    def power(self) -> Node:
        """Read an atom with its exponent and marks."""

    @abstractmethod
    def starts_factor(self) -> bool:
        """Return whether a factor begins here."""

    @abstractmethod
    def postfix(self, node: Node) -> Node:
        """Read the marks that follow an expression."""

    @abstractmethod
    def matrix(self) -> Node:
        """Read an environment of rows."""

    @abstractmethod
    def command(self, name: str) -> Node:
        """Read a command with its arguments."""
