"""Makes wrong answers: a gold answer with one change, as a model that errs would write it.

An answer is used only if `latex_value.differ`, which shares nothing with the grader, finds another value. A few kinds
(another unit, word or kind of bracket) are other answers by definition.
"""

import re
from collections.abc import Callable, Iterator

from ladder_cli.data.gold import PHYSICAL, GoldRule
from ladder_cli.evaluate.answers.verdict import RELATIVE_TOLERANCE
from ladder_cli.evaluate.audit.latex_value import differ, tokens

# Twice the tolerance that the rule grants: nearer answers may be right.
_BEYOND = 2.0
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_COMMAND_OR_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|np\.\w+")
_UNIT = re.compile(r"(?P<command>\\(?:text|mbox|mathrm)\s*\{)(?P<space>\s*)(?P<name>[A-Za-z]+)(?P<rest>[^{}]*\})")
_LETTER = re.compile(r"\(?[A-E]\)?")
_DEGREE = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])")
# Euler's number, the imaginary unit, a differential: not names that one may choose.
_NO_VARIABLE = {"e", "i", "d"}
_FRACTION = re.compile(r"\\[dt]?frac\s*(\{[^{}]*\}|\d)\s*(\{[^{}]*\}|\d)")
_ADDED = "7919"


def perturbed(gold: str, rule: GoldRule) -> Iterator[tuple[str, str]]:
    """Yield the kind of each change and the changed answer; none has the value of the gold.

    Args:
        gold: as it stands in the data.
        rule: which grants a tolerance and a unit.
    """
    gold = without_dollars(gold)
    relative = _BEYOND * RELATIVE_TOLERANCE if rule.name == PHYSICAL else 1e-9
    absolute = _BEYOND * (rule.tolerance or 0.0)
    seen = {gold}
    for kind, change in _BY_VALUE.items():
        for answer in change(gold):
            if answer not in seen and differ(gold, answer, relative, absolute):
                seen.add(answer)
                yield kind, answer
    for kind, change in _BY_KIND.items():
        for answer in change(gold):
            if answer not in seen:
                seen.add(answer)
                yield kind, answer
    if rule.unit:
        unit = rule.unit.replace("$", "").strip()
        yield "other unit", f"{gold} \\text{{ {'weeks' if unit != 'weeks' else 'hours'}}}"


def without_dollars(gold: str) -> str:
    """Remove mathematics mode and a final point from a gold; a dollar sign of money stays."""
    return re.sub(r"(?<!\\)\$", "", gold).strip().rstrip(".").strip()


def parts(text: str, separators: str = ",") -> list[str]:
    """Split a text at separators outside brackets and braces, with its spacing; a comma of thousands is none."""
    found, depth, start = [], 0, 0
    for index, sign in enumerate(text):
        escaped = text[index - 1 : index] == "\\"
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif sign in separators and depth == 0 and not escaped and not _thousands_at(text, index):
            found.append(text[start:index])
            start = index + 1
    return [*found, text[start:]]


def _thousands_at(text: str, index: int) -> bool:
    return bool(
        text[index] == "," and re.match(r",(?:\\!)?\s?\d{3}(?!\d)", text[index:]) and text[:index][-1:].isdigit()
    )


def terms(text: str) -> list[str]:
    """Split a sum at the outermost level into terms with their signs; a text that is no sum is one term."""
    found, depth, start = [], 0, 0
    for index, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        before = text[:index].rstrip()
        if (
            sign in "+-"
            and depth == 0
            and before
            and before[-1] not in "^_=+-*/(,<>"
            and not before.endswith(("\\cdot", "e"))
        ):
            found.append(text[start:index])
            start = index
    return [*found, text[start:]]


def bracketed(text: str) -> tuple[str, str, str] | None:
    """Split a text that one pair of brackets encloses into opening, inside and closing; sizes belong to brackets."""
    match = re.fullmatch(r"(\\left\s*)?(\(|\[|\\\{)(.*?)(\\right\s*)?(\)|\]|\\\})", text.strip(), re.DOTALL)
    if match is None or bool(match[1]) != bool(match[4]):
        return None
    depth = 0
    for sign in match[3]:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return None
    return (match[1] or "") + match[2], match[3], (match[4] or "") + match[5]


