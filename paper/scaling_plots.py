"""Draws figure 2: losses and fitted laws over data and compute."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper.plots import COLOURS, MARKERS, STYLE, blank
from paper.runs import Run
from paper.scaling_law import PowerLaw, crossings
from paper.tables import flops_per_row, scaling_fits


@matplotlib.rc_context(STYLE)
def scaling_figure(runs: Sequence[Run], draws: int = 400) -> Figure | None:
    """Draw figure 2: validation loss over training rows and over FLOPs, points and fitted laws with 95% bands.

    A law whose exponent the points do not identify is dashed, has no band and ends at the last point. Rings stand where
    two identified laws of one backbone meet.

    Returns:
        None if no backbone and method has runs of three budgets.
    """
    fits = scaling_fits(runs, draws)
    if not fits:
        return None
    figure, axes = blank(2)
    laws: list[dict[str, PowerLaw]] = [{}, {}]
    for number, (label, found) in enumerate(fits.items()):
        points = [(float(run.rows or 0), run.metrics["eval_loss"]) for run in runs if run.label == label and run.rows]
        for axis, drawn, zeta in zip(axes, laws, (1.0, flops_per_row(runs, label)), strict=True):
            law = found.in_compute(zeta)
            grid = np.geomspace(law.budgets[0], (2 if law.identified else 1) * law.budgets[1], 60)
            colour = COLOURS[number % len(COLOURS)]
            name = label if law.identified else f"{label} (exponent not identified)"
            axis.plot(grid, law.law(grid), color=colour, label=name, linestyle="-" if law.identified else "--")
            if law.identified:
                curves = np.array([draw(grid) for draw in law.draws])
                axis.fill_between(grid, *np.quantile(curves, [0.025, 0.975], axis=0), color=colour, alpha=0.12, lw=0)
                drawn[label] = law.law
            axis.scatter(
                [zeta * rows for rows, _ in points],
                [loss for _, loss in points],
                color=colour,
                marker=MARKERS[number % len(MARKERS)],
                zorder=3,
            )
    losses = [run.metrics["eval_loss"] for run in runs if run.metrics]
    for axis, drawn, name in zip(axes, laws, ("training rows", "FLOPs of training, as done"), strict=True):
        axis.set(xscale="log", xlabel=name, ylim=(0.9 * min(losses) - 0.02, 1.1 * max(losses)))
        axis.minorticks_off()
        _mark_meetings(axis, drawn)
    budgets = sorted({run.rows for run in runs if run.rows})
    axes[0].set_xticks(budgets, [f"{rows:,}" for rows in budgets])
    axes[1].xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 3)))
    axes[1].xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda flops, _: f"{flops:.0e}".replace("+", "")))
    axes[0].set_ylabel("validation loss")
    axes[0].legend()
    return figure


def _pairs(laws: Mapping[str, PowerLaw]) -> list[tuple[str, str]]:
    """Yield the pairs of one backbone."""
    return [(one, other) for one, other in combinations(laws, 2) if one.split()[0] == other.split()[0]]


def _mark_meetings(axis: Axes, laws: Mapping[str, PowerLaw]) -> None:
    """Mark where two laws of one backbone meet within the axis, with a ring and the budget."""
    low, high = axis.get_xlim()
    for one, other in _pairs(laws):
        for budget in crossings(laws[one], laws[other], low, high):
            loss = float(laws[one](budget))
            axis.plot(
                budget, loss, "o", markersize=11, markerfacecolor="none", markeredgecolor="black", label="_meeting"
            )
            axis.annotate(
                f"meet at {budget:,.0f}" if budget < 1e7 else f"meet at {budget:.2g}",
                (budget, loss), xytext=(7, 7), textcoords="offset points", fontsize=8,
            )  # fmt: skip
