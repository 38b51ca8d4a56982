"""Two methods on the same problems: which one is better, and could it be chance?"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ladder_cli.errors import UserError
from ladder_cli.evaluate.samples import Sample, read_samples
from ladder_cli.evaluate.statistics import holm, mcnemar, mean_difference
from ladder_cli.evaluate.summary import Answers, score_matrix, summarise
from ladder_cli.run.directory import EVALUATION, SAMPLES, SETTINGS, RunDir, match_folders, pattern_name, read_json

MCNEMAR, STUDENT = "McNemar, exact", "t over runs and problems"
# Settings of asking and judging: sides that differ in one of them do not measure the same.
_MEASURED = ("kind", "strategy", "max_new_tokens", "temperature", "top_p", "stop", "labels", "rule", "grader.")
# Settings that may differ between two models without a note.
_OWN = ("weights", "seed", "repeat", "completions")
# Settings that follow from the tokenizer, if the sides have different ones.
_OF_TOKENIZER = ("tokenizer", "end_tokens", "pad_token")
_Repeats = list[dict[str, Sample]]
_Settings = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """Runs of one method: benchmark -> run -> repeats -> samples by problem id.

    Attributes:
        settings: benchmark -> run -> its settings.json, empty if it has none.
        skipped: folders that match the pattern and are no runs.
    """

    name: str
    samples: dict[str, dict[str, _Repeats]]
    settings: dict[str, dict[str, _Settings]]
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Compared:
    """One benchmark.

    Attributes:
        first, second: the metrics of each side over the paired problems, as in `summary.json`.
        difference: of the mean scores, first minus second, with its 95% interval `low` to `high`.
        only_first, only_second: how many problems only that side solves, if both are a single run; else None.
        p_value: of no difference, by `test`; `p_holm` is corrected for the number of benchmarks.
        unpaired: how many problems are left out because some run has not answered them.
        notes: settings in which the sides differ.
        lengths: tokens of each side's correct and incorrect completions.
        greedy: for each side, whether its completions are known to be greedy.
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
    greedy: list[bool]


def read_side(pattern: str) -> Side:
    """Read the samples of a run directory, a folder of `output_dir=`, or a glob of several.

    If a glob matches run directories, only those are read; folders of evaluations and comparisons beside them, and runs
    that were set aside, are skipped.

    Raises:
        UserError: if there are no samples, a run has none, or the runs differ in more than their seed.
    """
    found, skipped = match_folders(pattern)
    runs = [path for path in found if RunDir(path).config.is_file()]
    if runs:
        skipped += [path for path in found if path not in runs]
        found = runs
    samples: dict[str, dict[str, _Repeats]] = {}
    settings: dict[str, dict[str, _Settings]] = {}
    for path in found:
        folder = Path(path) / EVALUATION if (Path(path) / EVALUATION).is_dir() else Path(path)
        answered = _read_folder(folder)
        if not answered and len(found) > 1:
            if not runs:
                skipped.append(path)
                continue
            raise UserError(f"compare: {path} of {pattern} holds no samples: evaluate it first, or leave it out.")
        for benchmark, repeats in answered.items():
            samples.setdefault(benchmark, {})[path] = repeats
            kept = folder / benchmark / SETTINGS
            kept = kept if kept.is_file() else folder / SETTINGS
            settings.setdefault(benchmark, {})[path] = read_json(kept) if kept.is_file() else {}
    if not samples:
        raise UserError(
            f"compare: {pattern} holds no samples of an evaluation: evaluate it first (ladder-eval run='{pattern}'), "
            "or name the folder that output_dir was; several runs are a quoted glob such as 'DIR/*'."
        )
    _same_experiment(pattern, runs)
    count = len({path for by_run in samples.values() for path in by_run})
    name = f"{pattern_name(pattern)} ({count} runs)" if count > 1 else Path(found[0]).name
    return Side(name, samples, settings, skipped)


