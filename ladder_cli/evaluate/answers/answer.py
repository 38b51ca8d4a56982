r"""Finds the answer of a completion. Imports no torch.

A completion is searched in this order; the first that is found decides:

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

from ladder_cli.evaluate.answers.boxes import Box, find_boxes, opens_box, together
from ladder_cli.evaluate.answers.characters import mended
from ladder_cli.evaluate.answers.statements import (
    PLAIN_NUMBER,
    after_phrase,
    formulas_of,
    has_words,
    plain_number,
    readable,
)

# Longer completions are read from their end, where the answer stands.
LONGEST_READ = 20_000
BOX, PHRASE, WHOLE, FORMULA, NUMBER, NONE = "box", "answer is", "whole text", "last formula", "last number", "none"
_THINK = re.compile(r"<(/?)(think|thinking|thought|reasoning|scratchpad)>|(◁)(/?)think▷|(\[)(/?)THINK\]", re.IGNORECASE)
_TURN = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id|end)\|>|</s>|<eos>|<end_of_turn>")
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
        """Return the entries for the line of a sample."""
        reading: dict[str, Any] = {"found": self.found}
        if len(self.boxes) > 1:
            reading["boxes"] = list(self.boxes)
        if self.notes:
            reading["notes"] = list(self.notes)
        return reading


def read_answer(completion: str, truncated: bool = False, parts: int = 1, letter: bool = False) -> Answer:
    """Find the answer of a completion.

    Args:
        truncated: the completion was cut off at the token limit; then only a complete box is an answer.
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
        after = after_phrase(text[found[-1].end :], _ANSWER_IS) if found[-1].content is not None else None
        if after is not None:
            return Answer(after, PHRASE, notes=(*notes, "an empty box was passed over"))
        notes.append("the box is empty" if found[-1].content is not None else "the box only begins")
        return Answer(None, NONE, notes=tuple(notes))
    return _unboxed(text, notes, letter)


def has_box(completion: str) -> bool:
    """Return whether the completion has a complete, non-empty box outside of thoughts."""
    text = _outside_thoughts(mended(completion[-LONGEST_READ:]), [])
    return text is not None and any(box.content is not None and not box.empty for box in find_boxes(text))


def _outside_thoughts(text: str, notes: list[str]) -> str | None:
    """Return the text that may hold the answer: after the last finished thought; None inside an unfinished one."""
    last = None
    for last in _THINK.finditer(text):  # noqa: B007
        pass
    if last is None:
        return text
    closes = "/" in last.group()
    if not closes:
        before = text[: last.start()]
        notes.append("the thought is unfinished")
        return before if before.strip() and opens_box(before) else None
    after = text[last.end() :]
    if _TURN.sub("", after).strip():
        notes.append("what was thought was left out")
        return after
    return text


def _first_turn(text: str) -> str:
    """Cut the text at the mark that ends a turn."""
    match = _TURN.search(text)
    return text[: match.start()] if match and text[: match.start()].strip() else text


def _boxed(text: str, found: list[Box], parts: int, notes: list[str], truncated: bool) -> Answer | None:
    if found and found[-1].content is None:
        return None
    filled = [box for box in found if box.content is not None and not box.empty]
    if not filled:
        return None
    if len(filled) < len(found):
        notes.append("empty boxes were passed over")
    group = together(text, filled, parts, notes)
    contents = [box.content.strip() for box in group if box.content is not None]
    if len(contents) != parts:
        # The same answer given twice is one answer, unless the gold has as many parts.
        contents = list(dict.fromkeys(contents))
    if len(group) < len(filled):
        notes.append(
            f"the last of {len(filled)} boxes" if len(group) == 1 else f"the last {len(group)} of {len(filled)} boxes"
        )
    if not truncated:
        later = after_phrase(text[filled[-1].end :], _FINAL, alone=True)
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


def _unboxed(text: str, notes: list[str], letter: bool) -> Answer:
    stripped = text.strip()
    if not stripped:
        return Answer(None, NONE, notes=(*notes, "empty"))
    stated = after_phrase(text, _ANSWER_IS, letter=letter)
    if stated is not None:
        return Answer(stated, PHRASE, notes=tuple(notes))
    if len(stripped) <= 300 and "\n" not in stripped and not has_words(stripped) and readable(stripped.strip("*")):
        return Answer(stripped.strip("*"), WHOLE, notes=tuple(notes))
    formulas = [formula for formula in formulas_of(text) if formula[2].strip()]
    numbers = list(PLAIN_NUMBER.finditer(text))
    spans = [(start, end) for start, end, _ in formulas]
    outside = [match for match in numbers if not any(start <= match.start() < end for start, end in spans)]
    for start, end, inner in reversed(formulas):
        later = [match for match in outside if match.start() >= end]
        if later:
            break
        if readable(inner):
            tail = re.match(r"\s*(?:\\?%|percent\b|pct\b)", text[end:])
            return Answer(inner.strip() + ("\\%" if tail else ""), FORMULA, notes=tuple(notes))
        del start
        break
    if numbers and re.search(r"\b(?:not|isn't)\s*\Z", text[: numbers[-1].start()]):
        return Answer(None, NONE, notes=(*notes, "the last number is denied"))
    if numbers:
        return Answer(plain_number(numbers[-1], text), NUMBER, notes=tuple(notes))
    if formulas:
        return Answer(formulas[-1][2].strip(), FORMULA, notes=tuple(notes))
    if len(stripped.split()) == 1 and len(stripped) <= 40:
        return Answer(stripped, WHOLE, notes=tuple(notes))
    return Answer(None, NONE, notes=(*notes, "no box, formula or number"))
