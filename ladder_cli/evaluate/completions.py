"""Grading ready completions, without any model: for a newer grader, and for what other tools have generated."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from ladder_cli.config.evaluation import DecodeConfig, EvaluateConfig
from ladder_cli.console import show
from ladder_cli.errors import UserError
from ladder_cli.evaluate.binding import refuse_model_results, refuse_run_directory
from ladder_cli.evaluate.completion_rows import CompletionRow, read_completions
from ladder_cli.evaluate.grading import Grade, Grader, Task, grader_identity
from ladder_cli.evaluate.pass_at_k import problem_lines, summarise_problems
from ladder_cli.evaluate.regrade import (
    changes_between,
    grader_settings,
    other_grader_alone,
    recorded_grader,
    verdict_of,
    write_note,
)
from ladder_cli.evaluate.report import report_command, table
from ladder_cli.evaluate.samples import Sample, append_samples, read_completion_samples, same_settings
from ladder_cli.generate.engine import LENGTH
from ladder_cli.generate.ready import ReadyCompletions
from ladder_cli.run.claim import claimed
from ladder_cli.run.directory import OUTPUTS, RESULT, SAMPLES, SETTINGS, safe_name, write_json
from ladder_cli.run.files import write_text

# Of each problem: completions, right ones, pass@k. Written where a problem has several completions.
PROBLEMS = "problems.jsonl"
# What another grader had made of the same completions, until regrade.json has been written.
_EARLIER, _EARLIER_SETTINGS = "regraded-samples.jsonl", "regraded-settings.json"
# Grades that are put on disk together.
_TOGETHER = 32
_Key = tuple[str, int]


def grade_completions(config: EvaluateConfig, console: Console) -> None:
    """Grade the completions of a file; grades that are already in the folder are kept.

    `completion_rows` says what a row may hold. Where the rows are samples that another grader has given verdicts, or
    the folder holds such ones, every completion is graded anew, and `regrade.json` lists the verdicts that changed.

    Raises:
        UserError: if the file is missing or a row is wrong, before anything is graded; or if the folder holds grades
            of another file, or of more problems than are asked for now.
    """
    assert config.completions is not None
    source = Path(config.completions).expanduser()
    folder = completions_folder(config)
    completions, repeated = read_completions(source)
    asked = list(dict.fromkeys(completion.problem for completion in completions))[: config.limit]
    wanted = {completion.key: completion for completion in completions if completion.problem in set(asked)}
    if source.resolve() == (folder / SAMPLES).resolve():
        raise UserError(f"{source} would be graded into itself: give another output_dir.")
    refuse_run_directory(folder)
    refuse_model_results(folder)
    seconds = config.decode.grade_seconds
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    with claimed(folder):
        _settle(folder, digest, seconds)
        samples = _graded(folder, wanted, digest, config.decode, config.seed)
        _note_changes(folder, source, wanted, samples, console)
        metrics = _write_result(folder, source, _by_problem(asked, samples), seconds)
    if repeated:
        console.print(f"{repeated} row(s) equal an earlier one in every column: each counts as a completion.")
    # How the completions were made is not known.
    show(table({(source.name, benchmark): each for benchmark, each in metrics.items()}, greedy=False), console)
    _print_pass_at_k(metrics, console)
    console.print(f"graded completions: {folder / SAMPLES}", soft_wrap=True)
    console.print(report_command([folder]), soft_wrap=True, highlight=False)


def completions_folder(config: EvaluateConfig) -> Path:
    """Where the grades of `completions=` go: `f.jsonl` and `f.csv` are two files, and have two folders."""
    assert config.completions is not None
    name = Path(config.completions).name.removesuffix(".jsonl")
    return Path(config.output_dir or OUTPUTS / safe_name(f"eval-{name}"))


def _settle(folder: Path, digest: str, seconds: float) -> None:
    """Check that the folder's grades are of the same file; set those of another grader aside."""
    now = {"completions": digest, **grader_settings(seconds)}
    if other_grader_alone(folder / SETTINGS, now):
        # Once set aside they stay as they are, however often the regrading is killed and whatever it had made.
        if not (folder / _EARLIER).is_file():
            shutil.copyfile(folder / SETTINGS, folder / _EARLIER_SETTINGS)
            if (folder / SAMPLES).is_file():
                os.replace(folder / SAMPLES, folder / _EARLIER)
        (folder / SAMPLES).unlink(missing_ok=True)
        write_json(folder / SETTINGS, now)
    same_settings(folder / SETTINGS, now)


