r"""Where the answer of a completion stands. The only place that knows what a box is. Imports no torch.

A completion is read in this order; the first that is there decides:

1. An unfinished thought (`<think>` that is never closed) holds no answer; what a finished one holds counts only where
   no text follows it.
2. The last complete box with something in it: `\boxed{..}`, `\boxed {..}`, `\boxed 4`, `\fbox{..}`, `\framebox{..}`. A
   statement of the final answer after it ("The final answer is $5$", "**Answer:** 5") replaces it. A box that only
   begins is no answer, and neither is one before it: the model was about to say something else.
3. Without a box: what follows the last "answer is", "Answer:" or `####`.
4. Else, if the completion is one short formula, that; else its last formula or number. Not if the completion was cut
   off, nor if it has an empty box or one that only begins.
"""

import re
from dataclasses import dataclass
from typing import Any

from ladder_cli.evaluate.answers.expression import Unreadable, read
from ladder_cli.evaluate.answers.normal_form import closing_brace, mended, normal_form, trimmed

# Longer completions are read from their end, where the answer stands.
LONGEST_READ = 20_000
BOX, PHRASE, WHOLE, FORMULA, NUMBER, NONE = "box", "answer is", "whole text", "last formula", "last number", "none"

_MOST_PHRASES, _LONGEST_STATEMENT = 20, 1000