def _sign(gold: str) -> Iterator[str]:
    for before, part, after in _each_part(gold):
        name, equals, value = part.rpartition("=")
        bare = value.strip()
        if bracketed(bare) or "\\begin" in bare or "\\cup" in bare:
            continue
        negated = bare[1:].strip() if bare.startswith("-") and len(terms(bare)) == 1 else f"-{bare}"
        if len(terms(bare)) > 1:
            negated = f"-({bare})"
        yield f"{before}{name}{equals}{negated}{after}"
    yield from _later_sign(gold)


def _later_sign(gold: str) -> Iterator[str]:
    """Reverse the last sign between two terms."""
    found = [at for at in range(1, len(gold)) if gold[at] in "+-" and gold[at - 1] not in "^_{e"]
    if found:
        at = found[-1]
        yield gold[:at] + ("-" if gold[at] == "+" else "+") + gold[at + 1 :]


def _each_part(gold: str) -> Iterator[tuple[str, str, str]]:
    """Yield (before, part, after) for the first and last part of a list or of a bracketed text."""
    around = bracketed(gold)
    opening, inside, closing = around or ("", gold, "")
    pieces = parts(inside)
    for index in sorted({0, len(pieces) - 1}):
        yield (
            opening + "".join(f"{piece}," for piece in pieces[:index]),
            pieces[index],
            "".join(f",{piece}" for piece in pieces[index + 1 :]) + closing,
        )


def _numbers(gold: str) -> list[re.Match[str]]:
    blank = _COMMAND_OR_WORDS.sub(lambda match: " " * len(match.group()), gold)
    return list(_NUMBER.finditer(blank))


def _digit(gold: str) -> Iterator[str]:
    """Change the first digit of the first number, and the last digit of the last."""
    found = _numbers(gold)
    for number, at in ((found[0], 0), (found[-1], -1)) if found else ():
        digits = [index for index in range(number.start(), number.end()) if gold[index].isdigit()]
        index = digits[at]
        other = {"9": "8", "0": "1"}.get(gold[index], str((int(gold[index]) + 1) % 10))
        yield gold[:index] + other + gold[index + 1 :]


def _neighbour(gold: str) -> Iterator[str]:
    """Change a whole number by one, and add a digit."""
    if re.fullmatch(r"-?\d+", gold):
        yield str(int(gold) + 1)
        yield str(int(gold) - 1)
        yield gold + "0"


def _point(gold: str) -> Iterator[str]:
    """Move the decimal point."""
    if re.fullmatch(r"-?\d*\.\d+", gold):
        yield str(float(gold) * 10)
        yield f"{float(gold) / 10:.12f}".rstrip("0")


def _exponent(gold: str) -> Iterator[str]:
    found = re.search(r"\^\s*(?:\{\s*(-?)\s*(\d+)\s*\}|(\d))", gold)
    if found:
        value = int((found[1] or "") + (found[2] or found[3]))
        yield f"{gold[: found.start()]}^{{{value + 1}}}{gold[found.end() :]}"
    scientific = re.search(r"(?<=\d)e([+-]?\d+)", gold)
    if scientific:
        yield f"{gold[: scientific.start()]}e{int(scientific[1]) + 1}"
    elif len(parts(gold)) == 1 and "=" not in gold and bracketed(gold) is None and "\\text" not in gold:
        yield f"\\left({gold}\\right)^2"


def _root(gold: str) -> Iterator[str]:
    if re.search(r"\\sqrt\s*\{", gold):
        yield re.sub(r"\\sqrt\s*(?=\{)", "", gold, count=1)
        yield re.sub(r"\\sqrt\s*(?=\{)", r"\\sqrt[3]", gold, count=1)