def _graded(
    folder: Path, wanted: dict[_Key, CompletionRow], digest: str, decode: DecodeConfig, seed: int
) -> dict[_Key, Sample]:
    """The samples of all wanted completions, in their order; those on disk are kept and the missing ones graded.

    Raises:
        UserError: if the folder holds more than is wanted.
    """
    samples = read_completion_samples(folder / SAMPLES)
    more = set(samples) - set(wanted)
    if more:
        raise UserError(
            f"{folder} holds {len(more)} graded completions that are not asked for now, and their figures would be "
            "overwritten: leave out limit=, or give another output_dir."
        )
    rows = {row.as_completion().prompt.id: row for row in wanted.values()}
    engine = ReadyCompletions({name: row.as_completion() for name, row in rows.items()}, digest)
    prompts = [row.as_completion().prompt for row in wanted.values()]
    finished = {name for name, row in rows.items() if row.key in samples}
    completions = (each for batch in engine.complete(prompts, decode, seed, finished=finished) for each in batch)
    tasks = (
        Task(each.prompt.id, row.gold, each.text, each.stop_reason == LENGTH, row.rule)
        for each in completions
        for row in (rows[each.prompt.id],)
    )
    ready: list[Sample] = []
    with Grader(seconds=decode.grade_seconds, second_opinion=True) as grader:
        for grade in grader.grade(tasks):
            ready.append(_sample(rows[grade.key], grade))
            if len(ready) == _TOGETHER:
                append_samples(folder / SAMPLES, ready)
                ready = []
    append_samples(folder / SAMPLES, ready)
    samples = read_completion_samples(folder / SAMPLES)
    return {key: samples[key] for key in wanted}


def _sample(row: CompletionRow, grade: Grade) -> Sample:
    return Sample(
        id=row.problem,
        number=row.number,
        benchmark=row.benchmark,
        rule=row.rule.name,
        question_digest=row.question_digest,
        prompt=row.prompt,
        completion=row.text,
        tokens=row.tokens,
        stop_reason=row.stop_reason,
        gold=row.gold,
        unit=row.rule.unit,
        error=row.rule.tolerance,
        answer=grade.answer,
        verdict=grade.verdict,
        reading=grade.reading,
        math_verify=grade.math_verify,
    )


def _note_changes(
    folder: Path, source: Path, wanted: dict[_Key, CompletionRow], samples: dict[_Key, Sample], console: Console
) -> None:
    """Say which verdicts are not what the folder, or else the rows themselves, had; nothing if neither had any."""
    if (folder / _EARLIER).is_file():
        before = {key: verdict_of(sample) for key, sample in read_completion_samples(folder / _EARLIER).items()}
        then = recorded_grader(folder / _EARLIER_SETTINGS)
    else:
        before = {key: each.before for key, each in wanted.items() if each.before is not None}
        then = recorded_grader(source.parent / SETTINGS)
    if before:
        changes = changes_between(before, samples)
        write_note(
            folder, changes, len(before.keys() & samples.keys()), then, recorded_grader(folder / SETTINGS), console
        )
    for path in (folder / _EARLIER, folder / _EARLIER_SETTINGS):
        path.unlink(missing_ok=True)


def _by_problem(asked: list[str], samples: dict[_Key, Sample]) -> list[list[Sample]]:
    groups: dict[str, list[Sample]] = {name: [] for name in asked}
    for (name, _), sample in samples.items():
        groups[name].append(sample)
    return list(groups.values())


def _write_result(folder: Path, source: Path, problems: list[list[Sample]], seconds: float) -> dict[str, Any]:
    """Write `result.json`, and where a problem has several completions `problems.jsonl`; the metrics by benchmark."""
    benchmarks = dict.fromkeys((samples[0].benchmark or "-") for samples in problems)
    metrics = {
        benchmark: summarise_problems(
            source.name, [samples for samples in problems if (samples[0].benchmark or "-") == benchmark]
        )
        for benchmark in benchmarks
    }
    overall = summarise_problems(source.name, problems)
    by_benchmark = {"benchmarks": metrics} if len(metrics) > 1 else {}
    write_json(
        folder / RESULT,
        {"completions": str(source), **overall, **by_benchmark, "grader": grader_identity(seconds)},
    )
    if any(len(samples) > 1 for samples in problems):
        lines = (json.dumps(line) + "\n" for line in problem_lines(problems))
        write_text(folder / PROBLEMS, "".join(lines))
    return metrics


def _print_pass_at_k(metrics: dict[str, Any], console: Console) -> None:
    for benchmark, each in metrics.items():
        if "pass_at_k" not in each:
            continue
        by_k = each["pass_at_k"]
        # Powers of two, as papers print them, and the last one.
        shown = [k for k in by_k if int(k).bit_count() == 1 or int(k) == len(by_k)]
        printed = ", ".join(f"pass@{k} {by_k[k]:.1%}" for k in shown)
        console.print(
            f"{benchmark}: {each['n_completions']} completions of {each['n_problems']} problems, at least "
            f"{each['n_repeats']} of each: {printed}",
            soft_wrap=True,
            highlight=False,
        )
