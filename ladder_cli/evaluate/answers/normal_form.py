r"""One spelling for what LaTeX, Unicode and plain text spell in many ways. Imports no torch, nothing of this project.

`normal_form` takes an answer as it was written and returns the string that `expression.py` reads: braces and commands
that only change the look are gone, characters are commands, words stand in `\text{}`, numbers are plain. It never
drops a letter that could be a variable, and never makes a number out of a tuple or a list.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

# Longer strings are no answers that anybody could read: only their blanks are taken out.
LONGEST = 1500

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True))
_GREEK = {
    **dict(
        zip(
            "αβγδεζηθικλμνξπρστυφχψω",
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
                "pi",
                "rho",
                "sigma",
                "tau",
                "upsilon",
                "phi",
                "chi",
                "psi",
                "omega",
            ],
            strict=True,
        )
    ),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(), strict=True)),  # noqa: SIM905
    "ϕ": "phi",
    "ϵ": "epsilon",
    "ϑ": "theta",
    "µ": "mu",
}
_CHARACTERS = {
    **{character: f"\\{name} " for character, name in _GREEK.items()},
    **dict.fromkeys("−–—‐‑‒﹣－", "-"),
    **dict.fromkeys("×✕✖", "\\times "),
    **dict.fromkeys("·⋅∙•", "\\cdot "),
    **dict.fromkeys("“”„‟", '"'),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("°˚º", "^\\circ "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062", ""),
    "÷": "\\div ",
    "∕": "/",
    "⁄": "/",
    "≤": "\\le ",
    "⩽": "\\le ",
    "≥": "\\ge ",
    "⩾": "\\ge ",
    "≠": "\\ne ",
    "≈": "\\approx ",
    "≅": "\\approx ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "∞": "\\infty ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∖": "\\setminus ",
    "∈": "\\in ",
    "∅": "\\emptyset ",
    "⌀": "\\emptyset ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℕ": "\\mathbb{N}",
    "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}",
    "∠": "\\angle ",
    "△": "\\triangle ",
    "⌊": "\\lfloor ",
    "⌋": "\\rfloor ",
    "⌈": "\\lceil ",
    "⌉": "\\rceil ",
    "⟨": "\\langle ",
    "⟩": "\\rangle ",
    "…": "\\ldots ",
    "∑": "\\sum ",
    "∏": "\\prod ",
    "∫": "\\int ",
    "∨": "\\lor ",
    "∧": "\\land ",
    "′": "'",
    "″": "''",
    "ħ": "\\hbar ",
    "ℓ": "\\ell ",
    "∂": "\\partial ",
    "¢": "\\text{cents}",
    "€": "\\text{euros}",
    "£": "\\text{pounds}",
    "¥": "\\text{yen}",
    "₹": "\\text{rupees}",
    "、": ",",
    "，": ",",
    "；": ";",
    "：": ":",
    "。": ".",
    "（": "(",
    "）": ")",
    "【": "[",
    "】": "]",
}
_TRANSLATION = str.maketrans(_CHARACTERS)

_FONTS = (
    "mathrm|mathbf|mathit|mathsf|mathtt|mathcal|mathscr|mathfrak|mathnormal|boldsymbol|bm|symbf|mathop|mathord|mathbin"
    "|mathrel|ensuremath|pmb|bf|rm|it|underline|uline|emph|mathstrut|smash"
)
_TEXTS = "text|textbf|textit|textrm|textnormal|textsf|texttt|textup|textsc|textmd|mbox|hbox|operatorname\\*?"
_SIZES = re.compile(
    r"\\(?:m?left|m?right|middle|[bB]ig{1,2}[lrm]?|bigm|displaystyle|textstyle|scriptstyle|limits|"
    r"nolimits|"
                    r"nonumber|strut|mathstrut|allowbreak|boldmath|normalsize|Large|large|small|Huge|huge|relax|"
                    r"par|noindent|centering|hfill|qed|blacksquare|square|checkmark)(?![a-zA-Z])\.?")  # fmt: skip
_SPACES = re.compile(
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

# Units that are written without \text and can hardly be a product of variables.
_UNIT_WORDS = (
    "kilomet(?:er|re)s?|centimet(?:er|re)s?|millimet(?:er|re)s?|met(?:er|re)s?|miles?|feet|foot|inch(?:es)?|yards?"
    r"|seconds?|secs?|minutes?|mins?|hours?|(?<=[\d/])hrs?|(?<=[\d/r]\s)hrs?|days?|weeks?|months?|years?"
    "|degrees?|radians?|rad|dollars?|cents?|euros?"
    "|pounds?|grams?|kilograms?|lit(?:er|re)s?|gallons?|units?|percent(?:age)?|pct|square|cubic|sq|mph|kmh|kph|km|cm|mm|nm"
    "|dm|kg|mg|ml|mL|ft|yd|lbs?|oz|Hz|kHz|MHz|GHz|eV|keV|MeV|GeV|kJ|mol|dollars|USD|EUR|people|ways|times|points?|deg|amu"
    "|erg|ergs|Pa|kPa|kW|rpm|gal|pm|am"
)
_UNIT = rf"(?:{_UNIT_WORDS})(?:\s*\^\s*(?:\{{-?\d\}}|-?\d))?"
_BARE_UNIT = re.compile(
    rf"(?:(?<=[\d}})!])|(?<=\s))\s*((?<![a-zA-Z\\])(?:square |cubic |sq\.? )?{_UNIT}(?:\s*(?:/|per|\*|\\cdot)\s*"
    rf"(?:{_UNIT}|[smh](?:\^\{{?\d\}}?)?))*)(?![a-zA-Z(_^])"
)
_COMPOUND = re.compile(
    r"(?<=\d)\s*((?:[kcm]?m|mi|ft|[kmc]?g|N|J|W|V|A|C|L)\s*(?:/|\\cdot)\s*(?:hr?|s|min|sec|m|[kc]?m|kg|K|mol|C)"
    r"(?:\s*\^\s*\{?\d\}?)?)\s*(?=$|[,;])"
)
_WORDS_AFTER_NUMBER = re.compile(
    r"(?<=[\d}])\s+([a-zA-Z]{3,}(?:[ -]+[a-zA-Z]{2,})*)\.?(?=\s*(?:$|[,;]|\\text\{(?:and|or)\}))"
)
_LONG_WORD = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z]{5,}(?:[ '-]+[a-zA-Z]+)*)(?![a-zA-Z])")
_AND_OR = re.compile(r"(?<![a-zA-Z\\{])(and|or)(?![a-zA-Z}])")

_FRACTION_CHARACTER = re.compile("[¼-¾⅐-⅞↉]")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot|overbar)\s*\{?\s*(\d+)\s*\}?(?:\s*\\dot\s*\{?(\d)\}?)?")
_DOTTED = re.compile(r"(?<![\d.])(\d*\.\d*?)(\d{2,6}(?=(?:\d+))|\d)(?:(?<=\d\d)\2|\2\2)\2*\s*(?:\\ldots|\.\.\.+)")
_SCIENTIFIC = re.compile(r"(?<![a-zA-Z\\\d.])(\d+\.?\d*|\.\d+)\s*[eE]\s*([+-]?\d+)(?![\d.a-zA-Z])")
# 1.5\mathrm{e}{-3}, 1.5\text{e-3}.
_ROMAN_SCIENTIFIC = re.compile(
    r"(?<=\d)\s*\\(?:mathrm|text|textrm|rm)\s*\{\s*[eE]\s*(?:\}\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]\d+))|"
    r"([+-]?\d+)\s*\})"
)
_MONEY = re.compile(r"(-?)\\\$\s*(-?\d[\d.,]*(?:(?:\{,\}|\\,|,\\!)\d{3})*)")
_GROUPED = r"\d{{1,3}}(?:{0}\d{{3}})+(?![\d])"
_BRACED_GROUPS = re.compile(r"(?<![\d.])" + _GROUPED.format(r"(?:\s*\{\s*,\s*\}\s*|,\s*\\!\s*|\\!\s*,?\s*|\\,)"))
_SPACED_GROUPS = re.compile(r"(?<![\d.,] )(?<![\d.,_^])" + _GROUPED.format(" ") + r"(?!\s*[/.]?\d)(?! \d)")
_COMMA_GROUPS = re.compile(r"(?<![\d.,_^])" + _GROUPED.format(",") + r"(?!,\d)")
_MIXED = re.compile(r"(?<![\d.^_,/*}] )(?<![\d.^_/*}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.]|\s*\^)")
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MAGNITUDE = re.compile(
    r"(?<=[\d}])\s*(?:\\text\{\s*(hundred|thousand|million|billion|trillion)\b\s*|\b(hundred|thousand|"
    r"million|billion|trillion)\b)"
)
_DIGITS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
           "twelve": 12, "sixteen": 16, "binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16}  # fmt: skip
_BASE_WORD = re.compile(
    rf"_\{{?\s*\\text\{{\s*(?:base[ -]*)?({'|'.join(_DIGITS)}|\d+)\s*\}}\s*\}}?|"
    rf"_\{{\s*(?:base\s*)?({'|'.join(_DIGITS)}|(?<=base )\d+|(?<=base)\d+)\s*\}}|"
    rf"_({'|'.join(_DIGITS)})(?![a-z])"
)
_IN_BASE = re.compile(
    rf"(?<=\d)\s*\\text\{{\s*(?:\(|in\s+)?base[ -]*({'|'.join(_DIGITS)}|\d+)\s*\)?\s*\}}|"
    rf"(?<=\d)\s+(?:in )?base ({'|'.join(_DIGITS)}|\d+)"
)


# What `\frac`, `\boxed`, `\alpha`, `\vec`, `\text` become where a string was unescaped once too often.
_UNESCAPED = {"\x0c": "\\f", "\x08": "\\b", "\x07": "\\a", "\x0b": "\\v"}


def mended(text: str) -> str:
    """With the commands whose backslash and first letter have become a control character, and without others."""
    if text.isprintable():
        return text
    text = re.sub(r"[\x07\x08\x0b\x0c](?=[a-z])", lambda m: _UNESCAPED[m[0]], text)
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", text)
    return re.sub(r"\t(?=ext(?:bf|it|rm)?\{|imes(?![a-z])|heta(?![a-z])|frac(?![a-z])|an(?![a-z]))", r"\\t", text)


def closing_brace(text: str, opened: int) -> int:
    """The index of the brace that closes the one at `opened`; -1 if none does. Escaped braces do not count."""
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


def rewrite_command(text: str, names: str, rewrite: "re.Pattern[str] | None" = None, keep: bool = True) -> str:
    r"""Take `\name{content}` away, leaving the content (or nothing, unless `keep`)."""
    pattern = re.compile(rf"\\(?:{names})\s*(?=\{{)")
    while True:
        match = pattern.search(text)
        if match is None:
            return text
        end = closing_brace(text, match.end())
        if end < 0:
            return text[: match.start()] + text[match.end() :]
        content = text[match.end() + 1 : end] if keep else ""
        text = f"{text[: match.start()]}{content}{text[end + 1 :]}"


def _unicode(text: str) -> str:
    text = _FRACTION_CHARACTER.sub(_fraction_character, text)
    text = re.sub(
        f"[{''.join(_SUPERSCRIPTS)}]+", lambda m: f"^{{{''.join(map(_SUPERSCRIPTS.__getitem__, m[0]))}}}", text
    )
    text = re.sub(f"[{''.join(_SUBSCRIPTS)}]+", lambda m: f"_{{{''.join(map(_SUBSCRIPTS.__getitem__, m[0]))}}}", text)
    text = re.sub(r"([√∛∜])\s*(\(|\d+(?:\.\d+)?|[a-zA-Z]|\{)?", _root, text)
    text = text.translate(_TRANSLATION)
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_TRANSLATION)


def _fraction_character(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _root(match: re.Match[str]) -> str:
    order = {"√": "", "∛": "[3]", "∜": "[4]"}[match[1]]
    argument = match[2] or ""
    return f"\\sqrt{order}{argument if argument in ('(', '{', '') else f'{{{argument}}}'}"


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
    r"""What stands for a text command: a separator, its content where that is mathematics, or `\text{words}`."""
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


def _outside_texts(text: str, change: "re.Pattern[str]", by: "str | object") -> str:
    r"""Substitute outside of `\text{}`."""
    parts = re.split(r"(\\text\{[^{}]*\}(?:\^\{?-?\d\}?)?|\\(?:begin|end)\{[a-zA-Z]+\*?\}(?:\{[clr|]+\})?)", text)
    return "".join(part if number % 2 else change.sub(by, part) for number, part in enumerate(parts))  # type: ignore[arg-type]


def _without_separators(match: re.Match[str]) -> str:
    return re.sub(r"\D", "", match[0])


def _repeating(match: re.Match[str]) -> str:
    return f"\\repeating{{{match[1] or '0'}.{match[2]}}}{{{match[3]}{match[4] or ''}}}"


def _base(match: re.Match[str]) -> str:
    word = next(group for group in match.groups() if group)
    return f"_{{{_DIGITS.get(word, word)}}}"


def _magnitude(match: re.Match[str]) -> str:
    word = match[1] or match[2]
    rest = "\\text{" if match[1] else ""
    return f"\\times10^{{{_MAGNITUDES[word]}}}{rest}"


_CHOSEN = re.compile(r"[_^]\s*\{?\s*\w+\s*\}?\s*\\?[a-z]*\{?[CP]\}?\s*_")


def trimmed(text: str) -> str:
    """Without the marks around an answer that say nothing: dollars, stars, blanks, a point or comma at the end."""
    while True:
        before = text
        text = text.strip()
        if not text.startswith("*") or text.startswith("**"):
            text = text.strip("*`").rstrip("_")
            # `_{10}C_3` begins with a subscript, `_so_` is set in italics.
            text = text if _CHOSEN.match(text) else text.lstrip("_")
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            if text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening) + len(closing):
                inner = text[len(opening) : -len(closing)]
                if opening not in inner and not inner.endswith("\\"):
                    text = inner
        if text.endswith("...") or text.endswith("\\ldots"):
            return text
        # A point, but no factorial, and not the space `\\,`.
        while (text.endswith((".", ",", ";", ":")) and text[-2:-1] != "\\") or text.endswith(".!"):
            text = text[:-1].rstrip()
        if re.search(r"\\[,;: !]$", text):
            text = text[:-2]
        if text == before:
            return text


@lru_cache(maxsize=8192)
def normal_form(text: str, thousands: bool = True, units: bool = False) -> str:
    """The normal form of an answer.

    Args:
        thousands: a comma before three digits separates thousands where the whole part is one number (`1,234`);
            otherwise it separates the parts of a list.
        units: read `m/s` after a number as a unit, though it could be variables.
    """
    if len(text) > LONGEST:
        return "".join(text.split())
    text = _unicode(mended(text))
    if "\\" in text and not re.search(r"\\begin|\\substack", text):
        text = re.sub(r"\\\\(?=[a-zA-Z{}%$,;:!])", r"\\", text)
    elif "matrix" in text or "array" in text:
        text = re.sub(r"(?<!\\)\\\\(?=(?:d|t|c)?frac|sqrt|boxed|left|right|begin|end|pi\b|cdot|text)", r"\\", text)
    text = re.sub(r"^(?:=|\\approx(?![a-z])|\\therefore(?![a-z])|\\implies|\\Rightarrow)\s*", "", trimmed(text))
    text = re.sub(
        r"\\(?:hspace|vspace|kern|hskip|label|tag|phantom|hphantom|vphantom|color|cellcolor)\*?\s*\{[^{}]*\}", "", text
    )
    text = re.sub(r"\\(?:textcolor|colorbox)\s*\{[^{}]*\}", "", text)
    text = re.sub(r"\\color\s+[a-z]+", "", text)
    text = re.sub(r"\\(q?quad|left|right)(?=[a-zA-Z](?![a-zA-Z]))", r"\\\1 ", text)
    text = _SIZES.sub("", text) if "\\" in text else text
    text = _BRACED_GROUPS.sub(_without_separators, text)
    text = re.sub(r"\\!|\\/", "", text)
    text = re.sub(r"\{\s*([,:;])\s*\}", r"\1", text)
    text = re.sub(r"\\\\\s*\[[^\]]*(?:pt|em|ex|mm|cm)\]|\\cr(?![a-zA-Z])", r"\\\\ ", text)
    text = re.sub(r"\^\s*\{?\s*\\degree\s*\}?|\\degree(?![a-zA-Z])", r"^\\circ ", text)
    text = re.sub(r"\\Bbb(?![a-zA-Z])", r"\\mathbb", text)
    text = re.sub(
        r"(?<=\d)\s*(?:\^\s*\{?\s*)?\\(?:text|textsuperscript|mathrm|textrm)\{(?:st|nd|rd|th)\}\s*\}?", "", text
    )
    text = _ROMAN_SCIENTIFIC.sub(lambda m: f"e{m[1] or m[2] or m[3]}", text)
    text = _ROMAN_UNIT.sub(_roman_unit, text)
    money = _MONEY.fullmatch(text)
    if money:
        text = f"{money[1]}{money[2]}\\text{{dollars}}"
    if "\\" in text:
        text = rewrite_command(text, f"(?:{_FONTS})")
        text = re.sub(r"\{\\(?:rm|bf|it)\s+([^{}]*)\}", r"\1", text)
        text = re.sub(rf"\\(?:{_FONTS})(?![a-zA-Z])\s*(?=[a-zA-Z0-9\\])", "", text)
        text = re.sub(r"\\mathbb\s+([A-Z])", r"\\mathbb{\1}", text)
        text = _COMMAND.sub(_synonym, text)
        text = _texts(text)
    text = re.sub(r"\\\$|\$", "", text)
    text = _rewritten(text)
    text = _BASE_WORD.sub(_base, text)
    text = _IN_BASE.sub(_base, text)
    text = _SPACES.sub(" ", text).strip()
    text = trimmed(text)
    text = _MAGNITUDE.sub(_magnitude, text)
    text = re.sub(r"\\text\{\s*\}", "", text)
    text = _REPEATING.sub(_repeating, text)
    if "..." in text or "\\ldots" in text:
        text = _DOTTED.sub(lambda m: f"\\repeating{{{m[1] if m[1][0] != '.' else '0' + m[1]}}}{{{m[2]}}}", text)
    text = _SCIENTIFIC.sub(lambda m: f"{m[1]}\\times10^{{{m[2].lstrip('+')}}}", text)
    if thousands:
        text = _COMMA_GROUPS.sub(_without_separators, text) if _one_number(text) else text
    text = _SPACED_GROUPS.sub(_without_separators, text)
    text = _MIXED.sub(r"\\mixed{\1}{\2}{\3}", text)
    text = _outside_texts(text, re.compile(r"(?<![a-zA-Z\\])(?:percent(?:age)?|per cent|pct)(?![a-zA-Z])"), r"\\%")
    text = _outside_texts(text, re.compile(r"(?<=[\d}])\s*(?<![a-zA-Z\\])(?:degrees?|deg)(?![a-zA-Z])"), r"^\\circ ")
    text = _outside_texts(text, _AND_OR, r"\\text{\1}")
    text = _outside_texts(text, re.compile(r"(?<=[\d)\]}])(and|or)(?=[(\[\\\d]|[a-zA-Z]\w*\s*(?:\(|=))"), r"\\text{\1}")
    text = _outside_texts(text, _NAME_BEFORE_ARGUMENT, lambda m: f"\\{m[1]}")
    text = _outside_texts(text, _BARE_NAME, lambda m: f"\\{_RENAMED.get(m[1], m[1])} ")
    text = _outside_texts(text, _BARE_UNIT, lambda m: f"\\text{{{m[1].strip()}}}")
    if units:
        text = _outside_texts(text, _COMPOUND, lambda m: f"\\text{{{m[1]}}}")
    text = _outside_texts(text, _WORDS_AFTER_NUMBER, _as_words)
    text = _outside_texts(text, _LONG_WORD, _as_words)
    return trimmed(text)


_ROMAN_UNIT = re.compile(r"(?<=[\d}])((?:\\[,;: !]|~|\s)*)\\(?:mathrm|rm)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_ROMAN = re.compile(rf"(?:{_UNIT_WORDS}|[mgsNJWVAKCLTh])(?:\^\{{?-?\d\}}?)?")


def _roman_unit(match: re.Match[str]) -> str:
    r"""`5\,\mathrm{m\,s^{-1}}`: letters in roman type after a number are a unit if they spell one."""
    inner = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", match[2].strip())
    words = re.split(r"((?:\\[,;: !.]|~|\s|\\cdot(?![a-z])|/)+)", inner)
    if not all(map(_ROMAN.fullmatch, words[::2])):
        return match[0]
    above: list[str] = []
    below: list[str] = []
    divided = False
    for word, joint in zip(words[::2], ["", *words[1::2]], strict=True):
        divided = divided or "/" in joint
        plain = re.sub("[{}]", "", word)
        (below if divided != ("^-" in plain) else above).append(plain.replace("^-1", "").replace("^-", "^"))
    return f"\\text{{{' '.join(above)}{'/' if below else ''}{' '.join(below)}}}"


_WHOLE_TEXTS = {
    **{
        word: str(value)
        for value, word in enumerate(
            [
                "zero",
                "one",
                "two",
                "three",
                "four",
                "five",
                "six",
                "seven",
                "eight",
                "nine",
                "ten",
                "eleven",
                "twelve",
                "thirteen",
                "fourteen",
                "fifteen",
                "sixteen",
                "seventeen",
                "eighteen",
                "nineteen",
                "twenty",
            ]
        )
    },
    **dict.fromkeys(("empty set", "the empty set"), "\\emptyset "),
    **dict.fromkeys(
        ("all real numbers", "all reals", "all real numbers x", "the set of all real numbers", "the real numbers"),
        "\\mathbb{R}",
    ),
    **dict.fromkeys(("infinity", "infinitely many", "infinite"), "\\infty "),
    **dict.fromkeys(
        ("no solutions", "no real solutions", "no real solution", "there is no solution", "there are no solutions"),
        "\\text{no solution}",
    ),
    **dict.fromkeys(("does not exist", "dne"), "\\text{undefined}"),
}


def _chosen(match: re.Match[str]) -> str:
    """C with ten below and three above is how many ways there are to choose three of ten."""
    first, second = match[1] or match[2], match[3] or match[4]
    of, chosen = max(int(first), int(second)), min(int(first), int(second))
    below = first if match[0].replace(" ", "")[1] == "_" else second
    return f"\\binom{{{of}}}{{{chosen}}}" if of >= 3 and int(below) == of else match[0]


def _unit_fraction(match: re.Match[str]) -> str:
    return match[1] or f"\\text{{{match[2].strip()}/{match[3].strip()}}}"


_REWRITES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"^\\text\{\s*(?i:(?:the |my )?(?:final |correct )?(?:answer|result)(?: is)?)\s*[:=]?\s*\}\s*[:=]?", ""),
        (r"^(?i:(?:the |my )?(?:final |correct )?answer(?: is)?)\s*[:=]?\s*(?![a-zA-Z])", ""),
        (r"^(?:USD|US|Rs\.?|EUR|INR|CAD|HK|NT)\s*(?=\d)", ""),
        (r"(?<=[\w)}])\*\*\s*(-?\d+)", r"^{\1}"),
        (r"(?<=[\w)}])\*\*\s*(?=[a-zA-Z({])", "^"),
        (r"(?<=[\w)}])\^\s*(-\d+)", r"^{\1}"),
        (r"(?<=[)\]}])\s*U\s*(?=[(\[\\])", r"\\cup "),
        (r"(\\mathbb\{R\})\s*(?:-|\\setminus|/)\s*(?=\\?\{)", r"\1\\setminus "),
        (r"\(\s*(?:\\bmod|\\mod|\\pmod|\\text\{\s*mod\s*\}|mod)\s*\{?(\d+|[a-z])\}?\s*\)", r"\\pmod{\1}"),
        (r"\\pmod\s*(\d+|[a-z])", r"\\pmod{\1}"),
        (r"(?:\\mod|\\bmod|\bmod|\\text\{\s*mod\s*\})\s*\{?(\d+)\}?\s*$", r"\\pmod{\1}"),
        (r"(?:\{\s*\})?[_^]\s*\{?\s*(\w+)\s*\}?\s*(C|P)\s*_\s*\{?\s*(\w+)\s*\}?", r"\2(\1,\3)"),
        (r"(?<![a-zA-Z\\])C\s*_\s*(?:\{(\d+)\}|(\d))\s*\^\s*(?:\{(\d+)\}|(\d))(?!\d)", _chosen),
        (r"(?<![a-zA-Z\\])C\s*\^\s*(?:\{(\d+)\}|(\d))\s*_\s*(?:\{(\d+)\}|(\d))(?!\d)", _chosen),
        (r"(\\text\{[^{}]*\})|\\frac\s*\{\s*\\text\{([^{}]*)\}\s*\}\s*\{\s*\\text\{([^{}]*)\}\s*\}", _unit_fraction),
        (r"(\d*\.\d*)\((\d{1,8})\)(?:\.\.\.)?$", r"\1\\overline{\2}"),
        (r"(?<=\d)\s*_\s*\{?\s*\((\d+)\)\s*\}?", r"_{\1}"),
        (r"(?<=\d)\s*\\text\{\s*(?:in )?base\s*\}\s*(\d+)", r"_{\1}"),
        (r"(?:,|\s)*\\text\{\s*for (?:all|any|every|each)\b[^{}]*\}.*$", ""),
        (r"(?<=[\w)}])(?:,|\s|\\quad)*\\forall.*$", ""),
        (r"^([a-zA-Z])\s*:\s*([a-zA-Z])\s*\\(?:mapsto|rightarrow)", r"\1(\2)="),
        (r"^\]([^\[\]]+,[^\[\]]+)\[$", r"(\1)"),
        (r"^\]([^\[\]]+,[^\[\]]+)\]$", r"(\1]"),
        (r"^\[([^\[\]]+,[^\[\]]+)\[$", r"[\1)"),
    )
]


def _rewritten(text: str) -> str:
    """Spellings of one thing that are no LaTeX, or LaTeX of another kind."""
    words = re.sub(r"^\\text\{\s*([^{}]*?)\s*\}$", r"\1", text).strip(" .").lower()
    if words in _WHOLE_TEXTS:
        return _WHOLE_TEXTS[words]
    for pattern, by in _REWRITES:
        text = pattern.sub(by, text)
    return text


def _as_words(match: re.Match[str]) -> str:
    r"""Words as `\text{words}`; letters that spell no word, or stand in the order of the alphabet, are variables."""
    words = match[1].split()
    if len(words) == 1 and (
        len(words[0]) < 4 or not re.search("[aeiouy]", words[0]) or list(words[0]) == sorted(words[0])
    ):
        return match[0]
    return f"\\text{{{match[1]}}}"


def _one_number(text: str) -> bool:
    """Is there no list or tuple in which `1,234` could be two parts?"""
    without = _COMMA_GROUPS.sub("0", text)
    return not re.search(r"[,;(\[]|\\\{|\\text\{(?:and|or)\}", without)


def squeezed(text: str) -> str:
    """The string that is compared where an answer cannot be read: its normal form without blanks."""
    text = normal_form(text)
    if len(text) > LONGEST:
        return text
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\{(\w)\}", r"\1", text)
    text = re.sub(r"(?<=[a-zA-Z])\s+(?=[a-zA-Z])", "\x00", text)
    words = bool(re.fullmatch(r"[a-zA-Z\s\x00'.,-]{2,}", text))
    text = re.sub(r"[\s\"]+", "", text).replace("\x00", " " if not words else "")
    text = re.sub(r"\\([a-zA-Z]+) ", r"\\\1", text)
    return text.lower() if words else text
