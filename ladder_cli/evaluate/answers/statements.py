"""Reads what a text states as its answer: the formula, choice or number after a phrase.

Imports no torch.
"""

import re
from collections.abc import Iterable

from ladder_cli.evaluate.answers.expression import Unreadable, read
from ladder_cli.evaluate.answers.normal_form import normal_form, trimmed

_MOST_PHRASES, _LONGEST_STATEMENT = 20, 1000
_MATH = re.compile(
    r"\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)|(?<!\\)\$(?P<d>(?:\\.|[^$\\])+?)\$"
    r"|\\begin\{(?:align|equation|gather)\*?\}(?P<e>.+?)\\end\{(?:align|equation|gather)\*?\}",
    re.DOTALL,
)
PLAIN_NUMBER = re.compile(
    r"(?<![\w.\\^_{/])(?P<sign>[-+−–]\s?)?(?:(?P<currency>\\?\$|€|£)\s?)?"
    r"(?P<value>\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?(?![\d])|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?P<exponent>[eE][+-]?\d+)?(?P<bottom>\s?/\s?\d+(?:\.\d+)?)?(?P<percent>\s?(?:\\?%|percent\b|pct\b))?"
    r"(?![\w^_/]|[.,]\d)(?P<unit>m[²³])?|(?<![\w.\\^_{/])(?P<number_with_unit>\d{1,3}(?:,\d{3})*(?:\.\d+)?)(?=(?:cm|mm|km|m|kg|g)[²³]?(?!\w))"
)
_SENTENCE = re.compile(r"(?<=[^\s\d])[.!?](?=\s|$)|(?<=\d)\.(?=\s|$)|\n")
_MORE_LETTERS = re.compile(r"(?:\W*(?:,|/|&|\band\b|\bor\b)\W*[A-J](?![\w']))+")


def after_phrase(text: str, phrase: re.Pattern[str], alone: bool = False, letter: bool = False) -> str | None:
    """Return the answer after the last phrase that is followed by one; None if there is none.

    Args:
        alone: the sentence must hold nothing else.
    """
    for match in reversed(list(phrase.finditer(text))[-_MOST_PHRASES:]):
        answer = _stated(text[match.end() : match.end() + _LONGEST_STATEMENT], alone, letter)
        if answer is not None:
            return trimmed(answer)
    return None


def _stated(rest: str, alone: bool = False, letter: bool = False) -> str | None:
    """Return the answer in the sentence that begins here: a formula, a choice, a number, or a few words.

    Args:
        alone: a formula or choice that is the whole sentence.
        letter: the letter of a choice is looked for.
    """
    rest = rest.lstrip(" \t:*_\"'“`>")
    if rest.startswith("\n"):
        rest = rest.lstrip().lstrip("*_ ")
    again = re.match(r"(?:the\s+)?(?:final\s+)?(?:answer|result)\s+(?:is|:)\s*:?\s*", rest, re.IGNORECASE)
    if again:
        rest = rest[again.end() :].lstrip(" *_\"'\n")
    if not rest or re.match(r"(?:not|n't|neither|unknown|unclear)\b", rest):
        return None
    if letter:
        chosen = re.match(
            r"(?:\W|\\(?:text|textbf|mathrm|boxed)\b|option\b|choice\b)*([A-J])(?![\w'])", rest, re.IGNORECASE
        )
        if chosen and chosen[1].isupper():
            more = _MORE_LETTERS.match(rest, chosen.end())
            return chosen[1] if more is None else f"{chosen[1]}, {', '.join(re.findall('[A-J]', more[0]))}"
    display = re.match(r"\s*(?:\$\$|\\\[)", rest)
    if display:
        formula = _MATH.match(rest.lstrip())
        return _inner(formula).strip() if formula else None
    sentence = _first_sentence(rest)
    stripped = sentence.strip().strip("*_\"'”` ").rstrip(".,;:!")
    choice = re.fullmatch(r"\(?([A-J])\)?(?:[.):]\s*.*|\s*)", stripped)
    if choice and len(stripped) < 60:
        return (
            stripped
            if re.fullmatch(r"\(?[A-J]\)?", stripped)
            else f"({choice[1]}) {stripped.split(choice[1], 1)[1].lstrip('.): ')}"
        )
    if stripped and len(stripped) <= 120 and readable(stripped) and not has_words(stripped):
        return stripped
    if alone:
        return None
    formulas = formulas_of(sentence)
    numbers = [
        match for match in PLAIN_NUMBER.finditer(sentence) if not _inside(match.start(), _MATH.finditer(sentence))
    ]
    if formulas and (not numbers or formulas[-1][1] > numbers[-1].end()):
        tail = re.match(r"\s*(?:\\?%|percent\b|pct\b)", sentence[formulas[-1][1] :])
        return formulas[-1][2].strip() + ("\\%" if tail else "")
    if numbers:
        listed = _listed(sentence, [(match.start(), match.end(), plain_number(match, sentence)) for match in numbers])
        return listed[-1][2]
    if stripped and len(stripped.split()) <= 4 and len(stripped) <= 40:
        return stripped
    return None


