# ruff: noqa: E501
r"""Reading a normal form as mathematics: the whole of it, or not at all. Imports no torch.

A recursive descent over the tokens of the string. Every token is used, or `Unreadable` is raised; nothing is skipped.
Expressions are nested tuples, the first item of which is the kind:

| kind | items |
| --- | --- |
| `number` | exact value (Fraction), digits after the point as written (None: not a decimal) |
| `symbol` | name with its subscript |
| `constant` | `pi`, `e`, `i`, `infinity` |
| `+`, `*` | terms or factors |
| `/`, `^`, `pm`, `mp` | left, right (`pm`: left ± right) |
| `-` | term |
| `function` | name, arguments |
| `apply` | name of an unknown function, arguments |
| `percent`, `degree` | value |
| `unit` | value, unit in words |
| `based` | digits, base |
| `tuple` | opening and closing bracket, items |
| `set`, `list` | items (`{..}`, and without brackets) |
| `groups` | lists that semicolons separate |
| `relation` | terms, operators between them |
| `cup`, `cap`, `setminus` | left, right |
| `numbers` | letter of ℝ, ℤ, ℚ, ℕ, ℂ |
| `matrix` | environment, rows |
| `ratio` | terms |
| `clock` | hour, minute |
| `mod` | expression, modulus |
| `sum`, `prod` | body, variable, from, to |
"""

import re
from fractions import Fraction
from typing import Any

from ladder_cli.evaluation.normal_form import LONGEST

Node = tuple[Any, ...]

_TOKEN = re.compile(
    r"(?P<number>\d+\.\d+|\d+|\.\d+)|(?P<text>\\text\{[^{}]*\})|(?P<environment>\\(?:begin|end)\s*\{[a-zA-Z]+\*?\})"
    r"|(?P<command>\\[a-zA-Z]+|\\.)|(?P<letter>[a-zA-Z])|(?P<sign>[^\s])"
)
_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "hbar",
        "ell",
        "partial",
        "nabla",
        "Re",
        "Im",
        "aleph",
        "star",
        "odot",
    ]
)
FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "arccot",
        "arcsec",
        "arccsc",
        "sinh",
        "cosh",
        "tanh",
        "coth",
        "arcsinh",
        "arccosh",
        "arctanh",
        "ln",
        "log",
        "exp",
        "sgn",
        "sign",
        "floor",
        "ceil",
        "arsinh",
        "arcosh",
        "artanh",
        "lg",
        "erf",
    ]
)
_SEVERAL_ARGUMENTS = frozenset(("gcd", "lcm", "max", "min"))
_ACCENTS = frozenset(
    "vec hat bar tilde overline overrightarrow dot ddot widehat widetilde underbar overleftrightarrow overarc mathbb".split()  # noqa: SIM905
)
_OPERATORS = {
    "=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\approx": "~", "\\in": "in", "\\notin": "notin",
    "\\equiv": "===", "\\sim": "~~", "\\subset": "subset", "\\subseteq": "subseteq", "\\mapsto": "mapsto",
    "\\rightarrow": "mapsto", "\\parallel": "parallel", "\\perp": "perp", "\\propto": "propto", "\\doteq": "~",
}  # fmt: skip
_UNKNOWN_FUNCTIONS = frozenset("fghFGHW")
_MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array", "psmallmatrix", "bsmallmatrix"))  # fmt: skip
_STRUCTURE = frozenset(
    [
        "int",
        "iint",
        "iiint",
        "oint",
        "lim",
        "limsup",
        "liminf",
        "sup",
        "inf",
        "det",
        "dim",
        "ker",
        "deg",
        "begin",
        "end",
        "left",
        "right",
        "overset",
        "underset",
        "stackrel",
        "text",
        "boxed",
        "hline",
        "not",
        "over",
        "choose",
        "atop",
        "cases",
        "rfloor",
        "rceil",
        "rightarrow",
        "Rightarrow",
        "Leftrightarrow",
        "implies",
        "therefore",
        "because",
        "ldots",
        "pmod",
        "bmod",
        "mod",
        "quad",
        "qquad",
        "circ",
        "cdot",
        "times",
        "div",
        "cup",
        "cap",
        "setminus",
        "pm",
        "mp",
        "in",
        "to",
        "le",
        "ge",
        "ne",
        "approx",
        "color",
        "substack",
        "forall",
        "exists",
        "textbf",
        "mathbb",
        "neg",
        "prime",
        "and",
        "or",
        "max",
        "min",
        "argmax",
        "argmin",
        "Pr",
    ]
)
_BETWEEN = frozenset(
    "\\cdot \\times \\div \\cup \\cap \\setminus \\pm \\mp \\rfloor \\rceil \\over \\choose \\pmod".split()  # noqa: SIM905
)
_NO_UNIT = re.compile(
    r"(?<![\^a-zA-Z\d-])\d|\b(?:or|more|less|than|least|most|not|no|between|to|only|if|when|where|for|except|about|if)\b",
    re.IGNORECASE,
)
_CLOSING = {"(": (")", "]"), "[": ("]", ")")}
_DEEPEST = 60