def _dropped_term(gold: str) -> Iterator[str]:
    name, equals, value = gold.rpartition("=")
    summands = terms(value)
    if len(summands) > 1:
        yield name + equals + "".join(summands[:-1])
        yield name + equals + "".join(summands[1:]).lstrip("+ ")


def _dropped_factor(gold: str) -> Iterator[str]:
    leading = re.match(r"-?\d+\s*(?=[a-zA-Z\\(])(?!\\(?:text|mbox|mathrm|cdot|times|%|le|ge|cup|,|!))", gold)
    if leading:
        yield gold[leading.end() :]
    if gold.endswith("\\pi"):
        yield gold[: -len("\\pi")].rstrip() or "1"


def _dropped_part(gold: str) -> Iterator[str]:
    around = bracketed(gold)
    opening, inside, closing = around or ("", gold, "")
    pieces = parts(inside)
    if len(pieces) > 1:
        yield opening + ",".join(pieces[:-1]) + closing
        yield opening + ",".join(pieces[1:]).strip() + closing
    pieces = gold.split("\\cup")
    if len(pieces) > 1:
        yield "\\cup".join(pieces[:-1]).strip()


def _added_part(gold: str) -> Iterator[str]:
    around = bracketed(gold)
    if around and len(parts(around[1])) > 1:
        yield f"{around[0]}{around[1]}, {_ADDED}{around[2]}"
    # (C), 7919 may be a choice and what it says.
    choice = re.fullmatch(r"\\text\s*\{\s*\(?([A-E])\)?\s*\}", gold)
    yield f"{gold}, {chr(ord(choice[1]) + 1) if choice else _ADDED}"


def _added_term(gold: str) -> Iterator[str]:
    if len(parts(gold)) == 1 and bracketed(gold) is None and "\\" not in gold.partition("=")[0]:
        yield f"{gold} + 1"


def _exchanged_coordinates(gold: str) -> Iterator[str]:
    around = bracketed(gold)
    if around and not around[0].endswith("{"):
        pieces = [piece.strip() for piece in parts(around[1])]
        if len(pieces) > 1:
            yield around[0] + ", ".join([pieces[1], pieces[0], *pieces[2:]]) + around[2]


def _variables(gold: str) -> list[str]:
    blank = _COMMAND_OR_WORDS.sub(lambda match: " " * len(match.group()), gold)
    letters = [found.group() for found in _VARIABLE.finditer(blank)]
    return list(dict.fromkeys(letter for letter in letters if letter not in _NO_VARIABLE))


def _swapped_variable(gold: str) -> Iterator[str]:
    """Exchange two variables; rename a single one, unless the answer itself defines it."""
    letters = _variables(gold)
    # f(x) = x + 1 is f(y) = y + 1, and the angle ABC the angle CBA.
    if re.match(r"\s*[a-zA-Z]\s*\(\s*[a-zA-Z]", gold) or "\\angle" in gold or "\\overline" in gold:
        return
    if len(letters) > 1:
        yield _renamed(gold, {letters[0]: letters[1], letters[1]: letters[0]})
    elif letters and not re.search(r"=|\\in|\\cup|<|>|\\[lg]e", gold):
        yield _renamed(gold, {letters[0]: "w" if letters[0] != "w" else "y"})


def _renamed(gold: str, names: dict[str, str]) -> str:
    kept: list[str] = []
    start = 0
    for match in [*_COMMAND_OR_WORDS.finditer(gold), None]:
        end = match.start() if match else len(gold)
        kept.append(_VARIABLE.sub(lambda found: names.get(found.group(), found.group()), gold[start:end]))
        if match:
            kept.append(match.group())
            start = match.end()
    return "".join(kept)


def _subscript(gold: str) -> Iterator[str]:
    found = re.search(r"(?<=[A-Za-z])_\{?(\d)\}?", gold)
    if found:
        yield f"{gold[: found.start()]}_{{{int(found[1]) + 2}}}{gold[found.end() :]}"


