"""The unit that every data set becomes, and the fingerprint of a set of them."""

import hashlib
import json
from collections import Counter
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

    @property
    def prompt_key(self) -> str:
        """What the completion depends on: the question, or the whole chat up to the completion."""
        return json.dumps(self.messages) if self.messages else self.question

    @property
    def questions(self) -> tuple[str, ...]:
        """Everything the user asks: the question, or every user's turn of a chat."""
        return tuple(text for role, text in self.messages if role == "user") or (self.question,)


@dataclass(frozen=True)
class Splits:
    """Training and validation examples; no prompt stands in both.

    Attributes:
        notes: what a reader of the plan must know of the split: that it leaks, or is smaller than was asked.
    """

    train: list[Example]
    validation: list[Example]
    notes: tuple[str, ...] = ()

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
    """Split by a hash of the prompt, so that the validation set depends on nothing but its size.

    Rows that share a prompt (of a chat: everything up to the completion) are a group and stay on the same side. Groups
    are ordered by their hash; whole groups are held out until there are `validation` rows, and training takes the next
    `train` rows, so that a smaller training set is always contained in a larger one. At most half of the rows are held
    out: a group that would go beyond that is trained on. Where all rows share one prompt there is no such split; it is
    then made by prompt and completion, and a note says that the validation loss knows the prompt.

    Args:
        validation, train: rows of each; None takes all that are left.
        groups: what stands in for each example's prompt where one question has many rows that ask about it.
    """
    keys = groups if groups is not None else [example.prompt_key for example in examples]
    held, rest = _hold_out_groups(examples, keys, validation)
    notes = []
    if not held and len(examples) > 1:
        held, rest = _hold_out_groups(examples, [f"{e.prompt_key}\n{e.completion}" for e in examples], validation)
        if held:
            notes.append(
                f"all {len(examples):,} rows share one prompt: validation rows have the prompt of the "
                "training rows and other completions, so the validation loss says nothing of other prompts"
            )
    elif len(examples) > 1 and (most := max(Counter(keys).values())) > len(examples) // 2:
        notes.append(f"{most:,} of {len(examples):,} rows share one prompt: none of them is held out")
    if held and len(held) < validation:
        notes.append(f"data.validation_samples={validation:,}, held out {len(held):,} (at most half of the rows)")
    if train is not None and train > len(rest):
        notes.append(f"data.train_samples={train:,}, there are {len(rest):,}")
    return Splits(train=rest if train is None else rest[:train], validation=held, notes=tuple(notes))


def _hold_out_groups(examples: list[Example], groups: list[str], wanted: int) -> tuple[list[Example], list[Example]]:
    """Rows held out, and the rest, both in the order of their group's hash."""
    by_key: dict[str, list[Example]] = {}
    for example, group in zip(examples, groups, strict=True):
        key = hashlib.sha256(" ".join(group.split()).encode()).hexdigest()
        by_key.setdefault(key, []).append(example)
    held: list[Example] = []
    rest: list[Example] = []
    for key in sorted(by_key):
        fits = len(held) < wanted and len(held) + len(by_key[key]) <= len(examples) // 2
        (held if fits else rest).extend(by_key[key])
    return held, rest
