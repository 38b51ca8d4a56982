r"""Finds boxes in a completion (`\boxed{..}` and its variants) and decides which belong together.

The only place that knows what a box is. Imports no torch.
"""

import re
from dataclasses import dataclass

from ladder_cli.evaluate.answers.expression import Unreadable, read
from ladder_cli.evaluate.answers.latex_commands import closing_brace
from ladder_cli.evaluate.answers.normal_form import normal_form

_BOX = re.compile(r"\\(?:boxed|fbox|framebox|Boxed|bbox)(?![a-zA-Z])\s*(?:\[[^\]]*\]\s*)?")
_PLACEHOLDER = re.compile(
    r"(?:\\text\s*\{)?\s*[\[<(]?\s*(?:(?:the|your|my|our)?[\s_\\]*(?:final|numerical|correct)?[\s_\\]*(?:answer|result|solution|value|number|expression)"
    r"(?:[\s_]*here)?|insert.*|\.\.\.|\\l?dots|\\cdots|\\ldots|…|\?|_+|\\_+|\\square|\\quad|-+|answer_here|\\cdot|\\text\{\}|\{\}|ans|\\;|n/?a)\s*[\])>]?\s*\}?\s*",
    re.IGNORECASE,
)
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
_ALL_HOLD = re.compile(r"\b(?:values|solutions|roots)\b[^.?!]*\bare\b[^.?!]*\Z")
_BOTH = re.compile(r"\bboth (?:values|solutions|roots|of (?:them|these))\b")
_OR = re.compile(r"(?<![a-zA-Z])or(?![a-zA-Z])", re.IGNORECASE)


@dataclass(frozen=True)
class Box:
    """One box: `text[start:end]` is the whole of it.

    Attributes:
        content: what stands in it; None if the box only begins and is never closed.
    """

    start: int
    end: int
    content: str | None

    @property
    def empty(self) -> bool:
        """Whether the box is complete and holds nothing, or a placeholder such as "your answer"."""
        return self.content is not None and (
            not self.content.strip() or _PLACEHOLDER.fullmatch(self.content) is not None
        )


def boxes(text: str) -> list[str]:
    """Return the contents of the complete boxes, in order; of nested boxes the inner one."""
    return [box.content for box in find_boxes(text) if box.content is not None]


def opens_box(text: str) -> bool:
    """Return whether a box begins in the text, complete or not."""
    return _BOX.search(text) is not None


def find_boxes(text: str) -> list[Box]:
    """Find every box in one pass, in the order of the text; of nested boxes the inner one."""
    found: list[Box] = []
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
                    found.append(Box(match.start(), len(text), None))
                    return found
                # The inner ones may be complete.
                position = opened + 1
                rest = find_boxes(text[position:]) if text.count("\\boxed", position) < 200 else []
                found += [Box(box.start + position, box.end + position, box.content) for box in rest]
                found.append(Box(match.start(), len(text), None))
                return found
            content = text[opened + 1 : end]
            inner_boxes = [content] if _BOX.search(content) is None else [box.content for box in find_boxes(content)]
            complete = [inner for inner in inner_boxes if inner is not None and inner.strip()]
            only_blank = content if _BOX.search(content) is None else ""
            found.append(Box(match.start(), end + 1, ", ".join(complete) or only_blank))
            position = end + 1
        elif following == "(":
            end = text.find(")", opened)
            found.append(
                Box(match.start(), end + 1 if end > 0 else len(text), text[opened + 1 : end] if end > 0 else None)
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
            found.append(Box(match.start(), opened + token.end(), token.group()))
            position = opened + token.end()
        else:
            position = opened


def together(text: str, filled: list[Box], parts: int, notes: list[str]) -> list[Box]:
    r"""Return the boxes at the end that belong together.

    If the gold has one part, those are boxes of one formula, or of plain text, with a comma or a word between them:
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
    """Return whether a formula ends and another begins between two boxes."""
    return re.search(r"\$[^$]*\w[^$]*\$|\\[)\]].*\w.*\\[(\[]", between, re.DOTALL) is not None


def _holds(content: str) -> int:
    """Count the answers in a box."""
    try:
        node = read(normal_form(content))
    except Unreadable:
        return 1
    return len(node[1]) if node[0] in ("list", "set", "groups") else 1


def _joins(between: str) -> bool:
    """Return whether the text between two boxes makes a list of them."""
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
