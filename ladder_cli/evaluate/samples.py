"""`samples.jsonl`: one graded answer a line, written as it comes, read back to resume.

{"id", "benchmark", "question_digest", "prompt", "completion", "tokens", "stop_reason", "gold", "unit", "error",
"answer", "verdict", "reading", "math_verify"}

Those of `ladder-eval completions=` also have "sample", the number of the completion among those of its problem, from
1, and "rule"; those of a label task have "logits" in place of the last two. A finished file is also what
`completions=` reads, to grade it anew.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ladder_cli.errors import UserError
from ladder_cli.run.directory import read_json, write_json
from ladder_cli.run.files import write_text

# What a line must have.
FIELDS = ("id", "prompt", "completion", "tokens", "stop_reason", "gold", "answer", "verdict")
# What a line has where it is known, and else lacks.
_WHERE_KNOWN = ("sample", "rule", "logits")
# What an answer that was graded has beside those.
_OF_GRADING = ("reading", "math_verify")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A graded answer.

    Attributes:
        id: of the problem.
        number: of the completion among those of its problem, from 1.
        benchmark: None for completions that name none.
        rule: how the gold was read, where the benchmark does not say so.
        question_digest: a hash of the question; None where it is not known.
        prompt: as it was rendered.
        completion: the text; of a label task the label.
        tokens: generated, the end token included; None where that is not known.
        stop_reason: `stop`, `length`, or None: not known, or nothing was generated.
        gold, unit, error: the gold answer, the unit that an answer may be written with, and the absolute difference
            that it may have. A unit of None: samples of an older version, which recorded neither of the two.
        answer: what was read out of the completion; None where nothing was found.
        verdict: `verdict.CORRECT` and others.
        reading: how the answer was found, and how it was compared.
        math_verify: what Math-Verify by itself says; None where it was not asked.
        logits: of the label words.
        others: what else the line holds that it was read from, which is kept.
        lacking: names that the line it was read from lacks, and that are not written either.
    """

    id: str
    number: int | None = None
    benchmark: str | None = None
    rule: str | None = None
    question_digest: str | None = None
    prompt: Any = None
    completion: str
    tokens: int | None
    stop_reason: str | None
    gold: str
    unit: str | None = None
    error: float | None = None
    answer: str | None
    verdict: str
    reading: dict[str, Any] | None = None
    math_verify: str | None = None
    logits: dict[str, float] | None = None
    others: dict[str, Any] = field(default_factory=dict)
    lacking: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all others of its file."""
        return self.id, 1 if self.number is None else self.number

    def to_json(self) -> dict[str, Any]:
        """The line as JSON values."""
        left_out = {*self.lacking, *(_OF_GRADING if self.logits is not None else ())}
        values = {name: getattr(self, attribute) for name, attribute in _ATTRIBUTES.items()}
        return {
            name: value
            for name, value in values.items()
            if not (value is None and (name in left_out or name in _WHERE_KNOWN))
        } | self.others

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """A line that `to_json` gave, in this version or an older one.

        Raises:
            ValueError: if it lacks what every sample has, or its number is none.
        """
        missing = [name for name in FIELDS if name not in values]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        if not isinstance(values.get("sample"), int | None):
            raise ValueError(f"its sample is no number but {str(values['sample'])[:40]}")
        known = {attribute: values[name] for name, attribute in _ATTRIBUTES.items() if name in values}
        return cls(
            **known,
            others={name: value for name, value in values.items() if name not in _ATTRIBUTES},
            lacking=tuple(name for name in _ATTRIBUTES if name not in values),
        )


# Name in the file -> attribute.
_ATTRIBUTES = {
    "sample" if each.name == "number" else each.name: each.name
    for each in fields(Sample)
    if each.name not in ("others", "lacking")
}


def read_samples(path: Path) -> dict[str, Sample]:
    """Finished samples by problem id. A last line that a kill cut short is taken off the file.

    Raises:
        UserError: if a line that is not the last one is broken, or the file holds several completions of a problem.
    """
    samples = read_completion_samples(path)
    for problem, number in samples:
        if number != 1:
            raise UserError(
                f"{path} holds several completions of problem '{problem}', which `completions={path}` reads, and "
                "nothing that pairs problems."
            )
    return {problem: sample for (problem, _), sample in samples.items()}


def read_completion_samples(path: Path) -> dict[tuple[str, int], Sample]:
    """Finished samples by problem id and number of the completion. A last line that a kill cut short is taken off.

    Raises:
        UserError: if a line that is not the last one is broken.
    """
    if not path.is_file():
        return {}
    samples: dict[tuple[str, int], Sample] = {}
    content = path.read_bytes()
    whole, newline, rest = content.rpartition(b"\n")
    if rest:
        with path.open("r+b") as file:
            file.truncate(len(whole) + len(newline))
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            sample = Sample.from_json(json.loads(line))
            samples[sample.key] = sample
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not a sample ({error}): delete the line or the file.") from error
    return samples


def as_lines(samples: Iterable[Sample]) -> str:
    """The samples as a file holds them."""
    return "".join(json.dumps(sample.to_json()) + "\n" for sample in samples)


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write a whole file, or leave the one that is there."""
    write_text(path, as_lines(samples))


def append_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Append whole lines and flush them to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(as_lines(samples).encode())
        file.flush()
        os.fsync(file.fileno())


def same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings that samples are made under; or refuse to add to samples that were made under others.

    Raises:
        UserError: with every setting that differs.
    """
    if not path.is_file():
        write_json(path, settings)
        return
    before = read_json(path)
    changed = [f"{key}: {before.get(key)} -> {value}" for key, value in settings.items() if before.get(key) != value]
    if changed:
        raise UserError(
            f"{path.parent} holds samples of other settings ({'; '.join(changed)}): give another output_dir, or delete "
            f"that folder. Without a model its completions are graded anew by ladder-eval "
            f"completions={path.parent / 'samples.jsonl'} output_dir=NEW."
        )