def formulas_of(text: str) -> list[tuple[int, int, str]]:
    """Return the formulas of a text as (start, end, content); those with only "and" or a comma between them are one."""
    return _listed(text, [(match.start(), match.end(), _inner(match)) for match in _MATH.finditer(text)])


def has_words(text: str) -> bool:
    """Return whether a text has words of prose: no names of functions, no units, nothing in text commands."""
    bare = re.sub(r"\\[a-zA-Z]+(?:\{[a-zA-Z\s]*\})?|\\text\{[^{}]*\}", " ", normal_form(text))
    return re.search(r"(?<![a-zA-Z_{])[A-Za-z][a-z]+(?![a-zA-Z])", bare) is not None or "\\text{" in re.sub(
        r"(?<=[\d}])\s*\\text\{[^{}]*\}|\\text\{(?:and|or)\}", "", normal_form(text)
    )


def _first_sentence(text: str) -> str:
    for match in _SENTENCE.finditer(text):
        head = text[: match.start()]
        # Not within a formula.
        if head.count("$") % 2 == 0 and head.count("\\(") == head.count("\\)") and head.strip():
            return head
    return text


def _inner(match: re.Match[str]) -> str:
    return next(group for group in match.groupdict().values() if group is not None)


def _inside(position: int, spans: Iterable[re.Match[str]]) -> bool:
    return any(span.start() <= position < span.end() for span in spans)


def _listed(text: str, formulas: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join formulas with only "and" or a comma between them to one."""
    joined: list[tuple[int, int, str]] = []
    for start, end, inner in formulas:
        if joined and re.fullmatch(r"\s*(?:,|;|,?\s*and|,?\s*or)\s*", text[joined[-1][1] : start]):
            before = joined.pop()
            joined.append((before[0], end, f"{before[2]}, {inner}"))
        else:
            joined.append((start, end, inner))
    return joined


def plain_number(match: re.Match[str], text: str) -> str:
    """Return the number of a `PLAIN_NUMBER` match in `text`, without currency; a decimal comma becomes a point."""
    if match["number_with_unit"]:
        return match["number_with_unit"]
    value = match["value"]
    decimal = re.fullmatch(r"(\d+),(\d+)", value)
    if decimal and len(decimal[2]) != 3:
        value = f"{decimal[1]}.{decimal[2]}"
    sign = "-" if (match["sign"] or "").strip() in ("-", "−", "–") else ""
    if (
        sign
        and re.search(r"[\w)]\s*\Z", text[: match.start()])
        and not re.search(r"\b(?:is|are|be|or|and|to|get)\s*\Z", text[: match.start()])
    ):
        sign = ""
    return f"{sign}{value}{match['exponent'] or ''}{match['bottom'] or ''}{'%' if match['percent'] else ''}".replace(
        "%", "\\%"
    )


def readable(text: str) -> bool:
    """Return whether the text can be read whole as an expression."""
    try:
        read(normal_form(text))
    except Unreadable:
        return False
    return True
