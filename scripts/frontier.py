"""What learning costs: loss against processor time and memory, every method at its own best learning rate.

    python scripts/frontier.py                                     the embedded model on its own task
    python scripts/frontier.py --model smollm2-135m --path DIR --rows FILE.jsonl --prompt question --completion answer

Each method is trained with every learning rate of one grid, with one seed and the same steps; the rate with the lowest
validation loss is trained with further seeds. All of it runs on one cache of taps, as a study would; at its best rate
each method also runs once without, for what a run alone costs. Each run is a process of its own, whose processor time
is what the system says of it. Runs that are there already are not made again: a frontier that was interrupted goes on.

Writes frontier.json, frontier.md and frontier.png into the folder.
"""

import argparse
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from _studied import add_studied, layers_of, studied

from ladder_cli.bench.study import Study, Trained, mean_and_range
from ladder_cli.console import make_console
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.run.directory import OUTPUTS, write_json
from ladder_cli.run.files import write_text
from ladder_cli.streams import quiet_libraries

RATES = (5e-4, 1e-3, 2e-3, 4e-3)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Arm:
    """One method.

    Attributes:
        options: of `ladder-train`.
        cached: it reads taps, which can be cached.
        twin: an arm whose losses are the same, so that only the cost is measured.
    """

    name: str
    options: tuple[str, ...]
    cached: bool = True
    twin: str | None = None


@dataclass
class Point:
    """An arm at its best rate.

    Attributes:
        rate: the best of the grid; `rates`: the loss of each.
        losses: of the seeds.
        curve: step -> loss of the first seed.
        cached_seconds, live_seconds: processor seconds of a run on a cache that is filled, and of one without.
        peak, cached_peak: bytes that a step takes, as predicted, without and with the cache.
        search_seconds: of all runs that were made.
        search_alone_seconds: what they would have taken without the cache, at the cost of the one that ran so.
    """

    name: str
    rate: float
    rates: dict[float, float]
    losses: list[float] = field(default_factory=list)
    curve: dict[int, float] = field(default_factory=dict)
    cached_seconds: float | None = None
    live_seconds: float = 0.0
    peak: int = 0
    cached_peak: int | None = None
    search_seconds: float = 0.0
    search_alone_seconds: float = 0.0


