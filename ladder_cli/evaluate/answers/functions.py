"""Reads commands with their arguments: roots, functions, sums, matrices. Imports no torch."""

import re
from fractions import Fraction
from typing import Any

from ladder_cli.evaluate.answers.atoms import Atoms
from ladder_cli.evaluate.answers.nodes import Node, Unreadable, number
from ladder_cli.evaluate.answers.tokens import ACCENTS, FUNCTIONS, GREEK, MATRICES, SEVERAL_ARGUMENTS, STRUCTURE


class Functions(Atoms):
    """Reads commands with their arguments: roots, functions, sums, matrices, Greek names."""

    def matrix(self) -> Node:
        """Read an environment of rows."""
        name = re.sub(r"\\begin\s*\{|\}", "", self.next()).rstrip("*")
        if name not in MATRICES:
            raise Unreadable(f"environment {name}")
        self.at += 1
        if name == "array" and self.next() == "{":
            self.braced_words()
        rows: list[list[Node]] = [[]]
        while True:
            rows[-1].append(self.relation())
            if self.take("&"):
                continue
            if self.take("\\\\"):
                if self.next().startswith("\\end"):
                    break
                rows.append([])
                continue
            break
        if not self.next().startswith("\\end"):
            raise Unreadable(f"in a matrix: {self.next()!r}")
        self.at += 1
        if len({len(row) for row in rows}) > 1:
            raise Unreadable("rows of unequal length")
        if name in ("vmatrix", "Vmatrix"):
            return ("function", "det", (("matrix", tuple(map(tuple, rows))),))
        return ("matrix", tuple(map(tuple, rows)))

    def command(self, name: str) -> Node:
        """Read a command with its arguments."""
        if name == "frac":
            self.at += 1
            top = self.argument()
            return ("/", top, self.argument())
        if name == "binom":
            self.at += 1
            top = self.argument()
            return ("function", "binomial", (top, self.argument()))
        if name == "sqrt":
            return self.root()
        if name == "mixed":
            self.at += 1
            whole, top, bottom = self.argument(), self.argument_whole(), self.argument_whole()
            return ("+", (whole, ("/", top, bottom)))
        if name == "repeating":
            return self.repeating()
        if name in FUNCTIONS:
            return self.function(name)
        if name in SEVERAL_ARGUMENTS:
            self.at += 1
            self.need("(", "\\{") if self.next() in ("(", "\\{") else self.need("{")
            node = self.items(")", "\\}", "}")
            self.need(")", "\\}", "}")
            return ("function", name, node[1] if node[0] == "list" else (node,))
        if name in ("lfloor", "lceil"):
            self.at += 1
            inner = self.sum()
            self.need("\\r" + name[1:])
            return ("function", {"lfloor": "floor", "lceil": "ceil"}[name], (inner,))
        if name in ("sum", "prod"):
            return self.series(name)
        if name == "pi":
            self.at += 1
            if self.next() == "_":
                return self.named("pi" + self.subscript())
            return ("constant", "pi")
        if name == "infty":
            self.at += 1
            return ("constant", "infinity")
        if name == "emptyset":
            self.at += 1
            return ("set", ())
        if name == "mathbb":
            self.at += 1
            letter = self.braced_words()
            if letter not in ("R", "Z", "Q", "N", "C"):
                return ("symbol", letter)
            if self.take("^", "_"):
                letter += "^" + self.braced_words()
            return ("numbers", letter)
        if name in ACCENTS:
            self.at += 1
            over = self.braced_words()
            subscript = self.subscript() if self.next() == "_" else ""
            return self.named(f"{name}({re.sub(r'[{}]', '', over)}){subscript}")
        if name in ("angle", "triangle", "measuredangle", "arc", "widearc"):
            self.at += 1
            points = []
            while self.next().isalpha() and len(self.next()) == 1:
                points.append(self.next())
                self.at += 1
                if self.next() == "_":
                    points.append(self.subscript())
            if not points:
                return self.named(name)
            return ("symbol", f"{name} {''.join(points)}")
        if name in GREEK:
            self.at += 1
            return self.named(f"\\{name}" + (self.subscript() if self.next() == "_" else ""))
        if name in STRUCTURE or self.next(1) == "{":
            raise Unreadable(f"\\{name} stands for nothing known here")
        # An unknown symbol, equal to itself only.
        self.at += 1
        return self.named(f"\\{name}" + (self.subscript() if self.next() == "_" else ""))

    def argument_whole(self) -> Node:
        """Read the whole of a group in braces."""
        return self.group()

    def root(self) -> Node:
        """Read a root, with or without its order."""
        self.at += 1
        order: Node = number(2)
        if self.take("["):
            order = self.sum()
            self.need("]")
        inner = self.bracket("(") if self.next() == "(" else self.argument()
        return ("function", "root", (inner, order))

    def repeating(self) -> Node:
        """Read a repeating decimal."""
        self.at += 1
        head = self.braced_words()
        again = self.braced_words()
        after = head.partition(".")[2]
        value = Fraction(head.rstrip(".") or "0") + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(after))
        return ("number", value, None)

    def function(self, name: str) -> Node:
        """Read a function with its exponent or base and its argument."""
        self.at += 1
        exponent: Node | None = None
        base: Node | None = None
        for _ in range(2):
            if self.next() == "^" and exponent is None:
                self.at += 1
                exponent = self.argument()
            elif self.next() == "_" and base is None:
                self.at += 1
                base = self.argument()
        if self.next() in ("(", "["):
            inner = self.bracket(self.next())
            if inner[0] == "tuple":
                raise Unreadable(f"{name} of several arguments")
            if self.next() == "!" and self.next(1) != "=":
                inner = self.postfix(inner)
        elif self.next() == "{":
            inner = self.group()
        else:
            inner = self.bare_argument()
        if name in ("ln", "lg") and base is None:
            base = ("constant", "e") if name == "ln" else number(10)
        if name == "exp":
            node: Node = ("^", ("constant", "e"), inner)
        elif name in ("ln", "lg", "log"):
            node = ("function", "log", (inner, base if base is not None else number(10)))
        elif base is not None:
            raise Unreadable(f"a subscript of {name}")
        elif exponent == ("-", number(1)) and name in (
            "sin",
            "cos",
            "tan",
            "cot",
            "sec",
            "csc",
            "sinh",
            "cosh",
            "tanh",
        ):
            node, exponent = ("function", f"arc{name}", (inner,)), None
        else:
            node = ("function", name, (inner,))
        return node if exponent is None else ("^", node, exponent)

    def bare_argument(self) -> Node:
        """Read an argument without parentheses: factors up to the next function, bracket or operator."""
        sign = self.take("-", "+")
        parts = [self.power()]
        while (
            self.starts_factor() and self.next() not in ("(", "[", "\\{") and self.next().lstrip("\\") not in FUNCTIONS
        ):
            parts.append(self.power())
        node: Node = parts[0] if len(parts) == 1 else ("*", tuple(parts))
        return ("-", node) if sign == "-" else node

    def series(self, name: str) -> Node:
        """Read a sum or product over a range."""
        self.at += 1
        variable: Node | None = None
        first: Node = number(0)
        last: Node | None = None
        for _ in range(2):
            if self.take("_"):
                start = self.group() if self.next() == "{" else self.atom()
                if start[0] != "relation" or start[2] != ("=",):
                    raise Unreadable(f"\\{name} without its limits")
                variable, first = start[1]
            elif self.take("^"):
                last = self.argument()
        if variable is None or last is None:
            raise Unreadable(f"\\{name} without its limits")
        body = self.product()
        if variable[0] == "constant":
            # \\sum_{i=1}: here i is no imaginary unit.
            index = ("symbol", f"index {variable[1]}")
            body, variable = _replaced(body, variable, index), index
        return (name, body, variable, first, last)


def _replaced(node: Any, old: Node, new: Node) -> Any:
    if node == old:
        return new
    return tuple(_replaced(item, old, new) for item in node) if isinstance(node, tuple) else node
