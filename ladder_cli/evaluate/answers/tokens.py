"""Splits a normal form into tokens, and says what LaTeX's words among them are. Imports no torch."""

import re

from ladder_cli.evaluate.answers.nodes import Unreadable

_TOKEN = re.compile(
    r"(?P<number>\d+\.\d+|\d+|\.\d+)|(?P<text>\\text\{[^{}]*\})|(?P<environment>\\(?:begin|end)\s*\{[a-zA-Z]+\*?\})"
    r"|(?P<command>\\[a-zA-Z]+|\\.)|(?P<letter>[a-zA-Z])|(?P<sign>[^\s])"
)
GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi",
    "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "hbar", "ell", "partial", "nabla", "Re", "Im", "aleph", "star",
    "odot",
))  # fmt: skip
FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "sinh",
    "cosh", "tanh", "coth", "arcsinh", "arccosh", "arctanh", "ln", "log", "exp", "sgn", "sign", "floor", "ceil",
    "arsinh", "arcosh", "artanh", "lg", "erf",
))  # fmt: skip
SEVERAL_ARGUMENTS = frozenset(("gcd", "lcm", "max", "min"))
ACCENTS = frozenset((
    "vec", "hat", "bar", "tilde", "overline", "overrightarrow", "dot", "ddot", "widehat", "widetilde", "underbar",
    "overleftrightarrow", "overarc", "mathbb",
))  # fmt: skip
OPERATORS = {
    "=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\approx": "~", "\\in": "in",
    "\\notin": "notin", "\\equiv": "===", "\\sim": "~~", "\\subset": "subset", "\\subseteq": "subseteq",
    "\\mapsto": "mapsto",
    "\\rightarrow": "mapsto", "\\parallel": "parallel", "\\perp": "perp", "\\propto": "propto", "\\doteq": "~",
}  # fmt: skip
UNKNOWN_FUNCTIONS = frozenset("fghFGHW")
MATRICES = frozenset((
    "matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix", "array", "psmallmatrix",
    "bsmallmatrix",
))  # fmt: skip
STRUCTURE = frozenset((
    "int", "iint", "iiint", "oint", "lim", "limsup", "liminf", "sup", "inf", "det", "dim", "ker", "deg", "begin",
    "end", "left", "right", "overset", "underset", "stackrel", "text", "boxed", "hline", "not", "over", "choose",
    "atop", "cases", "rfloor", "rceil", "rightarrow", "Rightarrow", "Leftrightarrow", "implies", "therefore",
    "because", "ldots", "pmod", "bmod", "mod", "quad", "qquad", "circ", "cdot", "times", "div", "cup", "cap",
    "setminus", "pm", "mp", "in", "to", "le", "ge", "ne", "approx", "color", "substack", "forall", "exists",
    "textbf", "mathbb", "neg", "prime", "and", "or", "max", "min", "argmax", "argmin", "Pr",
))  # fmt: skip
BETWEEN = frozenset((
    "\\cdot", "\\times", "\\div", "\\cup", "\\cap", "\\setminus", "\\pm", "\\mp", "\\rfloor", "\\rceil", "\\over",
    "\\choose", "\\pmod",
))  # fmt: skip


def tokens(text: str) -> list[str]:
    """Split a normal form into tokens; blanks only separate."""
    return [match.group() for match in _TOKEN.finditer(text)]


class TokenReader:
    """One pass over tokens; `self.at` is the next one."""

    def __init__(self, found: list[str]) -> None:
        self.found, self.at, self.bars, self.depth = found, 0, 0, 0

    def next(self, ahead: int = 0) -> str:
        """Return the next token, or the one so many after it; empty at the end."""
        return self.found[self.at + ahead] if self.at + ahead < len(self.found) else ""

    def take(self, *wanted: str) -> str:
        """Use up and return the next token if it is one of these; else return nothing."""
        token = self.next()
        if token and token in wanted:
            self.at += 1
            return token
        return ""

    def need(self, *wanted: str) -> str:
        """Use up the next token, which must be one of these."""
        token = self.take(*wanted)
        if not token:
            raise Unreadable(f"{' or '.join(wanted)} wanted, found {self.next()[:20] or 'the end'!r}")
        return token

    def braced_words(self) -> str:
        """Return a group in braces as it is written."""
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

    def subscript(self) -> str:
        """Read the subscript as part of a name."""
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
