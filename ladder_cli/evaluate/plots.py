"""Plots a comparison: scores with their intervals, and the lengths of correct and incorrect completions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ladder_cli.evaluate.comparison import Compared

# Okabe and Ito's blue and vermilion, which colour-blind readers can distinguish.
_COLOURS = ("#0072B2", "#D55E00")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "svg.fonttype": "none",
    "svg.hashsalt": "ladder-cli",
}


def draw_comparison(path: Path, names: tuple[str, str], compared: "list[Compared]") -> None:
    """Write `path`.png and `path`.svg."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.5, 1.6 + 0.85 * len(compared)), layout="constrained")
        FigureCanvasAgg(figure)
        scores, lengths = figure.subplots(1, 2, sharey=True)
        _draw_scores(scores, names, compared)
        _draw_lengths(lengths, compared)
        scores.set_yticks(range(len(compared)), [each.benchmark for each in compared])
        scores.set_ylim(len(compared) - 0.45, -0.55)
        for axes in (scores, lengths):
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="0.9", linewidth=0.6)
            axes.set_axisbelow(True)
        figure.legend(*scores.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path.with_suffix(".png"), dpi=200)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def _draw_scores(axes: "Axes", names: tuple[str, str], compared: "list[Compared]") -> None:
    for side, (name, colour) in enumerate(zip(names, _COLOURS, strict=True)):
        metrics = [(each.first, each.second)[side] for each in compared]
        middle = [100 * each["pass_at_1"] for each in metrics]
        rows = [row + (-0.14, 0.14)[side] for row in range(len(compared))]
        ends = [[100 * end for end in each["ci95"]] for each in metrics]
        reach = [
            [max(0.0, m - low) for m, (low, _) in zip(middle, ends, strict=True)],
            [max(0.0, high - m) for m, (_, high) in zip(middle, ends, strict=True)],
        ]
        axes.errorbar(middle, rows, xerr=reach, fmt="o", color=colour, markersize=4.5, capsize=2.5, label=name)
    # A dot at zero must be whole too.
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    axes.set_xlabel("Pass@1, per cent")
    axes.set_title("Score with 95% interval")


def _draw_lengths(axes: "Axes", compared: "list[Compared]") -> None:
    axes.set_title("Completion length: correct filled, incorrect hollow")
    axes.set_xlabel("tokens (box: quartiles; line: 5 to 95%; dot: mean)")
    offsets = {(0, "correct"): -0.27, (0, "incorrect"): -0.1, (1, "correct"): 0.1, (1, "incorrect"): 0.27}
    drawn = False
    for row, each in enumerate(compared):
        for (side, verdict), offset in offsets.items():
            tokens = each.lengths[side][verdict]
            if not tokens:
                continue
            drawn = True
            colour = _COLOURS[side]
            axes.boxplot(
                [tokens],
                positions=[row + offset],
                orientation="horizontal",
                widths=0.13,
                whis=(5, 95),
                showfliers=False,
                showmeans=True,
                manage_ticks=False,
                patch_artist=True,
                boxprops={"facecolor": colour if verdict == "correct" else "white", "edgecolor": colour},
                medianprops={"color": "white" if verdict == "correct" else colour},
                whiskerprops={"color": colour},
                capprops={"visible": False},
                meanprops={"marker": "o", "markersize": 3, "markerfacecolor": "black", "markeredgecolor": "none"},
            )
    axes.set_xlim(left=0)
    if not drawn:
        axes.text(0.5, 0.5, "no token counts", transform=axes.transAxes, ha="center", va="center", color="0.4")
