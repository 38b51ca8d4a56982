"""The unit that every data set becomes, and the fingerprint of a set of them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Example:
    """One question and the completion to learn.

    Attributes:
        id: stable within its set.
        question: what the user asks, without instruction or template.
        completion: what the model is to answer.
        messages: (role, text) of a whole chat up to the completion, where the prompt is not the question alone.
    """

    id: str
    question: str
    completion: str
    messages: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Splits:
    """Training and validation examples; no question stands in both.

    Attributes:
        drawn: the training rows are drawn with the seed: another seed, other rows.
    """

    train: list[Example]
    validation: list[Example]
    drawn: bool = False

    @property
    def fingerprint(self) -> str:
        """A hash of every row in order: equal fingerprints mean equal data."""
        return fingerprint([*self.train, *self.validation])


def fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 over the rows in order, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def hold_out(examples: list[Example], validation: int, train: int | None, groups: list[str] | None = None) -> Splits:
    """Split by a hash of the question, so that the validation set depends on nothing but its size (at most half).

    Rows are ordered by that hash; the first `validation` questions are held out and training takes the next `train`
    rows, so that a smaller training set is always contained in a larger one. Rows that share a question stay on the
    same side.

    Args:
        validation, train: rows of each; None takes all that are left.
        groups: what stands in for each example's question where one question has many rows that ask about it.
    """
    asked = groups if groups is not None else [example.question for example in examples]
    keys = {
        id(example): hashlib.sha256(" ".join(question.split()).encode()).hexdigest()
        for example, question in zip(examples, asked, strict=True)
    }

    def key(example: Example) -> str:
        return keys[id(example)]

    ordered = sorted(examples, key=key)
    held = min(validation, len(ordered) // 2)
    while 0 < held < len(ordered) and key(ordered[held]) == key(ordered[held - 1]):
        held += 1
    rest = ordered[held:]
    return Splits(train=rest if train is None else rest[:train], validation=ordered[:held])
