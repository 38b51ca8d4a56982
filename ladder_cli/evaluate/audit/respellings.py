"""Makes right completions: a gold answer written in another way that is beyond doubt the same."""

import re
from collections.abc import Callable, Iterator

from ladder_cli.data.gold import PHYSICAL, SEVERAL, GoldRule
from ladder_cli.evaluate.audit.perturbations import bracketed, parts, terms, without_dollars

_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s*\{[^{}]*\}|\\begin\{\w+\}|\\end\{\w+\}")
_SUPERSCRIPTS = str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
_UNICODE = {"\\pi": "\u03c0", "\\infty": "\u221e", "\\cdot": "\u00b7", "\\times": "\u00d7", "\\cup": "\u222a"}
_UNICODE |= {"\\pm": "\u00b1", "\\leq": "\u2264", "\\geq": "\u2265", "\\alpha": "\u03b1", "\\omega": "\u03c9"}
_VULGAR = {(1, 2): "\u00bd", (1, 3): "\u2153", (2, 3): "\u2154", (1, 4): "\u00bc", (3, 4): "\u00be", (1, 8): "\u215b"}
_TRAILING_UNIT = re.compile(
    r"(?:\\[,;: ]|~|\s)*\\(?:text|mbox|mathrm)\s*\{\s*(?P<name>[A-Za-z]+)\s*\}(?P<power>\^\{?\d\}?)?$"
)
_NUMBER = r"-?(?:\d+(?:\.\d+)?|\.\d+)"


def respelled(gold: str, rule: GoldRule) -> Iterator[tuple[str, str]]:
    """Yield the kind of each spelling and the completion that holds it.

    Args:
        gold: as it stands in the data.
        rule: by which it is graded; with a unit, the unit may be written.
    """
    plain = without_dollars(gold)
    for kind, around in _AROUND.items():
        yield kind, around.replace("ANSWER", plain)
    seen = {plain}
    for kind, spell in _SPELLINGS.items():
        for answer in spell(plain):
            if answer not in seen:
                seen.add(answer)
                yield kind, f"The answer is \\boxed{{{answer}}}."
    for kind, completion in _by_rule(plain, rule):
        yield kind, completion


# A box in a text, and the ways in which a box is written.
_AROUND = {
    "as it is": "The answer is \\boxed{ANSWER}.",
    "bare box": "\\boxed{ANSWER}",
    "box with a space": "$\\boxed {ANSWER}$",
    "fbox": "\\[\\fbox{ANSWER}\\]",
    "spacing": "$\\boxed{ ANSWER }$",
    "thin spaces": "$\\boxed{\\,ANSWER\\,}$",
    "dollars": "\\boxed{$ANSWER$}",
    "parentheses of mathematics": "\\boxed{\\(ANSWER\\)}",
    "trailing point": "\\boxed{ANSWER.}",
    "display style": "\\boxed{\\displaystyle ANSWER}",
    "text around": "We try 17 cases; $x=3$ fails.\n\n**Final answer:** $\\boxed{ANSWER}$. I hope it is correct.",
    "text after": "\\boxed{ANSWER}\n\nCheck: with $n = 4242$ both sides are $4242$.",
    "thought before": "<think>\nPerhaps \\boxed{7919}? No.\n</think>\n\nThe answer is \\boxed{ANSWER}.",
}


def _outside_words(change: Callable[[str], str]) -> Callable[[str], str]:
    """Apply a change only to the mathematics."""

    def changed(gold: str) -> str:
        kept, start = [], 0
        for match in _WORDS.finditer(gold):
            kept += [change(gold[start : match.start()]), match.group()]
            start = match.end()
        return "".join([*kept, change(gold[start:])])

    return changed


def _wide(gold: str) -> Iterator[str]:
    if re.search(r"\de[+-]?\d", gold):
        return
    yield _outside_words(lambda text: re.sub(r"(?<=[\w})\]])\s*([+=]|-(?![^{]*\}))\s*(?=[\w\\(])", r" \1 ", text))(gold)


def _narrow(gold: str) -> Iterator[str]:
    # A space ends the name of a command, and separates the digits of two numbers.
    yield _outside_words(lambda text: re.sub(r"(?<![A-Za-z\d\\])\s+|\s+(?![A-Za-z\d])", "", text))(gold)


