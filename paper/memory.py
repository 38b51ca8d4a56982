"""Predicts figures 3a (its memory axis) and 3b by the preflight: in the paper's terms, and as trained here."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.run.directory import read_json, write_json
from paper.memory_points import MemoryPoint, memory_points
from paper.plots import memory_bars, memory_figure, save
from paper.reported import MemoryFigure, memory_figure_3a, memory_figure_3b
from paper.table import Table

Points = dict[str, list[MemoryPoint]]  # by backbone
_HOW = (
    "Predicted by one training step on fake tensors (bfloat16, 8-bit AdamW), in GB of 10^9 bytes, without what CUDA "
    "and its allocator take for themselves. The paper's terms: vanilla attention, nothing recomputed."
)


def predict(figure: MemoryFigure, path: Path, report: Callable[[str], None] = print) -> Points:
    """Predict every point of a figure.

    Args:
        path: JSON of the points; points that it already has, under the same options, are not predicted again.
        report: is called with a line for each new point.
    """
    before = read_json(path) if path.is_file() else {}
    cached = {
        name: [MemoryPoint(**point) for point in points]
        for name, points in before.get("points", {}).items()
        if before.get("methods") == figure.methods and before.get("models", {}).get(name) == figure.models.get(name)
    }
    found: Points = {name: cached.get(name, []) for name in figure.models}

    def write() -> None:
        points = {name: [asdict(point) for point in one] for name, one in found.items()}
        write_json(path, {"methods": figure.methods, "models": figure.models, "points": points})

    for name, options in figure.models.items():
        configs = {
            method: composed("train", TrainConfig, [*options, *chosen]) for method, chosen in figure.methods.items()
        }
        known = tuple(found[name])

        def note(point: MemoryPoint, name: str = name) -> None:
            report(f"{name}, {point.method}, {point.rows} x {point.tokens}: {point.bytes / 1e9:.1f} GB")
            found[name].append(point)
            write()

        found[name] = memory_points(configs, figure.shapes, known, note)
    write()
    return found


def write_figures(folder: Path, report: Callable[[str], None] = print) -> None:
    """Write tables and figures 3a and 3b into a folder."""
    small, large = memory_figure_3a(), memory_figure_3b()
    for figure, name in ((small, "memory-3a"), (large, "memory-3b")):
        points = predict(figure, folder / f"{name}.json", report)
        _table(figure, points, name).write(folder, name)
        if figure is small:
            sizes = {model: {point.method: point.bytes / 1e9 for point in one} for model, one in points.items()}
            save(memory_bars(sizes, figure.card_gb), folder, "figure-3a-memory")
        else:
            ((model, one),) = points.items()
            save(memory_figure(one, model), folder, "figure-3b")


def _table(figure: MemoryFigure, points: Points, name: str) -> Table:
    size = {
        (model, point.method, (point.rows, point.tokens)): f"{point.bytes / 1e9:.1f}"
        for model, one in points.items()
        for point in one
    }
    columns = [(model, shape) for model in figure.models for shape in figure.shapes]
    rows = [(method, *(size[model, method, shape] for model, shape in columns)) for method in figure.methods]
    several = len(figure.models) > 1
    headings = ("", *(model if several else f"{shape[0]} x {shape[1]:,}" for model, shape in columns))
    title = f"{name.removeprefix('memory-')}: peak memory of one step, " + (
        f"{figure.shapes[0][0]} x {figure.shapes[0][1]:,} tokens" if several else f"{columns[0][0]}, rows x tokens"
    )
    return Table(f"Figure {title}", headings, rows, [_HOW])
