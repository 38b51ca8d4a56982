"""Finds training questions that are also in a benchmark: a score on those is memory, not skill."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ladder_cli.data.examples import Example, Splits

# What typesetting adds without changing a question.
_TYPESETTING = re.compile(r"\\(?:left|right|displaystyle|dfrac|tfrac|text|mathrm|quad|qquad|[,;:! ])")
_NOT_WORDS = re.compile(r"[^0-9a-z+\-*/=<>^]+")


def normalised(question: str) -> str:
    """Return a question without case, white space, punctuation and typesetting."""
    plain = _TYPESETTING.sub(lambda match: "frac" if "frac" in match.group() else " ", question.lower())
    return _NOT_WORDS.sub("", plain)


@dataclass(frozen=True)
class Overlap:
    """Ids of training examples with a question (of a chat: any) that is in a benchmark."""

    exact: list[str]
    normalised: list[str]  # the exact ones among them


def overlap(examples: Iterable[Example], questions: Iterable[str]) -> Overlap:
    """Compare training questions with those of one benchmark."""
    exact = {" ".join(question.split()) for question in questions}
    loose = {normalised(question) for question in exact} - {""}
    examples = list(examples)
    return Overlap(
        [example.id for example in examples if any(" ".join(asked.split()) in exact for asked in example.questions)],
        [example.id for example in examples if any(normalised(asked) in loose for asked in example.questions)],
    )


def without(splits: Splits, questions: Iterable[str]) -> tuple[Splits, int]:
    """Drop examples whose normalised question is among `questions`; return the splits and how many were dropped."""
    loose = {normalised(question) for question in questions} - {""}

    def clean(examples: list[Example]) -> list[Example]:
        return [e for e in examples if not any(normalised(asked) in loose for asked in e.questions)]

    cleaned = replace(splits, train=clean(splits.train), validation=clean(splits.validation))
    before = len(splits.train) + len(splits.validation)
    return cleaned, before - len(cleaned.train) - len(cleaned.validation)
