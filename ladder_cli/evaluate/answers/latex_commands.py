r"""Gives LaTeX commands that mean the same one spelling. Imports nothing of this project."""

import re

_FONTS = (
    "mathrm|mathbf|mathit|mathsf|mathtt|mathcal|mathscr|mathfrak|mathnormal|boldsymbol|bm|symbf|mathop|mathord|mathbin"
    "|mathrel|ensuremath|pmb|bf|rm|it|underline|uline|emph|mathstrut|smash"
)
_FONT = re.compile(rf"\\(?:{_FONTS})\s*(?=\{{)")
_TEXTS = "text|textbf|textit|textrm|textnormal|textsf|texttt|textup|textsc|textmd|mbox|hbox|operatorname\\*?"
_SIZES = re.compile(
    r"\\(?:m?left|m?right|middle|[bB]ig{1,2}[lrm]?|bigm|displaystyle|textstyle|scriptstyle|limits|"
    r"nolimits|"
                    r"nonumber|strut|mathstrut|allowbreak|boldmath|normalsize|Large|large|small|Huge|huge|relax|"
                    r"par|noindent|centering|hfill|qed|blacksquare|square|checkmark)(?![a-zA-Z])\.?")  # fmt: skip
SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|enspace(?![a-zA-Z])|thinspace(?![a-zA-Z]))|"
    r"~|[\s\u00a0\u2000-\u200a\u202f\u205f\u3000]+"
)
_SYNONYMS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "nicefrac": "frac", "sfrac": "frac", "rac": "frac",
    "dbinom": "binom", "tbinom": "binom",
    "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "langle": "(", "rangle": ")", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "lVert": "\\|", "rVert": "\\|",
    "Vert": "\\|",
    "varnothing": "emptyset", "geqslant": "ge", "geqq": "ge", "geq": "ge", "leqslant": "le", "leqq": "le", "leq": "le",
    "gt": ">", "lt": "<", "neq": "ne", "simeq": "approx", "cong": "approx", "thickapprox": "approx",
    "approxeq": "approx",
    "ast": "cdot", "bullet": "cdot", "centerdot": "cdot", "colon": ":", "lor": "or", "vee": "or", "land": "and",
    "degree": "circ ", "varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "dots": "ldots", "cdots": "ldots",
    "dotsc": "ldots", "dotsb": "ldots", "infin": "infty", "arctg": "arctan", "tg": "tan", "ctg": "cot", "cotg": "cot",
    "imath": "i", "jmath": "j", "smallsetminus": "setminus", "backslash": "setminus", "lnot": "neg",
    "Reals": "mathbb{R}", "R": "mathbb{R}", "cent": "text{cents}", "euro": "text{euros}", "pounds": "text{pounds}",
    "percent": "%", "dollar": "$", "owns": "ni", "mathbb R": "mathbb{R}", "wedge": "and", "bigcup": "cup",
    "prime": "'", "iff": "Leftrightarrow", "to": "rightarrow", "equals": "=", "minus": "-", "plus": "+",
}  # fmt: skip
_PLAIN = frozenset("{}[]()|><:%$'=-+")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
# Words that are commands without their backslash.
_NAMES = (
    "arcsin|arccos|arctan|arccot|arcsec|arccsc|asin|acos|atan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm"
    "|sqrt|infinity|infty|inf|alpha|beta|gamma|delta|epsilon|theta|lambda|sigma|omega|phi|psi|rho|tau|pi|max|min"
)
_RENAMED = {"infinity": "infty", "inf": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_BARE_NAME = re.compile(rf"(?<![a-zA-Z\\])({_NAMES})(?![a-zA-Z])")
_NAME_BEFORE_ARGUMENT = re.compile(r"(?<![a-zA-Z\\])(sqrt|exp|sin|cos|tan|ln|log|pi)(?=[(\d{])")


def single_backslashes(text: str) -> str:
    r"""Put one backslash before each command of a text that was escaped once too often (`\\\\frac`)."""
    if "\\" in text and not re.search(r"\\begin|\\substack", text):
        return re.sub(r"\\\\(?=[a-zA-Z{}%$,;:!])", r"\\", text)
    if "matrix" in text or "array" in text:
        # Two backslashes end a row here, so only those before a known command are one too many.
        return re.sub(r"(?<!\\)\\\\(?=(?:d|t|c)?frac|sqrt|boxed|left|right|begin|end|pi\b|cdot|text)", r"\\", text)
    return text


def without_looks(text: str) -> str:
    r"""Remove commands that only change the look: spaces of a width, colours, labels, sizes, `\left`."""
    text = re.sub(
        r"\\(?:hspace|vspace|kern|hskip|label|tag|phantom|hphantom|vphantom|color|cellcolor)\*?\s*\{[^{}]*\}", "", text
    )
    text = re.sub(r"\\(?:textcolor|colorbox)\s*\{[^{}]*\}", "", text)
    text = re.sub(r"\\color\s+[a-z]+", "", text)
    text = re.sub(r"\\(q?quad|left|right)(?=[a-zA-Z](?![a-zA-Z]))", r"\\\1 ", text)
    return _SIZES.sub("", text) if "\\" in text else text


def one_spelling(text: str) -> str:
    r"""Leave one command for each meaning: no fonts, no synonyms, words only in `\text{}`."""
    if "\\" not in text:
        return text
    text = _without_fonts(text)
    text = re.sub(r"\{\\(?:rm|bf|it)\s+([^{}]*)\}", r"\1", text)
    text = re.sub(rf"\\(?:{_FONTS})(?![a-zA-Z])\s*(?=[a-zA-Z0-9\\])", "", text)
    text = re.sub(r"\\mathbb\s+([A-Z])", r"\\mathbb{\1}", text)
    return _texts(_COMMAND.sub(_synonym, text))


def named_functions(text: str) -> str:
    r"""Write `\sin` for `sin`, `\pi` for `pi`: give names their backslash."""
    text = outside_texts(text, _NAME_BEFORE_ARGUMENT, lambda m: f"\\{m[1]}")
    return outside_texts(text, _BARE_NAME, lambda m: f"\\{_RENAMED.get(m[1], m[1])} ")


def closing_brace(text: str, opened: int) -> int:
    """Return the index of the brace that closes the one at `opened`, or -1. Escaped braces do not count."""
    depth, index, end = 0, opened, len(text)
    while index < end:
        character = text[index]
        if character == "\\":
            index += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return index
        index += 1
    return -1


def _without_fonts(text: str) -> str:
    r"""Replace `\mathrm{content}` and its like by their content."""
    while True:
        match = _FONT.search(text)
        if match is None:
            return text
        end = closing_brace(text, match.end())
        if end < 0:
            return text[: match.start()] + text[match.end() :]
        text = f"{text[: match.start()]}{text[match.end() + 1 : end]}{text[end + 1 :]}"


def _synonym(match: re.Match[str]) -> str:
    other = _SYNONYMS.get(match[1])
    if other is None:
        return match[0]
    if other in ("{", "}"):
        return f"\\{other}"
    if other == "$":
        return "\\$"
    if other == "%":
        return "\\%"
    if other[0] == "\\" or other in _PLAIN or len(other) == 1:
        return other
    if other in ("and", "or"):
        return f"\\text{{{other}}}"
    return f"\\{other}"


def _text(content: str) -> str:
    r"""Return what replaces a text command: a separator, its content if that is mathematics, or `\text{words}`."""
    inner = " ".join(content.replace("\\ ", " ").replace("~", " ").replace("$", " ").split())
    bare = inner.strip(" ,.;:")
    if not bare:
        return inner if inner in (",", ";", ":") else " "
    lowered = bare.lower()
    if lowered in ("and", "or", "&", "and also", "or else", "and/or", "und", "et", "y", "oder"):
        return "\\text{or}" if lowered.startswith("or") else "\\text{and}"
    if lowered in ("percent", "per cent", "percentage", "pct"):
        return "\\%"
    if lowered in ("degrees", "degree", "deg"):
        return "^\\circ "
    if re.fullmatch(r"[^a-zA-Z]*", bare) or re.fullmatch(r"[-+]?[\d.,]+\s*[-+*/]?\s*[\d.,]*", bare):
        return f"{inner} "
    listed = re.fullmatch(r"(.*\d.*?),?\s+(and|or)\s+(.*\d.*)", bare)
    if listed and not re.search(r"[a-zA-Z]", listed[1] + listed[3]):
        return f" {listed[1]}\\text{{{listed[2]}}}{listed[3]} "
    unit = re.fullmatch(r"([-+]?\d[\d,.]*(?:/\d+)?)\s+([a-zA-Z].*)", bare)
    if unit:
        return f"{unit[1]}\\text{{{unit[2]}}}"
    if re.search(r"\\(?:frac|sqrt|pi|times|cdot)", bare):
        return f" {inner} "
    if "\\" not in inner:
        inner = inner.replace("{", "").replace("}", "")
    return f"\\text{{{inner}}}"


def _texts(text: str) -> str:
    pattern = re.compile(rf"\\(?:{_TEXTS})\s*\{{")
    out: list[str] = []
    position = 0
    while True:
        match = pattern.search(text, position)
        if match is None:
            return "".join(out) + text[position:]
        end = closing_brace(text, match.end() - 1)
        if end < 0:
            return "".join(out) + text[position : match.start()] + " " + text[match.end() :]
        name = match[0][1:].rstrip("{ ").rstrip("*")
        content = text[match.end() : end]
        out.append(text[position : match.start()])
        if name == "operatorname" or re.fullmatch(rf"\s*(?!max|min|sec|inf)(?:{_NAMES})\s*", content):
            stripped = content.strip()
            out.append(f"\\{_RENAMED.get(stripped, stripped)} " if stripped.isalpha() else f"\\text{{{content}}}")
        elif re.search(rf"\\(?:{_TEXTS})\s*\{{", content):
            out.append(_texts(content))
        else:
            out.append(_text(content))
        position = end + 1


def outside_texts(text: str, change: "re.Pattern[str]", by: "str | object") -> str:
    r"""Substitute outside of `\text{}`."""
    parts = re.split(r"(\\text\{[^{}]*\}(?:\^\{?-?\d\}?)?|\\(?:begin|end)\{[a-zA-Z]+\*?\}(?:\{[clr|]+\})?)", text)
    return "".join(part if number % 2 else change.sub(by, part) for number, part in enumerate(parts))  # type: ignore[arg-type]
