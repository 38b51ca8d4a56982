"""From graded samples to the figures of a benchmark, and to the table at the end."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from ladder_cli.evaluation.generation import LENGTH
from ladder_cli.evaluation.grading import CORRECT, NO_ANSWER, TIMEOUT
from ladder_cli.evaluation.samples import Sample
from ladder_cli.evaluation.statistics import matthews_correlation, wilson_interval
from ladder_cli.run_dir import SUMMARY, RunDir, read_json


def summarise(samples: Iterable[Sample]) -> dict[str, Any]:
    """The figures of one benchmark and one run.

    Returns:
        `pass_at_1`; `std` null, since one greedy run has no spread; `n_runs`, `n_problems`; `ci95`, the Wilson
        interval over problems; `truncated_rate`, `no_answer_rate`, `timeout_rate`; `mean_tokens_correct` and
        `mean_tokens_incorrect` (null where there is none).
    """
    samples = list(samples)
    count = len(samples)
    correct = [sample for sample in samples if sample["verdict"] == CORRECT]
    wrong = [sample for sample in samples if sample["verdict"] != CORRECT]

    def rate(field: str, value: str) -> float:
        return sum(sample[field] == value for sample in samples) / count

    return {
        "pass_at_1": len(correct) / count,
        "std": None,
        "n_runs": 1,
        "n_problems": count,
        "ci95": list(wilson_interval(len(correct), count)),
        "truncated_rate": rate("stop_reason", LENGTH),
        "no_answer_rate": rate("verdict", NO_ANSWER),
        "timeout_rate": rate("verdict", TIMEOUT),
        "mean_tokens_correct": _mean_tokens(correct),
        "mean_tokens_incorrect": _mean_tokens(wrong),
    }


def summarise_labels(samples: Iterable[Sample], positive: str) -> dict[str, Any]:
    """The figures of a label task: those of `summarise`, where Pass@1 is the accuracy, and what label tasks add.

    Returns:
        also `matthews` (Matthews' correlation), `f1` of the positive label (null where it is neither there nor
        predicted), and `majority`, the accuracy of always giving the more frequent label.
    """
    samples = list(samples)
    counts = Counter((sample["gold"] == positive, sample["answer"] == positive) for sample in samples)
    tp, fn, fp, tn = counts[True, True], counts[True, False], counts[False, True], counts[False, False]
    return {
        **summarise(samples),
        "matthews": matthews_correlation(tp, tn, fp, fn),
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
        "majority": max(tp + fn, fp + tn) / len(samples),
    }


def _mean_tokens(samples: list[Sample]) -> float | None:
    counted = [sample["tokens"] for sample in samples if sample["tokens"] is not None]
    return sum(counted) / len(counted) if counted else None


def table(rows: dict[tuple[str, str], dict[str, Any]]) -> Table:
    """The figures of `(what was evaluated, benchmark)` pairs, a row each."""
    printed = Table(box=None, padding=(0, 1), header_style="bold")
    for heading, justify in (
        ("evaluated", "left"),
        ("benchmark", "left"),
        ("problems", "right"),
        ("Pass@1", "right"),
        ("95% interval", "right"),
        ("cut off", "right"),
        ("no answer", "right"),
        ("timeout", "right"),
        ("tokens right", "right"),
        ("wrong", "right"),
    ):
        printed.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    labelled = any("matthews" in figures for figures in rows.values())
    if labelled:
        for heading in ("MCC", "F1", "majority"):
            printed.add_column(heading, justify="right")
    for (name, benchmark), figures in rows.items():
        low, high = figures["ci95"]
        printed.add_row(
            name,
            benchmark,
            str(figures["n_problems"]),
            f"{figures['pass_at_1']:.1%}",
            f"{100 * low:.1f} to {high:.1%}",
            f"{figures['truncated_rate']:.1%}",
            f"{figures['no_answer_rate']:.1%}",
            f"{figures['timeout_rate']:.1%}",
            _tokens(figures["mean_tokens_correct"]),
            _tokens(figures["mean_tokens_incorrect"]),
            *(_label_figures(figures) if labelled else ()),
        )
    return printed


def _label_figures(figures: dict[str, Any]) -> tuple[str, str, str]:
    if "matthews" not in figures:
        return "-", "-", "-"
    f1 = "-" if figures["f1"] is None else f"{figures['f1']:.3f}"
    return f"{figures['matthews']:.3f}", f1, f"{figures['majority']:.1%}"


def _tokens(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.0f}"


def demo_table(backbone: Path, runs: list[Path], benchmark: str) -> Table:
    """Score, size, speed and memory of trained runs beside their bare backbone, from the files on disk."""
    printed = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("", "Pass@1", "95% interval", "trained parameters", "training tokens/s", "peak memory", "seconds"):
        printed.add_column(heading, justify="right" if heading else "left")

    def score(folder: Path) -> tuple[str, str]:
        figures = read_json(folder / SUMMARY)[benchmark]
        low, high = figures["ci95"]
        return f"{figures['pass_at_1']:.1%}", f"{100 * low:.1f} to {high:.1%}"

    printed.add_row("backbone", *score(backbone), "0", "-", "-", "-")
    for run in map(RunDir, runs):
        metrics = read_json(run.metrics)
        printed.add_row(
            run.read_config().method.name,
            *score(run.evaluation),
            f"{metrics['trainable_parameters']:,}",
            f"{metrics['tokens_per_second']:,.0f}",
            f"{metrics['peak_memory_bytes']['measured'] / 1e6:,.0f} MB",
            f"{metrics['wall_seconds']:.0f}",
        )
    return printed
