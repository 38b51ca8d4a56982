"""Draws figures 3a, 3b and 4 from finished runs, and holds what all figures share: colours, style, saving."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper.runs import Run, by_label
from paper.tables import score_heading, score_interval, scores_of

if TYPE_CHECKING:
    from paper.memory_points import MemoryPoint

# Okabe and Ito's colours, which colour-blind readers can distinguish, also in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vPX*"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ladder-cli",
}


@matplotlib.rc_context(STYLE)
def memory_score_figure(runs: Sequence[Run], benchmark: str) -> Figure | None:
    """Draw figure 3a: measured peak memory against score, a point for every backbone and method.

    The score is that of the table: MCC for CoLA, F1 for QQP, else the percentage of right answers.

    Bars are standard deviations over runs (small points); for a single run, its 95% interval over problems.
    """
    groups = {
        label: [run for run in group if run.metrics and benchmark in run.scores]
        for label, group in by_label(runs).items()
    }
    groups = {label: group for label, group in groups.items() if scores_of(benchmark, group)}
    if not groups:
        return None
    figure, (axis,) = blank(1, width=8.5)
    ends = [0.0]
    for number, (label, group) in enumerate(groups.items()):
        peaks = [run.metrics["peak_memory_bytes"]["measured"] / 1e9 for run in group]
        scores = scores_of(benchmark, group)
        low = high = 0.0
        if len(scores) > 1:
            low = high = stdev(scores)
        elif (interval := score_interval(benchmark, group[0])) is not None:
            low, high = (abs(end - scores[0]) for end in interval)
        ends += [*scores, mean(scores) - low, mean(scores) + high]
        colour = COLOURS[number % len(COLOURS)]
        if len(scores) > 1:
            axis.scatter(peaks, scores, s=16, color=colour, alpha=0.5)
        axis.errorbar(
            mean(peaks),
            mean(scores),
            yerr=[[low], [high]],
            marker=MARKERS[number % len(MARKERS)],
            color=colour,
            markersize=8,
            capsize=3,
            linestyle="none",
            label=f"{label} (n = {len(group)})",
        )
    axis.set(xlabel="peak memory of training, GB", ylabel=score_heading(benchmark))
    largest = max(run.metrics["peak_memory_bytes"]["measured"] for group in groups.values() for run in group)
    axis.set_xlim(0, 1.1 * largest / 1e9)
    # Room for a marker above the best and below a negative score.
    axis.set_ylim(1.1 * min(ends), 1.1 * max(ends) or 1.0)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@matplotlib.rc_context(STYLE)
def memory_figure(points: Sequence["MemoryPoint"], model: str, cards: Sequence[int] = (24, 48, 80)) -> Figure:
    """Draw figure 3b: predicted peak memory by method, over context at one row and over batch at one context.

    Args:
        model: what the points were predicted for.
        cards: memory of cards to draw as lines, in GB (10^9 bytes).
    """
    figure, axes = blank(2)
    context = max({point.tokens for point in points if point.rows > 1}, default=0)
    panels = (
        ("tokens of context, 1 row", [point for point in points if point.rows == 1], "tokens"),
        (f"rows of {context:,} tokens", [point for point in points if point.tokens == context], "rows"),
    )
    for axis, (name, chosen, field) in zip(axes, panels, strict=True):
        for number, method in enumerate(dict.fromkeys(point.method for point in points)):
            line = sorted((getattr(point, field), point.bytes / 1e9) for point in chosen if point.method == method)
            axis.plot(
                *zip(*line, strict=True),
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                label=method,
            )
        ticks = sorted({getattr(point, field) for point in chosen})
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.set(xlabel=name, yscale="log")
        sizes = [point.bytes / 1e9 for point in points]
        top = 1.2 * max(sizes)
        axis.set_ylim(0.8 * min(sizes), top)
        amounts = [amount for amount in (16, 24, 32, 48, 80, 160, 320, 640) if axis.get_ylim()[0] < amount < top]
        axis.set_yticks(amounts, [str(amount) for amount in amounts])
        axis.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        for card in cards:
            if axis.get_ylim()[0] < card < top:
                axis.axhline(card, color="grey", linestyle=":", linewidth=1)
                axis.annotate(
                    f"{card} GB card", (0.01, card), xycoords=("axes fraction", "data"), color="grey", fontsize=8,
                    va="bottom",
                )  # fmt: skip
    axes[0].set_ylabel(f"peak memory of a step, GB ({model})")
    axes[0].legend()
    return figure


@matplotlib.rc_context(STYLE)
def memory_bars(sizes: Mapping[str, Mapping[str, float]], card: float | None = None) -> Figure:
    """Draw the memory axis of figure 3a: predicted peaks, a panel for each backbone, a bar for each method.

    Args:
        sizes: GB (10^9 bytes) by backbone and method.
        card: memory of a card to draw as a line, in GB.
    """
    columns = 2
    lines = -(-len(sizes) // columns)
    figure = Figure(figsize=(10.5, 0.8 + 1.9 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axis in panels[len(sizes) :]:
        axis.set_visible(False)
    for axis, (backbone, methods) in zip(panels, sizes.items(), strict=False):
        names = list(methods)
        fitting = [card is None or methods[name] <= card for name in names]
        colours = [COLOURS[0] if fits else COLOURS[1] for fits in fitting]
        bars = axis.barh(names, [methods[name] for name in names], color=colours)
        # A white background keeps the card's line from running through a number.
        axis.bar_label(bars, fmt="%.1f", padding=5, fontsize=8, bbox={"color": "white", "pad": 0.5}, zorder=3)
        axis.set_title(backbone, fontsize=10)
        axis.grid(axis="y", visible=False)
        axis.set_xlim(0, 1.12 * max(size for row in sizes.values() for size in row.values()))
        if card is not None:
            axis.axvline(card, color="black", linestyle=":", linewidth=1)
    label = "peak memory of a step, GB" + ("" if card is None else f" (dotted: the {card:g} GB card)")
    panels[0].invert_yaxis()
    figure.supxlabel(label, fontsize=10)
    return figure


@matplotlib.rc_context(STYLE)
def length_figure(runs: Sequence[Run], benchmark: str) -> Figure | None:
    """Draw figure 4: tokens of correct and of incorrect completions of all runs, by backbone and method."""
    groups = {
        label: [sample for run in group for sample in run.samples(benchmark)]
        for label, group in by_label(run for run in runs if benchmark in run.scores).items()
    }
    if not groups:
        return None
    figure, (axis,) = blank(1, width=max(6.4, 1.6 * len(groups) + 2))
    for number, samples in enumerate(groups.values()):
        for offset, right in ((-0.2, True), (0.2, False)):
            lengths = [sample["tokens"] for sample in samples if (sample["verdict"] == "correct") == right]
            if not lengths:
                continue
            drawn = axis.boxplot(
                lengths, positions=[number + offset], widths=0.34, showmeans=True, patch_artist=True,
                flierprops={"markersize": 3, "alpha": 0.4}, medianprops={"color": "black"},
                meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 5},
            )  # fmt: skip
            drawn["boxes"][0].set_facecolor(COLOURS[0 if right else 1])
            drawn["boxes"][0].set_alpha(0.7)
            drawn["boxes"][0].set_label("correct" if right else "incorrect")
            axis.annotate(
                f"n={len(lengths)}", (number + offset, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=8
            )
    axis.set_xticks(range(len(groups)), [label.replace(" ", "\n", 1) for label in groups])
    axis.set_ylabel(f"tokens of a completion ({benchmark})")
    axis.set_ylim(bottom=0)
    axis.grid(axis="x", visible=False)
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(
        [*unique.values()],
        [*unique],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        title="box: quartiles\ndiamond: mean",
    )
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `<name>.png` and `<name>.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / f"{name}.png", dpi=160)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def blank(panels: int, width: float | None = None) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels side by side."""
    # Without pyplot there is no global state and no search for a window system.
    figure = Figure(figsize=(width or (10.5 if panels == 2 else 6.4), 4.2), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])
