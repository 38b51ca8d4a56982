"""Verdicts made anew from completions that are on disk, by the grader of today; and a note on which of them changed.

The note is `regrade.json`: {"graders": {"before", "after"}, "differs": [...], "regraded", "changed", "transitions",
"changes": [...]}.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ladder_cli.data.benchmarks import Problem
from ladder_cli.errors import UserError
from ladder_cli.evaluate.grading import Grade, Grader, Task, grader_identity
from ladder_cli.evaluate.samples import Sample, write_samples
from ladder_cli.generate.engine import LENGTH
from ladder_cli.run.directory import SAMPLES, SETTINGS, read_json, write_json

NOTE = "regrade.json"
_PREFIX = "grader."


@dataclass(frozen=True)
class Change:
    """One verdict that is not what it was.

    Attributes:
        before, after: verdict, and the answer that was read.
    """

    id: str
    sample: int
    benchmark: str | None
    gold: str
    before: tuple[str, str | None]
    after: tuple[str, str | None]

    def as_dict(self) -> dict[str, Any]:
        """For the note."""
        before, after = ({"verdict": verdict, "answer": answer} for verdict, answer in (self.before, self.after))
        return {**vars(self), "before": before, "after": after}


def verdict_of(sample: Sample) -> tuple[str, str | None]:
    """What a sample was given."""
    return sample.verdict, sample.answer


def graded(sample: Sample, grade: Grade) -> Sample:
    """The sample with a new verdict, and everything else as it was."""
    return replace(
        sample,
        answer=grade.answer,
        verdict=grade.verdict,
        reading=grade.reading,
        math_verify=grade.math_verify,
        lacking=tuple(name for name in sample.lacking if name not in ("reading", "math_verify")),
    )


def changes_between(before: Mapping[Any, tuple[str, str | None]], after: Mapping[Any, Sample]) -> list[Change]:
    """The samples that have another verdict than before. Another answer under the same verdict is no change."""
    changed = []
    for key, sample in after.items():
        if key in before and before[key][0] != sample.verdict:
            changed.append(
                Change(
                    id=sample.id,
                    sample=sample.key[1],
                    benchmark=sample.benchmark,
                    gold=sample.gold,
                    before=before[key],
                    after=verdict_of(sample),
                )
            )
    return changed


def recorded_grader(settings: Path) -> dict[str, Any]:
    """The grader that a folder's `settings.json` names; empty where there is none."""
    kept = read_json(settings) if settings.is_file() else {}
    return {key.removeprefix(_PREFIX): value for key, value in kept.items() if key.startswith(_PREFIX)}


def grader_settings(seconds: float) -> dict[str, Any]:
    """The grader of today as `settings.json` holds it."""
    return {f"{_PREFIX}{key}": value for key, value in grader_identity(seconds).items()}


def other_grader_alone(settings: Path, now: Mapping[str, Any]) -> bool:
    """Is a folder's `settings.json` there, and different from `now` in nothing but the grader?"""
    if not settings.is_file():
        return False
    before = read_json(settings)
    differing = {key for key in {*before, *now} if before.get(key) != now.get(key)}
    # The rule of a benchmark is part of how its golds are read.
    return bool(differing) and all(key.startswith(_PREFIX) or key == "rule" for key in differing)


def write_note(
    folder: Path, changes: list[Change], regraded: int, before: dict[str, Any], after: dict[str, Any], console: Console
) -> None:
    """Write `regrade.json` and print what it says in one line."""
    differs = [
        f"{key}: {before.get(key, 'not recorded')} -> {after.get(key, 'none')}"
        for key in dict.fromkeys([*after, *before])
        if before.get(key) != after.get(key)
    ]
    transitions = Counter(f"{change.before[0]} -> {change.after[0]}" for change in changes)
    write_json(
        folder / NOTE,
        {
            "graders": {"before": before, "after": after},
            "differs": differs,
            "regraded": regraded,
            "changed": len(changes),
            "transitions": dict(transitions.most_common()),
            "changes": [change.as_dict() for change in changes],
        },
    )
    what = "; ".join(f"{name}: {count}" for name, count in transitions.most_common()) or "none"
    why = "; ".join(differs) if before else "it was not recorded"
    console.print(
        f"regraded {regraded} completions, {len(changes)} verdict(s) changed ({what}); grader: {why or 'the same'}; "
        f"which ones: {folder / NOTE}",
        soft_wrap=True,
        highlight=False,
    )


def regrade_samples(samples: Iterable[Sample], problems: Iterable[Problem], seconds: float) -> dict[str, Sample]:
    """The samples of one benchmark, graded anew by its golds and rules; those of other problems are left out.

    Raises:
        UserError: if a sample was made for another gold answer.
    """
    known = {problem.id: problem for problem in problems}
    kept = {sample.id: sample for sample in samples if sample.id in known}
    for name, sample in kept.items():
        if sample.gold != known[name].gold:
            raise UserError(f"the gold answer of '{name}' is another one than that of its sample.")
    tasks = (
        Task(name, known[name].gold, sample.completion, sample.stop_reason == LENGTH, known[name].rule)
        for name, sample in kept.items()
    )
    with Grader(seconds=seconds, second_opinion=True) as grader:
        grades = {grade.key: grade for grade in grader.grade(tasks)}
    return {name: graded(sample, grades[name]) for name, sample in kept.items()}


def regrade_folder(
    folder: Path,
    samples: Mapping[str, Sample],
    problems: Iterable[Problem],
    settings: Mapping[str, Any],
    seconds: float,
    console: Console,
) -> dict[str, Sample]:
    """Bring a folder of samples under the grader of today, without generating anything.

    To be called where `other_grader_alone` says so. The note is on disk first, then the samples, then the settings: a
    kill in between leaves a folder that is regraded again. Samples of problems that are not asked for now (under a
    smaller `limit`) cannot be brought along.

    Args:
        samples: all of the folder, by problem.
        settings: that the folder's samples are made under from now on.

    Returns:
        The samples with their new verdicts.

    Raises:
        UserError: if the folder holds samples of problems that are not among `problems`, or of other golds.
    """
    problems = list(problems)
    others = set(samples) - {problem.id for problem in problems}
    if others:
        raise UserError(
            f"{folder} holds samples of another grader, {len(others)} of them of problems that are not asked for now: "
            "leave out limit=, so that all of them are regraded."
        )
    try:
        after = regrade_samples(samples.values(), problems, seconds)
    except UserError as error:
        raise UserError(f"{folder} holds samples of another version of the benchmark: {error}") from error
    before = {name: verdict_of(sample) for name, sample in samples.items()}
    changes = changes_between(before, after)
    then, now = recorded_grader(folder / SETTINGS), grader_identity(seconds)
    write_note(folder, changes, len(after), then, now, console)
    write_samples(folder / SAMPLES, after.values())
    write_json(folder / SETTINGS, dict(settings))
    return after
