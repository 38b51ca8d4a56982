"""One evaluation from config to summary, for trained runs or a backbone alone."""

from pathlib import Path
from typing import Any

from rich.console import Console

from ladder_cli.claim import claimed
from ladder_cli.config import BenchmarkConfig, EvaluateConfig
from ladder_cli.data.benchmarks import Problem, benchmark_config, benchmark_names, load_problems
from ladder_cli.data.classification import LABELS
from ladder_cli.evaluation.answering import Sheet, answer
from ladder_cli.evaluation.grading import grader_identity
from ladder_cli.evaluation.report import table
from ladder_cli.evaluation.samples import Sample
from ladder_cli.evaluation.summary import Answers, summarise, summarise_labels
from ladder_cli.evaluation.targets import Experiment, Target, find_experiments
from ladder_cli.models.backbone import resolve_device
from ladder_cli.ranks import is_main_process
from ladder_cli.run_dir import RESULT, SUMMARY, read_json, repeat_folder, write_json
from ladder_cli.training.processes import join


def evaluate_models(config: EvaluateConfig, overrides: list[str], console: Console) -> None:
    """Evaluate runs or a backbone on every benchmark; print the table, with a row for several runs of one experiment.

    Raises:
        UserError: for whatever is wrong with run, benchmark or data.
    """
    names = benchmark_names(config.benchmarks)
    benchmarks = {benchmark_config(name).name: benchmark_config(name) for name in names}
    problems = {name: load_problems(each, config.data_dir, config.limit) for name, each in benchmarks.items()}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    join(resolve_device(config.hardware.device))
    for experiment in find_experiments(config, overrides):
        answers: dict[str, Answers] = {name: {} for name in benchmarks}
        for target in experiment.targets:
            for name, benchmark in benchmarks.items():
                given = _answers(target, benchmark, problems[name], config, console)
                answers[name][target.name] = given
                rows[target.name, name] = _write(target.folder, benchmark, target.name, {target.name: given}, config)
            target.release()
        if len(experiment.targets) > 1:
            rows |= _over_runs(experiment, benchmarks, answers, config)
            console.print(f"{experiment.name}: {experiment.folder / SUMMARY}", soft_wrap=True)
    if is_main_process():
        console.print(table(rows, greedy=config.decode.temperature == 0))


def _answers(
    target: Target, benchmark: BenchmarkConfig, problems: list[Problem], config: EvaluateConfig, console: Console
) -> list[list[Sample]]:
    """The samples of every repeat."""
    folder = target.folder / benchmark.name
    sheets = [Sheet(benchmark, problems, repeat_folder(folder, repeat), repeat) for repeat in range(config.repeats)]
    return [answer(target, sheet, config.decode, config.seed, console) for sheet in sheets]


def _over_runs(
    experiment: Experiment, benchmarks: dict[str, BenchmarkConfig], answers: dict[str, Answers], config: EvaluateConfig
) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (experiment.name, name): _write(experiment.folder, benchmark, experiment.name, answers[name], config)
        for name, benchmark in benchmarks.items()
    }


def _write(
    folder: Path, benchmark: BenchmarkConfig, evaluated: str, answers: Answers, config: EvaluateConfig
) -> dict[str, Any]:
    """Write a benchmark's `result.json` and add it to `summary.json`."""
    if benchmark.kind == "label":
        figures = summarise_labels(answers, positive=LABELS[1])
    else:
        figures = summarise(answers, greedy=config.decode.temperature == 0)
    record = {"benchmark": benchmark.name, "evaluated": evaluated, **figures, "decode": vars(config.decode)}
    record |= {"rule": benchmark.rule, "grader": grader_identity(config.decode.grade_seconds)}
    if is_main_process():
        write_json(folder / benchmark.name / RESULT, record)
        summary = folder / SUMMARY
        with claimed(folder, wait=True):
            write_json(summary, (read_json(summary) if summary.is_file() else {}) | {benchmark.name: figures})
    return figures