class Unreadable(Exception):
    """The string cannot be read whole; the message says where it stopped."""


def number(value: int | str) -> Node:
    """An exact number, or a decimal if it is written with a point."""
    text = str(value)
    return ("number", Fraction(text), len(text.partition(".")[2]) if "." in text else None)


def tokens(text: str) -> list[str]:
    """The tokens of a normal form; blanks only separate."""
    return [match.group() for match in _TOKEN.finditer(text)]


def read(text: str) -> Node:
    """The expression that a normal form stands for.

    Raises:
        Unreadable: if any part of it stands for nothing known.
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


class _Parser:
    """One pass over tokens; `self.at` is the next one."""

    def __init__(self, found: list[str]) -> None:
        self.found, self.at, self.bars, self.depth = found, 0, 0, 0

    # Tokens

    def next(self, ahead: int = 0) -> str:
        return self.found[self.at + ahead] if self.at + ahead < len(self.found) else ""

    def take(self, *wanted: str) -> str:
        token = self.next()
        if token and token in wanted:
            self.at += 1
            return token
        return ""

    def need(self, *wanted: str) -> str:
        token = self.take(*wanted)
        if not token:
            raise Unreadable(f"{' or '.join(wanted)} wanted, found {self.next()[:20] or 'the end'!r}")
        return token

    # Lists

    def answer(self) -> Node:
        if not self.found:
            raise Unreadable("empty")
        node = self.over(self.items(""), "")
        if self.next():
            raise Unreadable(f"stops at {''.join(self.found[self.at :])[:30]!r}")
        return node

    def items(self, *closing: str) -> Node:
        """Parts between commas, semicolons, "and", "or"; one part stands for itself."""
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

    # Relations

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
            elif token in _OPERATORS:
                self.at += 1
                operators.append(_OPERATORS[token])
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

    # Arithmetic

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
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
        """A unit in words after the value."""
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

    def braced_words(self) -> str:
        if not self.take("{"):
            token = self.next()
            self.at += 1
            return token
        words = []
        while self.next() and self.next() != "}":
            words.append(self.next())
            self.at += 1
        self.need("}")
        return "".join(words)

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
        """Factors that stand side by side."""
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
        if not token or token in _OPERATORS:
            return False
        if token == "|":
            return self.bars == 0
        if token[0].isalnum() or token in ("(", "[", "{", "\\{", "."):
            return True
        if token.startswith(("\\begin", "\\text")):
            return token.startswith("\\begin")
        if token[0] == "\\" and token[1].isalpha():
            return token not in _BETWEEN and not token.startswith("\\end")
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
        r"""The minutes of an angle: `18^\circ 30'`."""
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

    def argument(self) -> Node:
        r"""What `^`, `\frac` or `\sqrt` takes: a group, or one token."""
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
        self.need("{")
        bars, self.bars = self.bars, 0
        node = self.over(self.items("}"), "}")
        self.need("}")
        self.bars = bars
        return node

    def over(self, top: Node, closing: str) -> Node:
        r"""`{a \over b}` and `{a \choose b}`."""
        operator = self.take("\\over", "\\choose")
        if not operator:
            return top
        bottom = self.items(closing)
        return ("/", top, bottom) if operator == "\\over" else ("function", "binomial", (top, bottom))

    # Atoms

    def atom(self) -> Node:
        token = self.next()
        if not token:
            raise Unreadable("ends too early")
        self.depth += 1
        if self.depth > _DEEPEST:
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
        if token.startswith("\\text{") and (self.next(1) in _OPERATORS or self.next(1) == "_"):
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
        return ("function", "abs", (inner,))

    def numeral(self, token: str) -> Node:
        self.at += 1
        if self.next() == "." and self.next(1) not in (".",):
            # `5.` before an operator, as in -1./3.
            self.at += 1
        if self.next() == "_" and token.isdigit():
            base = self.base()
            return ("based", token.lstrip("0") or "0", base)
        return number(token)

    def base(self) -> int:
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

    def subscript(self) -> str:
        self.need("_")
        if self.next() == "{":
            at = self.at
            words = self.braced_words()
            if not words:
                raise Unreadable(f"an empty subscript at {at}")
        else:
            words = self.next()
            self.at += 1
        words = re.sub(r"\\text\{([^{}]*)\}", r"\1", words)
        return "_" + re.sub(r"[\\{}\s]", "", words)

    def letter(self, token: str) -> Node:
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
        """A symbol, or an unknown function of what stands in parentheses after it."""
        primes = ""
        while self.next() == "'":
            primes += "'"
            self.at += 1
        name += primes
        if self.next() != "(":
            return ("symbol", name)
        known = name.split("_")[0].rstrip("'") in _UNKNOWN_FUNCTIONS
        end = self.found.index(")", self.at) if ")" in self.found[self.at :] else self.at
        inside = self.found[self.at + 1 : end]
        simple = len(inside) == 1 and (inside[0].isalnum() or inside[0][1:] in _GREEK)
        several = "," in inside and "(" not in inside
        if not known and not (simple and (primes or name[0] in "PQRSTpqrsuvyxz" or name[0] == "\\")) and not several:
            return ("symbol", name)
        self.need("(")
        node = self.items(")")
        self.need(")")
        return ("apply", name, node[1] if node[0] == "list" else (node,))

    def bracket(self, opening: str) -> Node:
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
        r"""How many tokens begin `\{x | ...\}` or `\{x \in \mathbb{R} | ...\}` here; 0 for another set."""
        if not (self.next().isalpha() and len(self.next()) == 1):
            return 0
        if self.next(1) in ("|", ":"):
            return 2
        reals = ["\\in", "\\mathbb", "{", "R", "}"]
        if self.found[self.at + 1 : self.at + 6] == reals and self.next(6) in ("|", ":", ","):
            return 7
        return 0

    def matrix(self) -> Node:
        name = re.sub(r"\\begin\s*\{|\}", "", self.next()).rstrip("*")
        if name not in _MATRICES:
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
        if name in _SEVERAL_ARGUMENTS:
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
        if name in _ACCENTS:
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
        if name in _GREEK:
            self.at += 1
            return self.named(f"\\{name}" + (self.subscript() if self.next() == "_" else ""))
        if name in _STRUCTURE or self.next(1) == "{":
            raise Unreadable(f"\\{name} stands for nothing known here")
        # An unknown symbol, equal to itself only.
        self.at += 1
        return self.named(f"\\{name}" + (self.subscript() if self.next() == "_" else ""))

    def argument_whole(self) -> Node:
        return self.group()

    def root(self) -> Node:
        self.at += 1
        order: Node = number(2)
        if self.take("["):
            order = self.sum()
            self.need("]")
        inner = self.bracket("(") if self.next() == "(" else self.argument()
        return ("function", "root", (inner, order))

    def repeating(self) -> Node:
        self.at += 1
        head = self.braced_words()
        again = self.braced_words()
        after = head.partition(".")[2]
        value = Fraction(head.rstrip(".") or "0") + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(after))
        return ("number", value, None)

    def function(self, name: str) -> Node:
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
        """The argument of a function without parentheses: factors up to the next function, bracket or operator."""
        sign = self.take("-", "+")
        parts = [self.power()]
        while (
            self.starts_factor() and self.next() not in ("(", "[", "\\{") and self.next().lstrip("\\") not in FUNCTIONS
        ):
            parts.append(self.power())
        node: Node = parts[0] if len(parts) == 1 else ("*", tuple(parts))
        return ("-", node) if sign == "-" else node

    def series(self, name: str) -> Node:
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


_ARITHMETIC = frozenset(("+", "*", "/", "^", "-", "pm", "mp", "function", "percent", "degree", "sum", "prod"))
_COLLECTIONS = frozenset(("tuple", "set", "list", "groups", "relation", "mod", "cup", "cap", "setminus", "numbers", "clock", "ratio", "unit"))  # fmt: skip


def _check(node: Any, inside: bool) -> None:
    """Collections have no place inside arithmetic: `t(0, 4]` is no product.

    Raises:
        Unreadable: if one has.
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
    r"""`3\frac{1}{5}` is a mixed number."""
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


def walk(node: Any) -> Any:
    """Every expression in an expression, itself first."""
    if isinstance(node, tuple):
        if node and isinstance(node[0], str):
            yield node
        for item in node:
            yield from walk(item)


def symbols(node: Node) -> set[str]:
    """The names of the symbols and unknown functions in it."""
    return {
        item[1] for item in walk(node) if item[0] in ("symbol", "apply") and len(item) > 1 and isinstance(item[1], str)
    }