def _fractions(gold: str) -> Iterator[str]:
    if re.search(r"\\[dt]?frac", gold):
        yield re.sub(r"\\[dt]?frac", r"\\dfrac", gold)
        yield re.sub(r"\\[dt]?frac", r"\\tfrac", gold)
    found = re.fullmatch(r"(-?)\s*\\[dt]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))", gold)
    if found:
        above, below = found[2] or found[3], found[4] or found[5]
        yield f"{found[1]}{above}/{below}"
        yield f"\\frac{{{found[1]}{above}}}{{{below}}}"
        yield f"{{{found[1]}{above} \\over {below}}}"
        if (int(above), int(below)) in _VULGAR:
            yield found[1] + _VULGAR[int(above), int(below)]


def _left_right(gold: str) -> Iterator[str]:
    if "\\left" in gold:
        yield re.sub(r"\\(?:left|right)(?![A-Za-z])\s*", "", gold)
        yield re.sub(r"\\(left|right)(?![A-Za-z])", lambda side: "\\bigl" if side[1] == "left" else "\\bigr", gold)
    elif re.search(r"[(\[]", gold) and "\\text" not in gold:
        with_left = re.sub(r"(?<!\\)[(\[]", r"\\left\g<0>", gold)
        yield re.sub(r"(?<!\\)[)\]]", r"\\right\g<0>", with_left)


def _unicode(gold: str) -> Iterator[str]:
    def signs(text: str) -> str:
        for command, sign in _UNICODE.items():
            text = re.sub(rf"{re.escape(command)}(?![A-Za-z])\s*", sign, text)
        return text

    yield _outside_words(signs)(gold)
    if "-" in gold and "e-" not in gold:
        yield _outside_words(lambda text: text.replace("-", "\u2212"))(gold)
    if re.search(r"\^\{?\\circ\}?", gold):
        yield re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "\u00b0", gold)
        yield re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "^{\\\\circ}", gold)
    squared = re.sub(
        r"(?<=[A-Za-z)])\^(?:\{(\d)\}|(\d))(?!\d)", lambda p: (p[1] or p[2]).translate(_SUPERSCRIPTS), gold
    )
    if "\\text" not in gold and "\\mbox" not in gold:
        yield squared
    root = re.sub(r"\\sqrt\s*\{(\d+)\}", lambda found: f"\u221a{found[1]}", gold)
    if not re.search(r"\\sqrt\s*\[|\\sqrt\s*\{\d+\}\s*\d", gold):
        yield root


def _thousands(gold: str) -> Iterator[str]:
    whole = re.fullmatch(r"(-?)(\d{4,})", gold)
    if whole and not whole[2].startswith("0"):
        grouped = f"{int(whole[2]):,}"
        for separator in (",", "{,}", "\\,", ",\\!"):
            yield whole[1] + grouped.replace(",", separator)
    if re.fullmatch(r"\\?\$?\d{1,3}(?:,\s*\\!\s*|\{,\}|,)\d{3}(?:(?:,\s*\\!\s*|\{,\}|,)\s*\d{3})*", gold):
        yield re.sub(r"[^\d]", "", gold)


def _numbers(gold: str) -> Iterator[str]:
    if re.fullmatch(r"\d+", gold):
        yield f"+{gold}"
        yield f"{gold}.0"
        yield f"\\mathbf{{{gold}}}"
    if re.fullmatch(r"-?\.\d+", gold):
        yield gold.replace(".", "0.")
    if re.fullmatch(r"-?0\.\d+", gold):
        yield gold.replace("0.", ".", 1)
    if re.fullmatch(r"-?\d*\.\d*[1-9]", gold):
        yield gold + "0"
    scientific = re.fullmatch(r"(-?\d+(?:\.\d+)?)e([+-]?\d+)", gold)
    if scientific:
        for times in ("\\times", "\\cdot", " \u00d7"):
            yield f"{scientific[1]} {times} 10^{{{int(scientific[2])}}}"


def _written_unit(gold: str) -> Iterator[str]:
    """Yield answers without the unit of the gold, or with the unit in other letters."""
    found = _TRAILING_UNIT.search(gold)
    if found and re.fullmatch(_NUMBER, gold[: found.start()]):
        value, power = gold[: found.start()], found["power"] or ""
        yield value
        yield f"{value}\\,\\mathrm{{{found['name']}}}{power}"
        yield f"{value} \\text{{ {found['name']}}}{power}"
        yield f"{value}~\\text{{{found['name']}}}{power}"
    if re.fullmatch(rf"{_NUMBER}\^(?:\\circ|\{{\\circ\}})", gold):
        value = gold.partition("^")[0]
        yield value
        yield f"{value}\\text{{ degrees}}"
    if gold.startswith("\\$"):
        yield gold[2:]
        yield f"{gold[2:]} \\text{{ dollars}}"
        yield f"${gold[2:]}"