def _upside_down(gold: str) -> Iterator[str]:
    found = _FRACTION.search(gold)
    if found:
        yield f"{gold[: found.start()]}\\frac{_braced(found[2])}{_braced(found[1])}{gold[found.end() :]}"
    slash = re.fullmatch(r"(-?)(\d+)/(\d+)", gold)
    if slash:
        yield f"{slash[1]}{slash[3]}/{slash[2]}"


def _braced(group: str) -> str:
    return group if group.startswith("{") else f"{{{group}}}"


def _base(gold: str) -> Iterator[str]:
    found = re.fullmatch(r"(\d+)_\{?(\d+)\}?", gold)
    if found:
        yield f"{found[1]}_{{{int(found[2]) + 1}}}"


def _function(gold: str) -> Iterator[str]:
    for name, other in (
        ("sin", "cos"),
        ("cos", "sin"),
        ("tan", "cot"),
        ("cot", "tan"),
        ("ln", "exp"),
        ("arcsin", "arccos"),
    ):
        if re.search(rf"\\{name}(?![a-z])", gold):
            yield re.sub(rf"\\{name}(?![a-z])", rf"\\{other}", gold, count=1)


def _pi(gold: str) -> Iterator[str]:
    if "\\pi" in tokens(gold):
        yield re.sub(r"\\pi(?![A-Za-z])", "3", gold, count=1)


# Kinds whose outcome may happen to have the gold's value.
_BY_VALUE: dict[str, Callable[[str], Iterator[str]]] = {
    "sign": _sign,
    "digit": _digit,
    "neighbour": _neighbour,
    "decimal point": _point,
    "exponent": _exponent,
    "root": _root,
    "dropped term": _dropped_term,
    "dropped factor": _dropped_factor,
    "dropped part": _dropped_part,
    "added part": _added_part,
    "added term": _added_term,
    "exchanged coordinates": _exchanged_coordinates,
    "swapped variable": _swapped_variable,
    "subscript": _subscript,
    "fraction upside down": _upside_down,
    "base": _base,
    "function": _function,
    "pi as 3": _pi,
}


def _other_unit(gold: str) -> Iterator[str]:
    """Replace the unit in the gold's text by another word, degrees by radians."""
    found = _UNIT.search(gold)
    if found and re.search(r"\d", gold[: found.start()]):
        other = "weeks" if found["name"] != "weeks" else "miles"
        yield f"{gold[: found.start()]}{found['command']}{found['space']}{other}{found['rest']}{gold[found.end() :]}"
    if len(_DEGREE.findall(gold)) == 1 and re.fullmatch(r"-?\d+(?:\.\d+)?" + _DEGREE.pattern, gold):
        yield _DEGREE.sub(r"\\text{ radians}", gold)


def _other_bracket(gold: str) -> Iterator[str]:
    """Swap open and closed at one end, only of what can be nothing but an interval."""
    if not re.search(r"\\infty|\\cup|\\in(?![a-z])|^\s*(?:\\left)?\[|\]\s*$", gold):
        return
    for found in re.finditer(r"[(\[]|[)\]]", gold):
        near = gold[found.end() :] if found.group() in "([" else gold[: found.start()]
        end = parts(near)[0] if found.group() in "([" else re.split(r",", near)[-1]
        if "\\infty" in end:
            continue
        yield gold[: found.start()] + "([)]"["[(])".index(found.group())] + gold[found.end() :]


def _other_word(gold: str) -> Iterator[str]:
    """Replace the letter of a choice or a name, if the gold is nothing else."""
    found = re.fullmatch(r"\\(?:text|mbox|mathrm|textbf)\s*\{([^{}\d]+)\}", gold)
    if not found:
        return
    if _LETTER.fullmatch(found[1]):
        yield re.sub(r"[A-E]", lambda letter: "BCDEA"["ABCDE".index(letter.group())], gold)
    else:
        yield "\\text{neither}"


# Kinds that are other answers by what they are; their values may not be comparable.
_BY_KIND: dict[str, Callable[[str], Iterator[str]]] = {
    "other unit": _other_unit,
    "other bracket": _other_bracket,
    "other word": _other_word,
}