def _same_experiment(pattern: str, runs: list[str]) -> None:
    experiments = {path: RunDir(path).experiment() for path in runs}
    other = next((path for path in runs if experiments[path] != experiments[runs[0]]), None)
    if other is not None:
        raise UserError(
            f"compare: {pattern} names runs of several experiments ({runs[0]} and {other} differ in more than the "
            "seed): a side is the runs of one; narrow the pattern."
        )


def _read_folder(folder: Path) -> dict[str, _Repeats]:
    """Read benchmark -> repeats. A folder of graded completions has one file for all benchmarks."""
    by_benchmark: dict[str, _Repeats] = {}
    for sample in read_samples(folder / SAMPLES).values():
        by_benchmark.setdefault(sample.benchmark or "-", [{}])[0][sample.id] = sample
    for path in sorted(folder.glob(f"*/{SAMPLES}")):
        repeats = sorted(path.parent.glob(f"repeat-*/{SAMPLES}"), key=lambda each: int(each.parent.name[7:]))
        by_benchmark[path.parent.name] = [read_samples(each) for each in (path, *repeats)]
    return by_benchmark


def compare(first: Side, second: Side, allow_settings_mismatch: bool = False) -> list[Compared]:
    """Compare the sides on every benchmark that both have answered.

    Args:
        allow_settings_mismatch: also compare sides that were decoded or graded differently; `notes` say how.

    Raises:
        UserError: if there is none, if a run is on both sides, or if the sides were not measured alike: other questions
            or gold answers, or (unless that is allowed) other decoding or another grader.
    """
    shared = [benchmark for benchmark in first.samples if benchmark in second.samples]
    if not shared:
        raise UserError(
            f"compare: no benchmark in common ({first.name}: {', '.join(first.samples)}; {second.name}: "
            f"{', '.join(second.samples)})."
        )
    paths = [{str(Path(path).resolve()) for runs in side.samples.values() for path in runs} for side in (first, second)]
    for path in sorted(paths[0] & paths[1]):
        raise UserError(f"compare: {path} stands on both sides.")
    compared = [_compare(benchmark, first, second, allow_settings_mismatch) for benchmark in shared]
    corrected = holm([each.p_value for each in compared])
    return [Compared(**{**vars(each), "p_holm": p}) for each, p in zip(compared, corrected, strict=True)]


def _compare(benchmark: str, first: Side, second: Side, allow_settings_mismatch: bool) -> Compared:
    for side in (first, second):
        lacking = {path for runs in side.samples.values() for path in runs} - side.samples[benchmark].keys()
        if lacking:
            raise UserError(
                f"compare: {min(lacking)} has no samples of {benchmark}, which other runs of {side.name} have: "
                "evaluate it on that, or leave it out."
            )
    notes = _differences(benchmark, first, second, allow_settings_mismatch)
    runs = [repeats for side in (first, second) for repeats in side.samples[benchmark].values()]
    answered = [set(repeat) for repeats in runs for repeat in repeats]
    paired = [name for name in runs[0][0] if all(name in each for each in answered)]
    if len(paired) < 2:
        raise UserError(f"compare: {first.name} and {second.name} share {len(paired)} problem(s) of {benchmark}.")
    told = [_same_problem(benchmark, name, first, second) for name in paired]
    if not all(told):
        notes.append(
            f"whether {told.count(False)} problem(s) ask the same question is not recorded; they are paired by id and "
            "gold answer"
        )
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
    settings = [side.settings[benchmark].values() for side in (first, second)]
    sampled = [any(run.get("temperature") for run in each) for each in settings]
    metrics = [summarise(answers, not each) for answers, each in zip(sides, sampled, strict=True)]
    return Compared(
        benchmark=benchmark,
        first=metrics[0],
        second=metrics[1],
        difference=result.value,
        low=result.low,
        high=result.high,
        only_first=only[0],
        only_second=only[1],
        test=test,
        p_value=p_value,
        p_holm=p_value,
        unpaired=len(set.union(*answered)) - len(paired),
        notes=notes,
        lengths=[_lengths(answers) for answers in sides],
        # Nothing is known of graded completions, of label tasks, or without settings.
        greedy=[all(run.get("temperature") == 0 for run in each) for each in settings],
    )


