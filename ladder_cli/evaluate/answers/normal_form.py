r"""Gives one spelling to what LaTeX, Unicode and plain text spell in many ways. Imports no torch.

`normal_form` takes an answer as it was written and returns the string that `expression.py` reads: braces and commands
that only change the look are gone, characters are commands, words are in `\text{}`, numbers are plain. It never drops a
letter that could be a variable, and never makes a number of a tuple or a list. The steps are in `characters.py`,
`latex_commands.py` and `quantities.py`; this file has their order, and what concerns whole answers and words.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from ladder_cli.evaluate.answers.characters import in_commands, mended
from ladder_cli.evaluate.answers.latex_commands import (
    SPACES,
    named_functions,
    one_spelling,
    outside_texts,
    single_backslashes,
    without_looks,
)
from ladder_cli.evaluate.answers.quantities import (
    bases,
    grouped_by_braces,
    money,
    percent_and_degrees,
    plain_numbers,
    roman_quantities,
    units_as_words,
)

# No reader could make sense of longer answers: only their blanks are removed.
LONGEST = 1500

_WORDS_AFTER_NUMBER = re.compile(
    r"(?<=[\d}])\s+([a-zA-Z]{3,}(?:[ -]+[a-zA-Z]{2,})*)\.?(?=\s*(?:$|[,;]|\\text\{(?:and|or)\}))"
)
_LONG_WORD = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z]{5,}(?:[ '-]+[a-zA-Z]+)*)(?![a-zA-Z])")
_AND_OR = re.compile(r"(?<![a-zA-Z\\{])(and|or)(?![a-zA-Z}])")
_AND_OR_BETWEEN_VALUES = re.compile(r"(?<=[\d)\]}])(and|or)(?=[(\[\\\d]|[a-zA-Z]\w*\s*(?:\(|=))")
_CHOSEN = re.compile(r"[_^]\s*\{?\s*\w+\s*\}?\s*\\?[a-z]*\{?[CP]\}?\s*_")


def trimmed(text: str) -> str:
    """Remove the marks around an answer that mean nothing: dollars, stars, blanks, a point or comma at the end."""
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
    """Return the normal form of an answer.

    Args:
        thousands: read a comma before three digits as a separator of thousands, if the whole answer is one number
            (`1,234`); otherwise it separates the parts of a list.
        units: read `m/s` after a number as a unit, though it could be variables.
    """
    if len(text) > LONGEST:
        return "".join(text.split())
    text = single_backslashes(in_commands(mended(text)))
    text = re.sub(r"^(?:=|\\approx(?![a-z])|\\therefore(?![a-z])|\\implies|\\Rightarrow)\s*", "", trimmed(text))
    text = grouped_by_braces(without_looks(text))
    text = re.sub(r"\\!|\\/", "", text)
    text = re.sub(r"\{\s*([,:;])\s*\}", r"\1", text)
    text = re.sub(r"\\\\\s*\[[^\]]*(?:pt|em|ex|mm|cm)\]|\\cr(?![a-zA-Z])", r"\\\\ ", text)
    text = re.sub(r"\^\s*\{?\s*\\degree\s*\}?|\\degree(?![a-zA-Z])", r"^\\circ ", text)
    text = re.sub(r"\\Bbb(?![a-zA-Z])", r"\\mathbb", text)
    text = one_spelling(money(roman_quantities(text)))
    text = re.sub(r"\\\$|\$", "", text)
    text = bases(_rewritten(text))
    text = trimmed(SPACES.sub(" ", text).strip())
    text = percent_and_degrees(plain_numbers(text, thousands))
    text = outside_texts(text, _AND_OR, r"\\text{\1}")
    text = outside_texts(text, _AND_OR_BETWEEN_VALUES, r"\\text{\1}")
    text = units_as_words(named_functions(text), compound=units)
    text = outside_texts(text, _WORDS_AFTER_NUMBER, _as_words)
    text = outside_texts(text, _LONG_WORD, _as_words)
    return trimmed(text)


_WHOLE_TEXTS = {
    **{
        word: str(value)
        for value, word in enumerate(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "  # noqa: SIM905
            "sixteen seventeen eighteen nineteen twenty".split()
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
    """Return C with ten below and three above as a binomial coefficient: the ways to choose three of ten."""
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
    """Rewrite spellings that are no LaTeX, or LaTeX of another kind."""
    words = re.sub(r"^\\text\{\s*([^{}]*?)\s*\}$", r"\1", text).strip(" .").lower()
    if words in _WHOLE_TEXTS:
        return _WHOLE_TEXTS[words]
    for pattern, by in _REWRITES:
        text = pattern.sub(by, text)
    return text


def _as_words(match: re.Match[str]) -> str:
    r"""Return words as `\text{words}`; letters that spell no word, or are in alphabetical order, are variables."""
    words = match[1].split()
    if len(words) == 1 and (
        len(words[0]) < 4 or not re.search("[aeiouy]", words[0]) or list(words[0]) == sorted(words[0])
    ):
        return match[0]
    return f"\\text{{{match[1]}}}"


def squeezed(text: str) -> str:
    """Return the string that is compared if an answer cannot be read: its normal form without blanks."""
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