_BOX = re.compile(r"\\(?:boxed|fbox|framebox|Boxed|bbox)(?![a-zA-Z])\s*(?:\[[^\]]*\]\s*)?")
_PLACEHOLDER = re.compile(
    r"(?:\\text\s*\{)?\s*[\[<(]?\s*(?:(?:the|your|my|our)?[\s_\\]*(?:final|numerical|correct)?[\s_\\]*(?:answer|result|solution|value|number|expression)"
    r"(?:[\s_]*here)?|insert.*|\.\.\.|\\l?dots|\\cdots|\\ldots|…|\?|_+|\\_+|\\square|\\quad|-+|answer_here|\\cdot|\\text\{\}|\{\}|ans|\\;|n/?a)\s*[\])>]?\s*\}?\s*",
    re.IGNORECASE,
)
_THINK = re.compile(r"<(/?)(think|thinking|thought|reasoning|scratchpad)>|(◁)(/?)think▷|(\[)(/?)THINK\]", re.IGNORECASE)
_TURN = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id|end)\|>|</s>|<eos>|<end_of_turn>")
_RETRACTED = re.compile(
    r"\b(?:no|not|wait|wrong|actually|correct(?:ing|ion|ed)?|mistake|but|instead|however|hmm+|rather|oops|sorry|scratch|"
    r"retract|recheck|re-check|thus|therefore|hence|so|then|final|finally|gives|get|becomes|which|equals|simplif\w+|"
    r"i\.e\.|that is|in other words|or rather|approximately|answer)\b|=>|->|→|⇒|\\to\b|\\(?:Right|"
    r"right)arrow|\\implies|≈|\\approx",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:no|wait|wrong|actually|correct(?:ing|ion|ed)?|mistake|but|instead|however|hmm+|oops|sorry|incorrect|rather|"
    r"final answer|simplif\w+|that is|in other words|i\.e\.)\b|=>|->|→|⇒|\\to\b|\\(?:Right|right)arrow|\\implies",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"(?:\*\*|__)?\s*(?:the\s+)?final\s+(?:answer|result)(?:\s+is)?\s*:?\s*(?:\*\*|__)?\s*:?"
    r"|(?:^|\n)\s*(?:#+\s*)?(?:\*\*|__)\s*(?:the\s+)?answer\s*:?\s*(?:\*\*|__)?\s*(?:is)?\s*:?"
    r"|(?:^|\n)\s*(?:#+\s*)?answer\s*:"
    r"|####",
    re.IGNORECASE,
)
_ANSWER_IS = re.compile(
    r"(?:\*\*|__)?\s*(?:final\s+|correct\s+)?(?:answers?|results?|solutions?|réponse|respuesta|antwort|ответ|答案)\s*(?:\*\*|__)?"
    r"\s*(?:(?:is|are|was|would be|must be|should be|will be|es|est|ist)\b|是|为|:|：|=)+\s*(?:\*\*|"
    r"__)?\s*(?::|=|is\b)?|(?:^|\n)\s*(?:#+\s*)?(?:\*\*|__)?\s*(?:final )?answer\s*(?:\*\*|__)?\s*\n|"
    r"####|(?:option|choice)(?:\s+is)?:?\s+(?=\W*[A-J]\b)",
    re.IGNORECASE,
)
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_MATH = re.compile(
    r"\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)|(?<!\\)\$(?P<d>(?:\\.|[^$\\])+?)\$"
    r"|\\begin\{(?:align|equation|gather)\*?\}(?P<e>.+?)\\end\{(?:align|equation|gather)\*?\}",
    re.DOTALL,
)
_PLAIN_NUMBER = re.compile(
    r"(?<![\w.\\^_{/])(?P<sign>[-+−–]\s?)?(?:(?P<currency>\\?\$|€|£)\s?)?"
    r"(?P<value>\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?(?![\d])|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?P<exponent>[eE][+-]?\d+)?(?P<bottom>\s?/\s?\d+(?:\.\d+)?)?(?P<percent>\s?(?:\\?%|percent\b|pct\b))?"
    r"(?![\w^_/]|[.,]\d)(?P<unit>m[²³])?|(?<![\w.\\^_{/])(?P<number_with_unit>\d{1,3}(?:,\d{3})*(?:\.\d+)?)(?=(?:cm|mm|km|m|kg|g)[²³]?(?!\w))"
)
_SENTENCE = re.compile(r"(?<=[^\s\d])[.!?](?=\s|$)|(?<=\d)\.(?=\s|$)|\n")
_ALL_HOLD = re.compile(r"\b(?:values|solutions|roots)\b[^.?!]*\bare\b[^.?!]*\Z")
_BOTH = re.compile(r"\bboth (?:values|solutions|roots|of (?:them|these))\b")
_MORE_LETTERS = re.compile(r"(?:\W*(?:,|/|&|\band\b|\bor\b)\W*[A-J](?![\w']))+")
_OR = re.compile(r"(?<![a-zA-Z])or(?![a-zA-Z])", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """The answer of a completion.

    Attributes:
        text: the string that is compared, as written; None where there is no answer.
        found: how it was found: in a box, after "answer is", as the whole text, as the last formula or number, or not.
        boxes: what the boxes that were read together hold, where there are several.
        notes: what was left out, and why.
    """

    text: str | None
    found: str
    boxes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For the line of a sample."""
        reading: dict[str, Any] = {"found": self.found}
        if len(self.boxes) > 1:
            reading["boxes"] = list(self.boxes)
        if self.notes:
            reading["notes"] = list(self.notes)
        return reading


@dataclass(frozen=True)
class _Box:
    start: int
    end: int
    content: str | None  # None: it only begins

    @property
    def empty(self) -> bool:
        return self.content is not None and (
            not self.content.strip() or _PLACEHOLDER.fullmatch(self.content) is not None
        )


def read_answer(completion: str, truncated: bool = False, parts: int = 1, letter: bool = False) -> Answer:
    """The answer of a completion.

    Args:
        truncated: it was cut off at the token limit: only a complete box is an answer then.
        parts: how many answers the gold holds; boxes of the same number belong together then, unless one is retracted.
        letter: the gold is the letter of a choice, which a statement after a box may name.
    """
    notes: list[str] = []
    text = completion
    if len(text) > LONGEST_READ:
        text = text[-LONGEST_READ:]
        notes.append(f"only the last {LONGEST_READ} of {len(completion)} characters were read")
    open_text = _outside_thoughts(mended(text), notes)
    if open_text is None:
        return Answer(None, NONE, notes=tuple(notes))
    text = _first_turn(open_text)
    found = find_boxes(text)
    boxed = _boxed(text, found, parts, notes, truncated)
    if boxed is not None:
        return boxed
    if truncated:
        notes.append("cut off before any box was complete")
        return Answer(None, NONE, notes=tuple(notes))
    tag = _TAG.findall(text)
    if tag and tag[-1].strip():
        return Answer(tag[-1].strip(), PHRASE, notes=tuple(notes))
    if found:
        after = _after_phrase(text[found[-1].end :], _ANSWER_IS) if found[-1].content is not None else None
        if after is not None:
            return Answer(after, PHRASE, notes=(*notes, "an empty box was passed over"))
        notes.append("the box is empty" if found[-1].content is not None else "the box only begins")
        return Answer(None, NONE, notes=tuple(notes))
    return _unboxed(text, notes, letter)


def has_box(completion: str) -> bool:
    """Does the completion hold a complete box with something in it, where an answer may stand?"""
    text = _outside_thoughts(mended(completion[-LONGEST_READ:]), [])
    return text is not None and any(box.content is not None and not box.empty for box in find_boxes(text))


def boxes(text: str) -> list[str]:
    """What the complete boxes hold, in their order; of a box in a box the inner one."""
    return [box.content for box in find_boxes(text) if box.content is not None]


def find_boxes(text: str) -> list[_Box]:
    """Every box, in the order of the text, in one pass; of a box in a box the inner one."""
    found: list[_Box] = []
    position = 0
    while True:
        match = _BOX.search(text, position)
        if match is None:
            return found
        opened = match.end()
        following = text[opened : opened + 1]
        if following == "{":
            end = closing_brace(text, opened)
            if end < 0:
                inner = _BOX.search(text, opened)
                if inner is None:
                    found.append(_Box(match.start(), len(text), None))
                    return found
                # The inner ones may be complete.
                position = opened + 1
                rest = find_boxes(text[position:]) if text.count("\\boxed", position) < 200 else []
                found += [_Box(box.start + position, box.end + position, box.content) for box in rest]
                found.append(_Box(match.start(), len(text), None))
                return found
            content = text[opened + 1 : end]
            inner_boxes = [content] if _BOX.search(content) is None else [box.content for box in find_boxes(content)]
            complete = [inner for inner in inner_boxes if inner is not None and inner.strip()]
            only_blank = content if _BOX.search(content) is None else ""
            found.append(_Box(match.start(), end + 1, ", ".join(complete) or only_blank))
            position = end + 1
        elif following == "(":
            end = text.find(")", opened)
            found.append(
                _Box(match.start(), end + 1 if end > 0 else len(text), text[opened + 1 : end] if end > 0 else None)
            )
            position = max(end, opened)
        elif following and not following.isspace() and following not in "}$,.;:)\"'`":
            # \boxed 4, \boxed12, \boxed\frac12: one number, letter or command.
            token = re.match(
                r"-?\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z])|\\frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\\[a-zA-Z]+(?:\{[^{}]*\})*",
                text[opened:],
            )
            if token is None:
                position = opened
                continue
            found.append(_Box(match.start(), opened + token.end(), token.group()))
            position = opened + token.end()
        else:
            position = opened


def _outside_thoughts(text: str, notes: list[str]) -> str | None:
    """The text that may hold the answer: after the last finished thought; None in an unfinished one."""
    last = None
    for last in _THINK.finditer(text):  # noqa: B007
        pass
    if last is None:
        return text
    closes = "/" in last.group()
    if not closes:
        before = text[: last.start()]
        notes.append("the thought is unfinished")
        return before if before.strip() and _BOX.search(before) else None
    after = text[last.end() :]
    if _TURN.sub("", after).strip():
        notes.append("what was thought was left out")
        return after
    return text


def _first_turn(text: str) -> str:
    """Without what follows the mark of an ended turn."""
    match = _TURN.search(text)
    return text[: match.start()] if match and text[: match.start()].strip() else text


def _boxed(text: str, found: list[_Box], parts: int, notes: list[str], truncated: bool) -> Answer | None:
    if found and found[-1].content is None:
        return None
    filled = [box for box in found if box.content is not None and not box.empty]
    if not filled:
        return None
    if len(filled) < len(found):
        notes.append("empty boxes were passed over")
    group = _together(text, filled, parts, notes)
    contents = [box.content.strip() for box in group if box.content is not None]
    if len(contents) != parts:
        # The same answer given twice is one answer, unless the gold has as many parts.
        contents = list(dict.fromkeys(contents))
    if len(group) < len(filled):
        notes.append(
            f"the last of {len(filled)} boxes" if len(group) == 1 else f"the last {len(group)} of {len(filled)} boxes"
        )
    if not truncated:
        later = _after_phrase(text[filled[-1].end :], _FINAL, alone=True)
        if later is not None:
            notes.append("the final answer was stated after the box")
            return Answer(later, PHRASE, notes=tuple(notes))
    if len(contents) == 1:
        mark = re.match(r"\s*(?:\\?%|percent\b|pct\b)", text[group[-1].end :])
        extra = "\\%" if mark and "%" not in contents[0] else ""
        if not extra:
            mark = re.match(r"\s*(?:\\text\{\s*percent\s*\})", text[group[-1].end :])
            extra = "\\%" if mark else ""
        return Answer(contents[0] + extra, BOX, notes=tuple(notes))
    return Answer(", ".join(contents), BOX, tuple(contents), tuple(notes))


def _together(text: str, filled: list[_Box], parts: int, notes: list[str]) -> list[_Box]:
    r"""The boxes at the end that belong together.

    Where the gold has one part, those are boxes of one formula, or of plain text, with a comma or a word between them:
    `$\boxed{2}, \boxed{3}$` gives two answers. `$\boxed{2}$ and $\boxed{3}$` is judged by its last box then, as the
    MATH set is. "Or" offers alternatives, of which none is the answer, unless the text says that all of them hold.
    """
    group = [filled[-1]]
    for box in reversed(filled[:-1]):
        between = text[box.end : group[0].start]
        if not _joins(between):
            break
        hedged = _OR.search(between) and not _ALL_HOLD.search(text[max(0, box.start - 150) : box.start])
        if parts == 1 and _ends_a_formula(between) and not (hedged and not _BOTH.search(text, filled[-1].end)):
            notes.append("a box in a formula of its own is another statement: the last one counts")
            break
        group.insert(0, box)
    held = [(box.content or "").strip() for box in group]
    if parts > 1 and sum(map(_holds, held)) < parts and len(filled) > len(group):
        wider = list(group)
        for box in reversed(filled[: -len(group)]):
            between = text[box.end : wider[0].start]
            if _TAKEN_BACK.search(between):
                break
            wider.insert(0, box)
        contents = list(dict.fromkeys((box.content or "").strip() for box in wider))
        if parts in (len(contents), len(wider)):
            return wider
    return group


def _ends_a_formula(between: str) -> bool:
    """Does a formula end and another begin between two boxes?"""
    return re.search(r"\$[^$]*\w[^$]*\$|\\[)\]].*\w.*\\[(\[]", between, re.DOTALL) is not None


def _holds(content: str) -> int:
    """How many answers a box holds."""
    try:
        node = read(normal_form(content))
    except Unreadable:
        return 1
    return len(node[1]) if node[0] in ("list", "set", "groups") else 1


def _joins(between: str) -> bool:
    """Does the text between two boxes make a list of them?"""
    text = re.sub(r"\\(?:quad|qquad|[,;:! ])|\$|\\[()\[\]]|~|&|\\text(?=\{)|\*", " ", between)
    text = re.sub(r"[{}]", " ", text)
    if "\n" in text.strip(" \t") and not re.search(r"(?:,|;|\band\b|\bor\b)\s*\Z", text.strip()):
        return False
    if len(text) > 80 or _RETRACTED.search(text):
        return False
    words = text.strip()
    if not re.search(r"[a-zA-Z0-9=]", words):
        return len(words) <= 10
    # "and", "papers and", "for part (a) and", "and y_2 =".
    return (
        re.fullmatch(
            r"[^.?!:=]*(?:,|;|\b(?:and|or)\b)\s*(?:else|maybe|perhaps|possibly|(?:it )?(?:could|may|might|"
            r"can) be)?\s*(?:[a-zA-Z]\w*(?:_\w+)?\s*(?:\([a-z]\))?\s*=)?",
            words,
        )
        is not None
    )


def _after_phrase(text: str, phrase: re.Pattern[str], alone: bool = False, letter: bool = False) -> str | None:
    """What is given as the answer after the last such phrase that is followed by one.

    Args:
        alone: the sentence must hold nothing else.
    """
    for match in reversed(list(phrase.finditer(text))[-_MOST_PHRASES:]):
        answer = _stated(text[match.end() : match.end() + _LONGEST_STATEMENT], alone, letter)
        if answer is not None:
            return trimmed(answer)
    return None


def _stated(rest: str, alone: bool = False, letter: bool = False) -> str | None:
    """The answer in the sentence that begins here: a formula, a choice, a number, or a few words.

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
    if stripped and len(stripped) <= 120 and _readable(stripped) and not _words(stripped):
        return stripped
    if alone:
        return None
    formulas = [(match.start(), match.end(), _inner(match)) for match in _MATH.finditer(sentence)]
    formulas = _listed(sentence, formulas)
    numbers = [
        match for match in _PLAIN_NUMBER.finditer(sentence) if not _inside(match.start(), _MATH.finditer(sentence))
    ]
    if formulas and (not numbers or formulas[-1][1] > numbers[-1].end()):
        tail = re.match(r"\s*(?:\\?%|percent\b|pct\b)", sentence[formulas[-1][1] :])
        return formulas[-1][2].strip() + ("\\%" if tail else "")
    if numbers:
        listed = _listed(sentence, [(match.start(), match.end(), _plain(match, sentence)) for match in numbers])
        return listed[-1][2]
    if stripped and len(stripped.split()) <= 4 and len(stripped) <= 40:
        return stripped
    return None


def _words(text: str) -> bool:
    """Are there words of prose in it, other than names of functions, units, and what stands in text commands?"""
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


def _inside(position: int, spans: Any) -> bool:
    return any(span.start() <= position < span.end() for span in spans)


def _listed(text: str, formulas: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Formulas with only "and" or a comma between them, as one list."""
    joined: list[tuple[int, int, str]] = []
    for start, end, inner in formulas:
        if joined and re.fullmatch(r"\s*(?:,|;|,?\s*and|,?\s*or)\s*", text[joined[-1][1] : start]):
            before = joined.pop()
            joined.append((before[0], end, f"{before[2]}, {inner}"))
        else:
            joined.append((start, end, inner))
    return joined


def _plain(match: re.Match[str], text: str) -> str:
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


def _readable(text: str) -> bool:
    try:
        read(normal_form(text))
    except Unreadable:
        return False
    return True


def _unboxed(text: str, notes: list[str], letter: bool) -> Answer:
    stripped = text.strip()
    if not stripped:
        return Answer(None, NONE, notes=(*notes, "empty"))
    stated = _after_phrase(text, _ANSWER_IS, letter=letter)
    if stated is not None:
        return Answer(stated, PHRASE, notes=tuple(notes))
    if len(stripped) <= 300 and "\n" not in stripped and not _words(stripped) and _readable(stripped.strip("*")):
        return Answer(stripped.strip("*"), WHOLE, notes=tuple(notes))
    formulas = _listed(text, [(match.start(), match.end(), _inner(match)) for match in _MATH.finditer(text)])
    numbers = list(_PLAIN_NUMBER.finditer(text))
    spans = [(start, end) for start, end, _ in formulas]
    outside = [match for match in numbers if not any(start <= match.start() < end for start, end in spans)]
    for start, end, inner in reversed(formulas):
        later = [match for match in outside if match.start() >= end]
        if later:
            break
        if _readable(inner):
            tail = re.match(r"\s*(?:\\?%|percent\b|pct\b)", text[end:])
            return Answer(inner.strip() + ("\\%" if tail else ""), FORMULA, notes=tuple(notes))
        del start
        break
    if numbers and re.search(r"\b(?:not|isn't)\s*\Z", text[: numbers[-1].start()]):
        return Answer(None, NONE, notes=(*notes, "the last number is denied"))
    if numbers:
        return Answer(_plain(numbers[-1], text), NUMBER, notes=tuple(notes))
    if formulas:
        return Answer(formulas[-1][2].strip(), FORMULA, notes=tuple(notes))
    if len(stripped.split()) == 1 and len(stripped) <= 40:
        return Answer(stripped, WHOLE, notes=tuple(notes))
    return Answer(None, NONE, notes=(*notes, "no box, formula or number"))
