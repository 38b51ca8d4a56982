"""Two methods on the same problems: which one is better, and could it be chance?"""

import glob
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder_cli.errors import UserError
from ladder_cli.evaluation.samples import Sample, read_samples
from ladder_cli.evaluation.statistics import holm, mcnemar, mean_difference
from ladder_cli.evaluation.summary import Answers, score_matrix, summarise
from ladder_cli.run_dir import EVALUATION, SAMPLES, SETTINGS, pattern_name, read_json

MCNEMAR, STUDENT = "McNemar, exact", "t over runs and problems"
# Settings that two sides may differ in and still be compared without a word.
_OWN = ("weights", "prompt", "seed", "repeat", "completions")
_Repeats = list[dict[str, Sample]]


@dataclass(frozen=True)
class Side:
    """Runs of one method: benchmark -> run -> repeats -> samples by problem id."""

    name: str
    samples: dict[str, dict[str, _Repeats]]
    settings: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Compared:
    """One benchmark.

    Attributes:
        first, second: the figures of each side over the paired problems, as in `summary.json`.
        difference: of the mean scores, first minus second, with its 95% interval `low` to `high`.
        only_first, only_second: problems that one side alone has right, where both are a single run; else None.
        p_value: of no difference, by `test`; `p_holm` is corrected for the number of benchmarks.
        unpaired: problems that not every run has answered, and that are left out.
        notes: settings in which the sides differ.
        lengths: tokens of each side's correct and incorrect completions.
    """

    benchmark: str
    first: dict[str, Any]
    second: dict[str, Any]
    difference: float
    low: float
    high: float
    only_first: int | None
    only_second: int | None
    test: str
    p_value: float
    p_holm: float
    unpaired: int
    notes: list[str]
    lengths: list[dict[str, list[int]]]


def read_side(pattern: str) -> Side:
    """What has been evaluated of a run directory, a folder of `output_dir=`, or a glob of several.

    Raises:
        UserError: if there are no samples.
    """
    found = [pattern] if Path(pattern).is_dir() else sorted(glob.glob(pattern))
    folders = {Path(path): Path(path) / EVALUATION for path in found if (Path(path) / EVALUATION).is_dir()}
    folders |= {Path(path): Path(path) for path in found if Path(path).is_dir() and Path(path) not in folders}
    samples: dict[str, dict[str, _Repeats]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for run in sorted(folders):
        for benchmark, repeats in _read_folder(folders[run]).items():
            samples.setdefault(benchmark, {})[str(run)] = repeats
            kept = folders[run] / benchmark / SETTINGS
            settings.setdefault(benchmark, read_json(kept) if kept.is_file() else {})
    if not samples:
        raise UserError(
            f"compare: {pattern} holds no samples of an evaluation: evaluate it first (ladder-eval run='{pattern}'), "
            "or name the folder that output_dir was; several runs are a quoted glob such as 'DIR/*'."
        )
    several = len(folders) > 1
    return Side(f"{pattern_name(pattern)} ({len(folders)} runs)" if several else Path(found[0]).name, samples, settings)


def _read_folder(folder: Path) -> dict[str, _Repeats]:
    """Benchmark -> repeats; the folder of graded completions has one file for all benchmarks."""
    by_benchmark: dict[str, _Repeats] = {}
    for sample in read_samples(folder / SAMPLES).values():
        by_benchmark.setdefault(str(sample.get("benchmark") or "-"), [{}])[0][sample["id"]] = sample
    for path in sorted(folder.glob(f"*/{SAMPLES}")):
        repeats = sorted(path.parent.glob(f"repeat-*/{SAMPLES}"), key=lambda each: int(each.parent.name[7:]))
        by_benchmark[path.parent.name] = [read_samples(each) for each in (path, *repeats)]
    return by_benchmark


def compare(first: Side, second: Side) -> list[Compared]:
    """Every benchmark that both sides have answered.

    Raises:
        UserError: if there is none, or the sides have been graded against different gold answers.
    """
    shared = [benchmark for benchmark in first.samples if benchmark in second.samples]
    if not shared:
        raise UserError(
            f"compare: no benchmark in common ({first.name}: {', '.join(first.samples)}; {second.name}: "
            f"{', '.join(second.samples)})."
        )
    compared = [_compare(benchmark, first, second) for benchmark in shared]
    corrected = holm([each.p_value for each in compared])
    return [Compared(**{**vars(each), "p_holm": p}) for each, p in zip(compared, corrected, strict=True)]


def _compare(benchmark: str, first: Side, second: Side) -> Compared:
    runs = [repeats for side in (first, second) for repeats in side.samples[benchmark].values()]
    answered = [set(repeat) for repeats in runs for repeat in repeats]
    paired = [name for name in runs[0][0] if all(name in each for each in answered)]
    if len(paired) < 2:
        raise UserError(f"compare: {first.name} and {second.name} share {len(paired)} problem(s) of {benchmark}.")
    for name in paired:
        if len({str(repeat[name]["gold"]) for repeats in runs for repeat in repeats}) > 1:
            raise UserError(f"compare: the gold answers of {benchmark} differ ('{name}'): evaluate one side again.")
    sides: list[Answers] = [
        {run: [[repeat[name] for name in paired] for repeat in repeats] for run, repeats in each.items()}
        for each in (first.samples[benchmark], second.samples[benchmark])
    ]
    scores = [score_matrix(answers) for answers in sides]
    result = mean_difference(*scores)
    only: tuple[int | None, int | None] = (None, None)
    test, p_value = STUDENT, result.p_value
    if len(scores[0]) == len(scores[1]) == 1:
        apart = scores[0][0] - scores[1][0]
        only = (int((apart > 0).sum()), int((apart < 0).sum()))
        test, p_value = MCNEMAR, mcnemar(*only)
    settings = [side.settings.get(benchmark, {}) for side in (first, second)]
    greedy = [not each.get("temperature") for each in settings]
    figures = [summarise(answers, each) for answers, each in zip(sides, greedy, strict=True)]
    return Compared(
        benchmark=benchmark,
        first=figures[0],
        second=figures[1],
        difference=result.value,
        low=result.low,
        high=result.high,
        only_first=only[0],
        only_second=only[1],
        test=test,
        p_value=p_value,
        p_holm=p_value,
        unpaired=len(set.union(*answered)) - len(paired),
        notes=_differences(*settings),
        lengths=[_lengths(answers) for answers in sides],
    )


def _differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    keys = [key for key in first if key in second and key not in _OWN and first[key] != second[key]]
    return [f"{key}: {json.dumps(first[key])} against {json.dumps(second[key])}" for key in keys]


def _lengths(answers: Answers) -> dict[str, list[int]]:
    samples: Iterable[Sample] = (s for repeats in answers.values() for repeat in repeats for s in repeat)
    lengths: dict[str, list[int]] = {"correct": [], "incorrect": []}
    for sample in samples:
        if sample.get("tokens") is not None:
            lengths["correct" if sample["verdict"] == "correct" else "incorrect"].append(sample["tokens"])
    return lengths