def arms(layers: int) -> list[Arm]:
    """All methods, on a backbone of L layers."""
    suffixes = [
        Arm(f"suffix {k}/{layers}", ("method=suffix", f"method.layers={k}"))
        for k in sorted({max(1, layers // 3), max(1, layers // 2), max(1, 2 * layers // 3)})
    ]
    return [
        Arm("ladder", ("method=ladder",)),
        Arm("xladder", ("method=xladder",)),
        Arm("branch", ("method=branch",)),
        *suffixes,
        Arm("qlora", ("method=qlora",), cached=False),
        Arm("qlora recomputed", ("method=qlora", "method.gradient_checkpointing=true"), cached=False, twin="qlora"),
    ]


def made(study: Study, arm: Arm, rate: float, seed: int, cached: bool) -> Trained:
    """A run of an arm, told as it is made."""
    words = [arm.name, f"{rate:g}", str(seed), *(["cached"] if cached else [])]
    options = [*arm.options, f"train.learning_rate={rate:g}", f"seed={seed}"]
    trained = study.run("-".join(words), options, cached)
    print(f"{arm.name:<18} rate {rate:g}, seed {seed}{', cached' if cached else ''}: "
          f"{trained.loss:.4f}, {trained.seconds:.0f} s", flush=True)  # fmt: skip
    return trained


def measure(study: Study, arm: Arm, rates: list[float], seeds: list[int], twins: dict[str, Point]) -> Point:
    """Search, repeat, and run once alone."""
    if arm.twin is not None:
        like = twins[arm.twin]
        alone = made(study, arm, like.rate, seeds[0], cached=False)
        return Point(arm.name, like.rate, like.rates, like.losses, like.curve, None, alone.seconds, alone.peak)
    tried = {rate: made(study, arm, rate, seeds[0], arm.cached) for rate in rates}
    rate = min(tried, key=lambda rate: tried[rate].loss)
    repeated = [tried[rate], *(made(study, arm, rate, seed, arm.cached) for seed in seeds[1:])]
    alone = made(study, arm, rate, seeds[0], cached=False) if arm.cached else tried[rate]
    point = Point(arm.name, rate, {rate: run.loss for rate, run in tried.items()})
    point.losses, point.curve = [run.loss for run in repeated], tried[rate].curve
    point.live_seconds, point.peak = alone.seconds, alone.peak
    runs = [*tried.values(), *repeated[1:]]
    point.search_seconds = sum(run.seconds for run in runs)
    point.search_alone_seconds = len(runs) * alone.seconds
    if arm.cached:
        # The last one found everything there.
        point.cached_seconds = min(run.seconds for run in runs)
        point.cached_peak = min(run.peak for run in runs)
    return point


def table(points: list[Point], start: float) -> str:
    """As Markdown."""
    base = next(point for point in points if point.name == "qlora recomputed")
    lines = [
        "| method | best rate | validation loss (seeds: mean, lowest to highest) | s a run, cached | s a run, alone | "
        "alone / QLoRA recomputed | predicted peak MB, cached | alone |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for point in points:
        spread = mean_and_range(point.losses)
        cached = f"{point.cached_seconds - start:.0f}" if point.cached_seconds is not None else "-"
        peak = f"{point.cached_peak / 1e6:,.0f}" if point.cached_peak is not None else "-"
        ratio = (point.live_seconds - start) / (base.live_seconds - start)
        lines.append(
            f"| {point.name} | {point.rate:g} | {spread} | {cached} | {point.live_seconds - start:.0f} | {ratio:.2f} | "
            f"{peak} | {point.peak / 1e6:,.0f} |"
        )
    edges = [point.name for point in points if point.rate in (min(point.rates), max(point.rates))]
    searched = [point for point in points if point.search_seconds]
    total, alone = (
        sum(getattr(point, name) for point in searched) for name in ("search_seconds", "search_alone_seconds")
    )
    lines += [
        "",
        f"Processor seconds without the {start:.0f} s that a process takes to start, load and tokenise. Grid: "
        f"{', '.join(f'{rate:g}' for rate in points[0].rates)}; {len(points[0].losses)} seeds at the best.",
        *([f"Best at an edge of the grid, so perhaps not at their best: {', '.join(edges)}."] if edges else []),
        f"All runs together took {total:.0f} processor seconds; without the cache {alone:.0f} "
        f"({alone / total:.1f} times as much).",
    ]
    return "\n".join(lines) + "\n"


def draw(points: list[Point], start: float, path: Path, title: str) -> None:
    """Loss against processor time, and against memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for number, point in enumerate(points):
        colour, mean = f"C{number % 10}", statistics.mean(point.losses)
        error = [[mean - min(point.losses)], [max(point.losses) - mean]]
        steps = sorted(point.curve)
        for seconds, style, name in (
            (point.live_seconds, "-", point.name),
            (point.cached_seconds, ":", None),
        ):
            if seconds is None:
                continue
            along = [(seconds - start) * step / steps[-1] for step in steps]
            time_axes.plot(along, [point.curve[step] for step in steps], style, color=colour, label=name)
            time_axes.errorbar(along[-1], mean, error, fmt="o", markersize=4, capsize=3, color=colour)
        memory_axes.errorbar(point.peak / 1e6, mean, error, fmt="o", capsize=3, color=colour, label=point.name)
        if point.cached_peak is not None:
            memory_axes.errorbar(point.cached_peak / 1e6, mean, error, fmt="o", mfc="none", capsize=3, color=colour)
    for axes in (time_axes, memory_axes):
        axes.set_xscale("log")
        for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            ticks(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    time_axes.set(
        xlabel="processor seconds (solid: alone; dotted: on cached taps)",
        ylabel="validation loss",
    )
    figure.suptitle(title)
    memory_axes.set(xlabel="predicted peak of a step, MB (hollow: on cached taps)")
    for axes in (time_axes, memory_axes):
        axes.grid(alpha=0.3)
    memory_axes.legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_studied(parser)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16, help="rows of a step")
    parser.add_argument(
        "--train-rows", type=int, default=480, help="rows to train on; several epochs where steps pass more"
    )
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--options", nargs="*", default=[], help="further options of ladder-train")
    parser.add_argument("--folder", type=Path, help="by default outputs/frontier-MODEL")
    args = parser.parse_args()
    folder = (args.folder or OUTPUTS / f"frontier-{args.model}").absolute()
    common = [
        *studied(parser, args),
        f"train.max_steps={args.steps}",
        f"train.global_batch_size={args.batch}",
        f"train.micro_batch_size={min(args.batch, 4)}",
        f"data.train_samples={args.train_rows}",
        f"data.max_length={args.max_length}",
    ]
    if args.rows:
        common.append("data.validation_samples=64")
    common += args.options
    quiet_libraries(downloads=False)
    study = Study(folder, common)
    first = ["method=ladder", "data.validation_samples=1", "train.max_steps=1"]
    start = study.run("start", first, cached=False).seconds
    points: list[Point] = []
    for arm in arms(layers_of(common)):
        points.append(measure(study, arm, args.rates, args.seeds, {point.name: point for point in points}))
        write_json(folder / "frontier.json", {"start": start, "points": [asdict(point) for point in points]})
    text = table(points, start)
    write_text(folder / "frontier.md", text)
    draw(points, start, folder / "frontier.png", f"{args.model}, {args.steps} steps of {args.batch} rows")
    make_console().print(text, markup=False, highlight=False)
    print(f"written to {folder}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, RunFailed) as error:
        sys.exit(f"error: {error}")