def _same_problem(benchmark: str, name: str, first: Side, second: Side) -> bool:
    """Return whether a problem is known to be the same in all runs of both sides; False if that is not recorded.

    Raises:
        UserError: if its question, gold answer, unit or error differs.
    """
    samples: list[Sample] = []
    rendered: set[Any] = set()
    for side in (first, second):
        for path, repeats in side.samples[benchmark].items():
            samples += [repeat[name] for repeat in repeats]
            rendered.add(side.settings[benchmark][path].get("prompt"))
    again = "evaluate one side again."
    if len({str(sample.gold) for sample in samples}) > 1:
        raise UserError(f"compare: the gold answers of {benchmark} differ ('{name}'): {again}")
    for key in ("unit", "error"):
        if len({str(getattr(sample, key) or "") for sample in samples}) > 1:
            raise UserError(f"compare: the {key}s of the gold answers of {benchmark} differ ('{name}'): {again}")
    digests = {sample.question_digest for sample in samples}
    if len(digests - {None}) > 1:
        raise UserError(f"compare: the questions of {benchmark} differ ('{name}'): {again}")
    prompts = {sample.prompt for sample in samples}
    if digests != {None} and None not in digests:
        return True
    if None not in prompts and len(prompts) > 1 and len(rendered) == 1 and None not in rendered:
        # The rendering is the same and the prompts differ, so the questions differ.
        raise UserError(f"compare: the questions of {benchmark} differ ('{name}'): {again}")
    return prompts != {None} and len(prompts) == 1


def _differences(benchmark: str, first: Side, second: Side, allowed: bool) -> list[str]:
    """Return notes on the settings in which the sides differ.

    Raises:
        UserError: if the runs of one side differ among themselves, or what is measured differs and is not `allowed`.
    """
    kept: list[_Settings] = []
    for side in (first, second):
        (path, settings), *others = side.settings[benchmark].items()
        for other_path, other in others:
            for key in _apart(settings, other):
                raise UserError(
                    f"compare: {path} and {other_path} of {side.name} were not made alike on {benchmark} ({key}: "
                    f"{json.dumps(settings.get(key))} against {json.dumps(other.get(key))}): evaluate one again."
                )
        kept.append(settings)
    one, two = kept
    apart = _apart(one, two)
    said = {key: f"{key}: {json.dumps(one.get(key))} against {json.dumps(two.get(key))}" for key in apart}
    measured = [said[key] for key in apart if key.startswith(_MEASURED) and key in one and key in two]
    if measured and not allowed:
        raise UserError(
            f"compare: {first.name} and {second.name} were not measured alike on {benchmark} ({'; '.join(measured)}): "
            "evaluate one side again, or say allow_settings_mismatch=true."
        )
    untold = [key for key in apart if key not in one or key not in two]
    notes = [said[key] for key in apart if key not in untold]
    for side, settings in ((first, one), (second, two)):
        lacks = [key for key in untold if key not in settings]
        if lacks:
            notes.append(f"{side.name} does not record its {', '.join(lacks)}")
    return notes


def _apart(one: _Settings, two: _Settings) -> list[str]:
    """Return the keys that differ and matter; none if a side has no settings at all."""
    if not one or not two:
        return []
    keys = [key for key in [*one, *(key for key in two if key not in one)] if key not in _OWN]
    if "tokenizer" in one and "tokenizer" in two and one["tokenizer"] != two["tokenizer"]:
        keys = [key for key in keys if key not in _OF_TOKENIZER]
    if "instruction" in one and "instruction" in two and one["instruction"] != two["instruction"] and "prompt" in keys:
        keys.remove("prompt")  # a hash, of which the instruction says more
    return [key for key in keys if one.get(key) != two.get(key)]


def _lengths(answers: Answers) -> dict[str, list[int]]:
    samples: Iterable[Sample] = (s for repeats in answers.values() for repeat in repeats for s in repeat)
    lengths: dict[str, list[int]] = {"correct": [], "incorrect": []}
    for sample in samples:
        if sample.tokens is not None:
            lengths["correct" if sample.verdict == "correct" else "incorrect"].append(sample.tokens)
    return lengths
