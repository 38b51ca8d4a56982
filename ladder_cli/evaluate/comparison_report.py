"""Reports a comparison: in the terminal, as Markdown, CSV and JSON, and as a plot."""

import csv
import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.console import show
from ladder_cli.evaluate.comparison import Compared, Side, compare, read_side
from ladder_cli.evaluate.plots import draw_comparison
from ladder_cli.evaluate.report import interval, report_command, spread
from ladder_cli.run.directory import OUTPUTS, write_json, write_text

_CSV = ("benchmark", "n_problems", "first", "second", "difference", "low", "high", "test", "p_value", "p_holm")


def report_comparison(config: EvaluateConfig, console: Console) -> dict[str, Any]:
    """Compare the two sides of `compare`, print the table and write everything into `output_dir`.

    Returns:
        What stands in `comparison.json`.

    Raises:
        UserError: if a side has no samples, or the two share none.
    """
    first, second = read_sides(config)
    compared = compare(first, second, config.allow_settings_mismatch)
    folder = comparison_folder(config, first, second)
    heads, rows = _cells(first, second, compared)
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for head in heads:
        table.add_column(head, justify="left" if head == "benchmark" else "right")
    for row in rows:
        table.add_row(*row)
    show(table, console)
    notes = _notes(first, second, compared)
    for note in notes:
        console.print(note, soft_wrap=True)
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---", *["---:"] * (len(heads) - 1)], *rows)]
    write_text(folder / "comparison.md", "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n")
    write_text(folder / "comparison.csv", _csv(compared))
    record = {"first": first.name, "second": second.name, "benchmarks": [_record(each) for each in compared]}
    write_json(folder / "comparison.json", record)
    draw_comparison(folder / "comparison", (first.name, second.name), compared)
    console.print(f"{folder}/comparison.md, .csv, .json, .png, .svg", soft_wrap=True)
    console.print(report_command(config.compare or []), soft_wrap=True, highlight=False)
    return record


def read_sides(config: EvaluateConfig) -> tuple[Side, Side]:
    """Read the two sides of `compare`, under different names.

    Raises:
        UserError: if a side has no samples.
    """
    assert config.compare is not None
    first, second = (read_side(pattern) for pattern in config.compare)
    if first.name == second.name:
        first, second = (
            replace(side, name=pattern) for pattern, side in zip(config.compare, (first, second), strict=True)
        )
    return first, second


def comparison_folder(config: EvaluateConfig, first: Side, second: Side) -> Path:
    """Return the folder for the files of a comparison."""
    named = "-".join(side.name.replace("/", "_").replace(" ", "_") for side in (first, second))
    return Path(config.output_dir) if config.output_dir is not None else OUTPUTS / f"compare-{named}"


def _cells(first: Side, second: Side, compared: list[Compared]) -> tuple[list[str], list[list[str]]]:
    heads = ["benchmark", "problems", first.name, second.name, "difference", "95% interval", "p", "p (Holm)", "test"]
    rows = [
        [
            each.benchmark,
            str(each.first["n_problems"]),
            f"{each.first['pass_at_1']:.1%}",
            f"{each.second['pass_at_1']:.1%}",
            f"{100 * each.difference:+.1f}",
            f"{100 * each.low:+.1f} to {100 * each.high:+.1f}",
            f"{each.p_value:.2g}",
            f"{each.p_holm:.2g}",
            each.test + (f" ({each.only_first} : {each.only_second})" if each.only_first is not None else ""),
        ]
        for each in compared
    ]
    return heads, rows


def _notes(first: Side, second: Side, compared: list[Compared]) -> list[str]:
    notes = [
        f"Difference: {first.name} minus {second.name}, in points, with a paired bootstrap interval. Holm corrects for "
        f"{len(compared)} benchmark(s)."
    ]
    if any(each.only_first is not None for each in compared):
        notes.append(f"(m : n): problems that {first.name} alone, and {second.name} alone, has right.")
    for side in (first, second):
        if side.skipped:
            notes.append(f"{side.name}: left out, as no run of it or set aside: {', '.join(side.skipped)}.")
    for each in compared:
        for side, metrics, greedy in zip((first, second), (each.first, each.second), each.greedy, strict=True):
            notes.append(f"{side.name} on {each.benchmark}: {interval(metrics['ci95'])}, {spread(metrics, greedy)}.")
        if each.unpaired:
            notes.append(f"{each.benchmark}: {each.unpaired} problem(s) not answered by every run are left out.")
        notes += [f"{each.benchmark}: the two were not made alike: {note}." for note in each.notes]
    return notes


def _record(each: Compared) -> dict:
    return {key: value for key, value in asdict(each).items() if key != "lengths"}


def _csv(compared: list[Compared]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for each in compared:
        scores = (each.first["n_problems"], each.first["pass_at_1"], each.second["pass_at_1"])
        tested = (each.difference, each.low, each.high, each.test, each.p_value, each.p_holm)
        writer.writerow((each.benchmark, *scores, *tested))
    return text.getvalue()
