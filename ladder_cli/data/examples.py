"""Examples: what every data set becomes, how they are split, and the fingerprint of a set."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Example:
    """One question and the completion to learn.

    Attributes:
        id: stable within its set.
        question: what the user asks, without instruction or template.
        completion: what the model is to answer.
        messages: (role, text) of a chat up to the completion, where the prompt is more than the question.
        rejected: of a preference, the answer that `completion` is preferred to.
        gold: the right answer by itself, where a column of the row has it.
    """

    id: str
    question: str
    completion: str
    messages: tuple[tuple[str, str], ...] = ()
    rejected: str | None = None
    gold: str | None = None

    @property
    def answers(self) -> tuple["Example", ...]:
        """Return an example for each row that it becomes: itself, or of a preference one for each of the answers."""
        if self.rejected is None:
            return (self,)
        return replace(self, rejected=None), replace(self, completion=self.rejected, rejected=None)

    @property
    def prompt_key(self) -> str:
        """Return what the completion depends on: the question, or the chat up to the completion."""
        return json.dumps(self.messages) if self.messages else self.question

    @property
    def questions(self) -> tuple[str, ...]:
        """Return all that the user asks: the question, or every user's turn of a chat."""
        return tuple(text for role, text in self.messages if role == "user") or (self.question,)


@dataclass(frozen=True)
class Splits:
    """Training and validation examples. No prompt is in both.

    Attributes:
        notes: warnings for the plan: the split leaks, or is smaller than was asked for.
        drawn: whether the training rows are drawn with the seed, so that another seed gives other rows.
    """

    train: list[Example]
    validation: list[Example]
    notes: tuple[str, ...] = ()
    drawn: bool = False

    @property
    def fingerprint(self) -> str:
        """Hash every row in order: equal fingerprints mean equal data."""
        return fingerprint([*self.train, *self.validation])


def fingerprint(examples: Iterable[Example]) -> str:
    """Return the SHA-256 over the rows in order, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for example in examples:
        values = asdict(example)
        for name in ("rejected", "gold"):
            if values[name] is None:  # as it was hashed before there were such rows
                del values[name]
        digest.update(json.dumps(values, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def hold_out(examples: list[Example], validation: int, train: int | None, groups: list[str] | None = None) -> Splits:
    """Split by a hash of the prompt, so that the validation set depends on nothing but its size.

    Rows that share a prompt (of a chat: everything up to the completion) form a group and stay in one split. Groups are
    ordered by their hash. Whole groups are held out until there are `validation` rows; training takes the next `train`
    rows, so a smaller training set is part of a larger one. At most half of the rows is held out; a group that would
    exceed that is trained on. If all rows share one prompt, the split is by prompt and completion, and a note says that
    the validation loss knows the prompt.

    Args:
        validation, train: numbers of rows; None takes all that are left.
        groups: a key for each example instead of its prompt, where many rows ask about one question.
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
    """Return the rows held out and the rest, both in the order of their group's hash."""
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
