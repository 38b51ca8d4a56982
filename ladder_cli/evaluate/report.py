"""Tables for the terminal: the metrics of benchmarks, and the table of the demo; and where to look at them."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ladder_cli.run.directory import SUMMARY, RunDir, read_json

Metrics = dict[str, Any]


def table(rows: dict[tuple[str, str], Metrics], greedy: bool = True) -> Table:
    """Make a table with a row for each pair (what was evaluated, benchmark)."""
    printed = Table(box=None, padding=(0, 1), header_style="bold")
    for heading, justify in (
        ("evaluated", "left"),
        ("benchmark", "left"),
        ("problems", "right"),
        ("Pass@1", "right"),
        ("std", "right"),
        ("95% interval", "right"),
        ("Math-Verify", "right"),
        ("cut off", "right"),
        ("no answer", "right"),
        ("timeout", "right"),
        ("tokens right", "right"),
        ("wrong", "right"),
    ):
        overflow = "fold" if heading == "evaluated" else "ellipsis"
        printed.add_column(heading, justify=justify, overflow=overflow)  # type: ignore[arg-type]
    labelled = any("matthews" in metrics for metrics in rows.values())
    if labelled:
        for heading in ("MCC", "95% interval", "F1", "majority"):
            printed.add_column(heading, justify="right", overflow="fold")
    for (name, benchmark), metrics in rows.items():
        printed.add_row(
            name,
            benchmark,
            str(metrics["n_problems"]),
            f"{metrics['pass_at_1']:.1%}",
            spread(metrics, greedy),
            interval(metrics["ci95"]),
            _math_verify(metrics),
            f"{metrics['truncated_rate']:.1%}",
            f"{metrics['no_answer_rate']:.1%}",
            f"{metrics['timeout_rate']:.1%}",
            _tokens(metrics["mean_tokens_correct"]),
            _tokens(metrics["mean_tokens_incorrect"]),
            *(_label_metrics(metrics) if labelled else ()),
        )
    return printed


def _math_verify(metrics: Metrics) -> str:
    """Format Pass@1 by Math-Verify alone, and on how many completions it disagrees."""
    found = metrics.get("math_verify")
    if found is None:
        return "-"
    return f"{found['pass_at_1']:.1%} ({found['disagreements']} differ)" if found["disagreements"] else "same"


def spread(metrics: Metrics, greedy: bool = True) -> str:
    """Format the standard deviation and what it is over. A single decoding has none, which differs from zero.

    Args:
        greedy: whether the completions are known to be greedy.
    """
    if metrics["std"] is None:
        # A label task generates nothing, greedily or otherwise.
        return "n/a (1 run, greedy)" if greedy and "matthews" not in metrics else "n/a (1 run)"
    return f"±{100 * metrics['std']:.1f} ({metrics['n_runs']} {metrics['spread_over']})"


def interval(ends: tuple[float, float] | list[float]) -> str:
    """Format an interval in per cent."""
    low, high = ends
    return f"{100 * low:.1f} to {high:.1%}"


def _label_metrics(metrics: Metrics) -> tuple[str, str, str, str]:
    if "matthews" not in metrics:
        return "-", "-", "-", "-"
    f1 = "-" if metrics["f1"] is None else f"{metrics['f1']:.3f}"
    low, high = metrics["matthews_ci95"]
    return f"{metrics['matthews']:.3f}", f"{low:.3f} to {high:.3f}", f1, f"{metrics['majority']:.1%}"


def _tokens(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.0f}"


def report_command(folders: Sequence[Path | str]) -> str:
    """The line that ends an evaluation: the command that shows it and all its samples on a page."""
    listed = ",".join(str(folder) for folder in folders)
    return f"look at it: ladder-eval {shlex.quote(f'report={listed}')} output=report.html"


def demo_table(backbone: Path, runs: list[Path], benchmark: str) -> Table:
    """Make a table of score, size, speed and memory of trained runs and their bare backbone, from files on disk."""
    printed = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("", "Pass@1", "95% interval", "trained parameters", "training tokens/s", "peak memory", "seconds"):
        printed.add_column(heading, justify="right" if heading else "left")

    def score(folder: Path) -> tuple[str, str]:
        metrics = read_json(folder / SUMMARY)[benchmark]
        return f"{metrics['pass_at_1']:.1%}", interval(metrics["ci95"])

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
