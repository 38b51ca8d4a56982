"""One evaluation from config to summary, for trained runs or a backbone alone."""

from pathlib import Path
from typing import Any

from rich.console import Console

from ladder_cli.config.choices import BenchmarkKind
from ladder_cli.config.evaluation import BenchmarkConfig, EvaluateConfig
from ladder_cli.console import show
from ladder_cli.data.benchmarks import Problem, benchmark_config, benchmark_names, load_problems
from ladder_cli.data.classification import LABELS
from ladder_cli.distributed import join
from ladder_cli.errors import UserError
from ladder_cli.evaluate.answering import EvalTask, answer
from ladder_cli.evaluate.binding import refuse_other_runs, refuse_other_use, refuse_run_directory
from ladder_cli.evaluate.grading import grader_identity
from ladder_cli.evaluate.modes import refuse_unread_by_labels
from ladder_cli.evaluate.report import report_command, table
from ladder_cli.evaluate.results import Extent, write_result
from ladder_cli.evaluate.samples import Sample
from ladder_cli.evaluate.summary import RUNS, Answers, summarise, summarise_labels
from ladder_cli.evaluate.targets import Experiment, Target, find_experiments, in_turns
from ladder_cli.ranks import is_main_process
from ladder_cli.run.directory import RESULT, SUMMARY, match_folders, repeat_folder
from ladder_cli.trunk.loading import resolve_device

Metrics = dict[tuple[str, str], dict[str, Any]]  # of what was evaluated (a run, an experiment) and a benchmark


def evaluate_models(config: EvaluateConfig, overrides: list[str], console: Console) -> Metrics:
    """Evaluate runs or a backbone on every benchmark; print the table, with a row for several runs of one experiment.

    Returns:
        What stands in `result.json`, in the order of the table.

    Raises:
        UserError: for whatever is wrong with run, benchmark or data.
    """
    configs = [benchmark_config(name) for name in benchmark_names(config.benchmarks)]
    refuse_unread_by_labels([each.kind for each in configs], overrides)
    benchmarks = {each.name: each for each in configs}
    problems = {name: load_problems(each, config.data_dir, config.limit) for name, each in benchmarks.items()}
    rows: Metrics = {}
    join(resolve_device(config.hardware.device))
    experiments = find_experiments(config, overrides)
    if is_main_process():
        _check_folders(experiments)
        for line in _hints(config, experiments):
            console.print(line, soft_wrap=True)
    for experiment in in_turns(experiments):
        answers: dict[str, Answers] = {name: {} for name in benchmarks}
        for target in experiment.targets:
            for name, benchmark in benchmarks.items():
                given = _answers(target, benchmark, problems[name], config, console)
                answers[name][target.name] = given
                extent = Extent({target.name: target.identity}, config.repeats, problems[name])
                written = _write(target.folder, benchmark, target.name, {target.name: given}, extent, config, console)
                rows[target.name, name] = written
        if len(experiment.targets) > 1:
            runs = {target.name: target.identity for target in experiment.targets}
            for name, benchmark in benchmarks.items():
                extent = Extent(runs, config.repeats, problems[name])
                rows[experiment.name, name] = _write(
                    *(experiment.folder, benchmark, experiment.name, answers[name], extent, config, console),
                    differ_in=experiment.differ_in,
                )
            if is_main_process():
                console.print(f"{experiment.name}: {experiment.folder / SUMMARY}", soft_wrap=True)
    rows = _in_order(rows, experiments)
    if is_main_process():
        show(table(rows, greedy=config.decode.temperature == 0), console)
        shown = [target.run or target.folder for each in experiments for target in each.targets]
        console.print(report_command(shown), soft_wrap=True, highlight=False)
    return rows


def _in_order(rows: Metrics, experiments: list[Experiment]) -> Metrics:
    """The rows (of target or experiment, and benchmark) as the runs were found, however they took turns."""
    names = [name for each in experiments for name in (*(target.name for target in each.targets), each.name)]
    return {key: rows[key] for key in sorted(rows, key=lambda key: names.index(key[0]))}


def _check_folders(experiments: list[Experiment]) -> None:
    """Refuse folders that hold another evaluation, before anything is answered."""
    for experiment in experiments:
        for target in experiment.targets:
            refuse_run_directory(target.folder, target.run)
            refuse_other_use(target.folder, target.identity)
        if len(experiment.targets) > 1:
            refuse_run_directory(experiment.folder)
            refuse_other_runs(experiment.folder, {target.name: target.identity for target in experiment.targets})
    folders = [target.folder.resolve() for experiment in experiments for target in experiment.targets]
    if len(set(folders)) < len(folders):
        raise UserError("run= names a run twice, by different ways to it: name each once.")


def _hints(config: EvaluateConfig, experiments: list[Experiment]) -> list[str]:
    """What the choice of runs should be known to have done."""
    lines = []
    _, aside = match_folders(config.run) if config.run is not None else ([], [])
    if aside:
        lines.append(f"left out, as they were set aside: {', '.join(Path(path).name for path in aside)}")
    for experiment in experiments:
        holders: dict[str, str] = {}
        for target in experiment.targets:
            first = holders.setdefault(target.identity, target.name)
            if first != target.name:
                lines.append(f"{first} and {target.name} hold the same weights: their spread counts one run twice")
    return lines


def _answers(
    target: Target, benchmark: BenchmarkConfig, problems: list[Problem], config: EvaluateConfig, console: Console
) -> list[list[Sample]]:
    """The samples of every repeat."""
    folder = target.folder / benchmark.name
    tasks = [EvalTask(benchmark, problems, repeat_folder(folder, repeat), repeat) for repeat in range(config.repeats)]
    return [answer(target, task, config.decode, config.seed, console) for task in tasks]


def _write(
    folder: Path,
    benchmark: BenchmarkConfig,
    evaluated: str,
    answers: Answers,
    extent: Extent,
    config: EvaluateConfig,
    console: Console,
    differ_in: str = RUNS,
) -> dict[str, Any]:
    """Write a benchmark's metrics, into `result.json` and `summary.json` unless larger ones stand there."""
    about: dict[str, Any] = {"evaluated": evaluated}
    if benchmark.path is not None:
        about["file"] = benchmark.path
    if benchmark.kind is BenchmarkKind.LABEL:
        metrics = summarise_labels(answers, LABELS[1], differ_in)
    else:
        metrics = summarise(answers, config.decode.temperature == 0, differ_in)
        about |= {"decode": vars(config.decode), "rule": benchmark.rule}
        about["grader"] = grader_identity(config.decode.grade_seconds)
    if is_main_process():
        path = write_result(folder, benchmark.name, metrics, about, extent)
        if path.name != RESULT:
            console.print(
                f"{evaluated} on {benchmark.name}: {path.with_name(RESULT)} is over more than this and stays as it "
                f"is; these figures are in {path.name}",
                soft_wrap=True,
            )
    return metrics