def _words(gold: str) -> Iterator[str]:
    found = re.fullmatch(r"\\(?:text|mbox|mathrm|textbf)\s*\{([^{}\d]+)\}", gold)
    if found:
        yield found[1]
        yield f"\\textbf{{{found[1]}}}"
        yield f"\\mathrm{{{found[1]}}}"
        letter = re.fullmatch(r"\(([A-E])\)", found[1])
        if letter:
            yield letter[1]
            yield f"\\text{{{letter[1]}}}"
            yield f"{letter[1]}."


def _sums(gold: str) -> Iterator[str]:
    """Yield the terms of a sum in another order."""
    if (
        "=" in gold
        or len(parts(gold)) > 1
        or bracketed(gold)
        or "\\text" in gold
        or "\\begin" in gold
        or "\\pm" in gold
    ):
        return
    summands = [term.strip() for term in terms(gold)]
    if len(summands) > 1:
        signed = [term if term[0] in "+-" else f"+{term}" for term in summands]
        yield " ".join([*signed[1:], signed[0]]).removeprefix("+").strip()


def _matrices(gold: str) -> Iterator[str]:
    if "{pmatrix}" in gold:
        yield gold.replace("{pmatrix}", "{bmatrix}")
        yield gold.replace("\\begin{pmatrix}", "\\left(\\begin{array}{c}").replace(
            "\\end{pmatrix}", "\\end{array}\\right)"
        )


def _subscripts(gold: str) -> Iterator[str]:
    if re.search(r"_\{\w\}|_\w(?!\w)", gold):
        yield re.sub(r"_\{(\w)\}", r"_\1", gold)
        yield re.sub(r"_(\w)(?!\w)", r"_{\1}", gold)


def _order(gold: str) -> Iterator[str]:
    """Yield the answers of a list or a set in another order."""
    around = bracketed(gold)
    if around is not None and not around[0].endswith("{"):
        return
    opening, inside, closing = around or ("", gold, "")
    pieces = [piece.strip() for piece in parts(inside)]
    # x = a, b: the name stands before the first alone.
    if len(pieces) > 1 and (pieces[0].count("=") == pieces[-1].count("=")):
        yield opening + ", ".join(pieces[::-1]) + closing
    union = [piece.strip() for piece in gold.split("\\cup")]
    if len(union) > 1 and not re.search(r"\\in(?![a-z])", gold):
        yield " \\cup ".join(union[::-1])


_SPELLINGS: dict[str, Callable[[str], Iterator[str]]] = {
    "spaces added": _wide,
    "spaces taken away": _narrow,
    "fractions": _fractions,
    "left and right": _left_right,
    "unicode": _unicode,
    "thousands": _thousands,
    "numbers": _numbers,
    "the gold's unit": _written_unit,
    "words": _words,
    "sum in another order": _sums,
    "matrices": _matrices,
    "subscripts": _subscripts,
    "another order": _order,
}


def _by_rule(gold: str, rule: GoldRule) -> Iterator[tuple[str, str]]:
    if rule.name == SEVERAL and bracketed(gold) is None:
        pieces = [piece.strip() for piece in parts(gold)]
        if len(pieces) > 1 and pieces[0].count("=") == pieces[-1].count("="):
            yield "a box to each part", ", ".join(f"$\\boxed{{{piece}}}$" for piece in pieces) + "."
            yield "boxes joined by and", " and ".join(f"\\boxed{{{piece}}}" for piece in pieces)
    if rule.unit:
        unit = rule.unit.replace("$", "").strip()
        yield (
            "the row's unit",
            f"\\boxed{{{gold} {unit if unit.startswith((chr(92), '^')) else f'{chr(92)}text{{ {unit}}}'}}}",
        )
    if rule.name == PHYSICAL and re.fullmatch(_NUMBER + r"(?:e[+-]?\d+)?", gold) and re.search(r"[.e]", gold):
        value = float(gold)
        yield "within the tolerance", f"\\boxed{{{value * 1.004!r}}}"
