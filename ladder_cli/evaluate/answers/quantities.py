r"""Gives numbers and the units after them one spelling: thousands, repeating decimals, powers of ten, bases, units."""

import re

from ladder_cli.evaluate.answers.latex_commands import outside_texts

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
_ORDINAL = re.compile(r"(?<=\d)\s*(?:\^\s*\{?\s*)?\\(?:text|textsuperscript|mathrm|textrm)\{(?:st|nd|rd|th)\}\s*\}?")
_PERCENT = re.compile(r"(?<![a-zA-Z\\])(?:percent(?:age)?|per cent|pct)(?![a-zA-Z])")
_DEGREES = re.compile(r"(?<=[\d}])\s*(?<![a-zA-Z\\])(?:degrees?|deg)(?![a-zA-Z])")

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
_ROMAN_UNIT = re.compile(r"(?<=[\d}])((?:\\[,;: !]|~|\s)*)\\(?:mathrm|rm)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_ROMAN = re.compile(rf"(?:{_UNIT_WORDS}|[mgsNJWVAKCLTh])(?:\^\{{?-?\d\}}?)?")


def grouped_by_braces(text: str) -> str:
    r"""Join `10{,}000` and `10\,000` to one number."""
    return _BRACED_GROUPS.sub(_without_separators, text)


def roman_quantities(text: str) -> str:
    r"""Resolve roman type after numbers: remove ordinals, read `1.5\mathrm{e}{-3}` as a power, units as words."""
    text = _ORDINAL.sub("", text)
    text = _ROMAN_SCIENTIFIC.sub(lambda m: f"e{m[1] or m[2] or m[3]}", text)
    return _ROMAN_UNIT.sub(_roman_unit, text)


def money(text: str) -> str:
    r"""Write an amount and nothing else, `\$5`, as `5\text{dollars}`."""
    amount = _MONEY.fullmatch(text)
    return f"{amount[1]}{amount[2]}\\text{{dollars}}" if amount else text


def bases(text: str) -> str:
    """Write every base as a subscript in digits: `101_{two}` and `101 in base 2` as `101_{2}`."""
    return _IN_BASE.sub(_base, _BASE_WORD.sub(_base, text))


def plain_numbers(text: str, thousands: bool) -> str:
    r"""Write every number with digits, `\repeating`, `\mixed` and powers of ten.

    Args:
        thousands: read a comma before three digits as a separator of thousands, if the whole text is one number.
    """
    text = _MAGNITUDE.sub(_magnitude, text)
    text = re.sub(r"\\text\{\s*\}", "", text)
    text = _REPEATING.sub(_repeating, text)
    if "..." in text or "\\ldots" in text:
        text = _DOTTED.sub(lambda m: f"\\repeating{{{m[1] if m[1][0] != '.' else '0' + m[1]}}}{{{m[2]}}}", text)
    text = _SCIENTIFIC.sub(lambda m: f"{m[1]}\\times10^{{{m[2].lstrip('+')}}}", text)
    if thousands and _one_number(text):
        text = _COMMA_GROUPS.sub(_without_separators, text)
    text = _SPACED_GROUPS.sub(_without_separators, text)
    return _MIXED.sub(r"\\mixed{\1}{\2}{\3}", text)


def percent_and_degrees(text: str) -> str:
    r"""Write `percent` as `\%` and `degrees` as `^\circ`."""
    return outside_texts(outside_texts(text, _PERCENT, r"\\%"), _DEGREES, r"^\\circ ")


def units_as_words(text: str, compound: bool) -> str:
    r"""Put the units after numbers into `\text{}`.

    Args:
        compound: read `m/s` after a number as a unit, though it could be variables.
    """
    text = outside_texts(text, _BARE_UNIT, lambda m: f"\\text{{{m[1].strip()}}}")
    return outside_texts(text, _COMPOUND, lambda m: f"\\text{{{m[1]}}}") if compound else text


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


def _one_number(text: str) -> bool:
    """Return whether the text has no list or tuple in which `1,234` could be two parts."""
    without = _COMMA_GROUPS.sub("0", text)
    return not re.search(r"[,;(\[]|\\\{|\\text\{(?:and|or)\}", without)


def _roman_unit(match: re.Match[str]) -> str:
    r"""Read letters in roman type after a number as a unit if they spell one: `5\,\mathrm{m\,s^{-1}}`."""
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
