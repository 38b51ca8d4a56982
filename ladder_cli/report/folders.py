"""What a report is about: run directories and folders of evaluations, read whole or refused with one line.

Nothing is written here, not even the repair of a last line that a kill cut short: such a folder is unfinished.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ladder_cli.data.classification import LABELS
from ladder_cli.errors import UserError
from ladder_cli.evaluate.comparison import Side
from ladder_cli.evaluate.pass_at_k import summarise_problems
from ladder_cli.evaluate.samples import Sample, read_completion_samples
from ladder_cli.evaluate.summary import summarise, summarise_labels
from ladder_cli.report.training import Training, read_training
from ladder_cli.run.directory import (
    RESULT,
    SAMPLES,
    SETTINGS,
    RunDir,
    match_folders,
    read_json,
    repeat_folder,
    run_names,
)

LABEL_TASK = "label"
_NO_BENCHMARK = "-"  # of completions that name none
_DONE = "done"


@dataclass(frozen=True)
class Answered:
    """What one model answered of a benchmark, with its verdicts.

    Attributes:
        repeats: the samples of every repeat, in the order of the problems.
        settings: what they were made and graded under; empty where nobody recorded it.
        figures: as `summary.json` has them, computed anew from the samples.
        several: some problem has several completions in one repeat, so that nothing pairs problems.
    """

    benchmark: str
    repeats: list[list[Sample]]
    settings: dict[str, Any]
    figures: dict[str, Any]
    several: bool = False

    @property
    def greedy(self) -> bool:
        """Whether the completions are known to be greedy."""
        return self.settings.get("temperature") == 0


@dataclass(frozen=True)
class Reported:
    """One folder of the report.

    Attributes:
        name: by which it is told from the others.
        group: what the runs of one experiment share (all but the seed); of any other folder itself.
        training: None of what was not trained here.
        evaluations: by benchmark; empty for a run that nobody evaluated.
    """

    name: str
    path: Path
    group: str
    training: Training | None
    evaluations: dict[str, Answered] = field(default_factory=dict)

    def side(self) -> Side:
        """For a comparison, all that pairs problems."""
        answered = {name: each for name, each in self.evaluations.items() if not each.several}
        path = str(self.path)
        return Side(
            self.name,
            {
                name: {path: [{sample.id: sample for sample in repeat} for repeat in each.repeats]}
                for name, each in answered.items()
            },
            {name: {path: each.settings} for name, each in answered.items()},
        )


def read_folders(patterns: Sequence[str]) -> tuple[list[Reported], list[str]]:
    """Read everything that paths and globs name.

    Returns:
        The folders; and a line for each that a glob matched and that is left out.

    Raises:
        UserError: if one is missing, unfinished or damaged; or a path names what is no run and no evaluation.
    """
    found: dict[Path, Path] = {}
    left_out: list[str] = []
    for pattern in patterns:
        folders, aside = match_folders(pattern)
        if not folders:
            raise UserError(f"report: {pattern} names no folder: give run directories or folders of evaluations.")
        left_out += [f"{path}: set aside" for path in aside]
        named = Path(pattern).is_dir()
        kept = 0
        for folder in map(Path, folders):
            why = _left_out(folder)
            if why is None:
                found.setdefault(folder.resolve(), folder)
                kept += 1
            elif named:
                raise UserError(f"report: {folder}: {why}.")
            else:
                left_out.append(f"{folder}: {why}")
        if not kept:
            raise UserError(f"report: {pattern} names no finished run and no evaluation ({left_out[-1]}).")
    names = run_names([RunDir(path) for path in found.values()])
    return [_read(path, names[path]) for path in found.values()], left_out


def _left_out(folder: Path) -> str | None:
    """Why a folder cannot be reported on at all; None if it can."""
    run = RunDir(folder)
    if run.config.is_file() or run.run.is_file():
        status = run.status()
        return None if status == _DONE else f"its training is not finished ({status or 'not begun'})"
    if _benchmark_folders(folder) or (folder / SAMPLES).is_file():
        return None
    return "holds no run and no samples of an evaluation"


def _read(path: Path, name: str) -> Reported:
    run = RunDir(path)
    trained = run.config.is_file() or run.run.is_file()
    folder = run.evaluation if trained else path
    evaluations = {each.name: _read_benchmark(each, name) for each in _benchmark_folders(folder)}
    if (folder / SAMPLES).is_file():
        evaluations |= _read_completions(folder, name)
    group = run.experiment() if trained else str(path.resolve())
    return Reported(name, path, group, read_training(run) if trained else None, evaluations)


def _benchmark_folders(folder: Path) -> list[Path]:
    return [path.parent for path in sorted(folder.glob(f"*/{SAMPLES}"))] if folder.is_dir() else []


def _read_benchmark(folder: Path, name: str) -> Answered:
    result = _result(folder)
    extent = result.get("extent")
    count = extent.get("repeats") if isinstance(extent, dict) else result.get("n_repeats", 1)
    if not isinstance(count, int):
        raise _damaged(folder / RESULT, "it does not say over how many repeats it is")
    made = [folder, *sorted(folder.glob("repeat-*"))]
    if len(made) != count:
        raise _unfinished(folder, f"{len(made)} repeats of which {count} are in {RESULT}")
    repeats = []
    for number in range(count):
        samples = _samples(repeat_folder(folder, number) / SAMPLES)
        if any(each.number not in (None, 1) for each in samples):
            raise _damaged(repeat_folder(folder, number) / SAMPLES, "several completions of one problem")
        repeats.append(samples)
    order = [sample.id for sample in repeats[0]]
    if any({sample.id for sample in repeat} != set(order) for repeat in repeats):
        raise _unfinished(folder, "its repeats answer different problems")
    by_id = [{sample.id: sample for sample in repeat} for repeat in repeats]
    repeats = [[repeat[problem] for problem in order] for repeat in by_id]
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    if settings.get("kind") == LABEL_TASK:
        figures = summarise_labels({name: repeats}, LABELS[1])
    else:
        figures = summarise({name: repeats}, settings.get("temperature") == 0)
    _refuse_other_figures(folder, result, figures)
    return Answered(folder.name, repeats, settings, figures)


def _read_completions(folder: Path, name: str) -> dict[str, Answered]:
    """Graded completions: one file for all benchmarks, perhaps several completions of a problem."""
    result = _result(folder)
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    by_benchmark: dict[str, list[Sample]] = {}
    for sample in _samples(folder / SAMPLES):
        by_benchmark.setdefault(sample.benchmark or _NO_BENCHMARK, []).append(sample)
    recorded = result.get("benchmarks", {})
    answered = {}
    for benchmark, samples in by_benchmark.items():
        problems: dict[str, list[Sample]] = {}
        for sample in samples:
            problems.setdefault(sample.id, []).append(sample)
        for completions in problems.values():
            completions.sort(key=lambda each: each.key)
        samples = [sample for completions in problems.values() for sample in completions]
        figures = summarise_problems(name, list(problems.values()))
        _refuse_other_figures(folder, recorded.get(benchmark, {}) if recorded else result, figures)
        several = any(len(each) > 1 for each in problems.values())
        answered[benchmark] = Answered(benchmark, [samples], settings, figures, several)
    return answered


def _result(folder: Path) -> dict[str, Any]:
    if not (folder / RESULT).is_file():
        raise _unfinished(folder, f"no {RESULT}")
    return read_json(folder / RESULT)


def _samples(path: Path) -> list[Sample]:
    """The samples of a file, in its order.

    Raises:
        UserError: if it is missing, its last line was cut short, or a line is no sample.
    """
    if not path.is_file():
        raise _unfinished(path.parent, f"no {SAMPLES}")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 1, 0))
        if file.read(1) != b"\n":
            raise _unfinished(path.parent, f"the last line of {SAMPLES} is cut short" if size else f"empty {SAMPLES}")
    samples = list(read_completion_samples(path).values())
    for number, sample in enumerate(samples, start=1):
        texts = (sample.id, sample.completion, sample.gold, sample.verdict)
        if not all(isinstance(text, str) for text in texts) or not isinstance(sample.tokens, int | None):
            raise _damaged(path, f"sample {number} holds something else where text or a number belongs")
    return samples


def _refuse_other_figures(folder: Path, result: dict[str, Any], figures: dict[str, Any]) -> None:
    """Refuse samples that are not those which `result.json` is over: fewer, more, or with other verdicts."""
    if result.get("n_problems") != figures["n_problems"]:
        raise _unfinished(
            folder, f"answers to {figures['n_problems']} problems, and {RESULT} over {result.get('n_problems')}"
        )
    recorded = result.get("pass_at_1")
    if not isinstance(recorded, int | float) or not math.isclose(recorded, figures["pass_at_1"], abs_tol=1e-9):
        raise _damaged(folder / RESULT, f"pass_at_1 is {recorded}, and {SAMPLES} gives {figures['pass_at_1']}")


def _unfinished(folder: Path, what: str) -> UserError:
    return UserError(f"report: the evaluation in {folder} is unfinished ({what}): run the same ladder-eval again.")


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"report: {path} is damaged ({what}): restore it, or evaluate again.")
