"""Checks the paper's table 1 against itself: draws its laws, finds where they cross, and what its intervals can show.

The table gives L(C) = B / C^lambda + E over FLOPs C = zeta D_f. zeta counts FLOPs *per token* (section 4.2), but the
budgets D_f of table 7 are *rows*. The paper does not say whether a row counts as one unit or as its tokens, and the
printed laws mean different losses under each reading. We examine both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper.plots import COLOURS, STYLE, blank
from paper.reported import HUBER, PaperTable
from paper.scaling_law import PowerLaw, crossings

OBJECTIVES = {"least squares": "", "Huber": HUBER}
BUDGETS = (50_000.0, 400_000.0)  # training rows, table 7
# Mean length of a row, for the second reading. Ours: the paper does not give it, and its limit is 1,839 tokens.
TOKENS_A_ROW = 400
_UNITS = {"rows": 1.0, "tokens": float(TOKENS_A_ROW)}
_SEARCH = (1e9, 1e27)  # FLOPs
_HALF_DIGIT = {"λ": 0.005, "B": 0.5, "E": 0.005}  # the table prints two decimals, and B as a whole number


@dataclass(frozen=True)
class StatedLaw:
    """One row of table 1.

    Attributes:
        law: over FLOPs.
        exponent: its printed 95% interval.
        zeta: FLOPs per token by the paper's formula.
    """

    law: PowerLaw
    exponent: tuple[float, float]
    zeta: float

    @property
    def in_data(self) -> PowerLaw:
        """Return the same law over D_f, in whatever unit."""
        return PowerLaw(self.law.amplitude * self.zeta**-self.law.exponent, self.law.exponent, self.law.floor)

    def range(self, unit: str) -> tuple[float, float]:
        """Return the FLOPs of the smallest and the largest budget; `unit` is what D_f counts."""
        low, high = (rows * _UNITS[unit] * self.zeta for rows in BUDGETS)
        return low, high


@dataclass(frozen=True)
class Rounded:
    """How far a crossing moves if every printed number moves by half of its last digit.

    Attributes:
        crossings: at every corner of the rounding box, the one nearest to the printed numbers' crossing; None: nowhere.
        below: at every corner, whether the first law is below the second in the middle of the range.
    """

    crossings: tuple[float | None, ...]
    below: tuple[bool, ...]

    @property
    def reach(self) -> tuple[float, float] | None:
        """Return the lowest and the highest crossing."""
        found = [one for one in self.crossings if one is not None]
        return (min(found), max(found)) if found else None


def stated_laws(
    paper: PaperTable, zetas: Mapping[str, float], objective: str = "least squares"
) -> dict[str, StatedLaw]:
    """Return table 1's laws by "<backbone> <method>".

    Args:
        zetas: FLOPs per token by the paper's formula, by row.
        objective: of OBJECTIVES.
    """
    end = OBJECTIVES[objective]
    laws = {}
    for label, row in paper.reported.items():
        exponent, amplitude, floor = (row[name + end] for name in ("λ", "B", "E"))
        assert exponent.interval is not None
        laws[label] = StatedLaw(PowerLaw(amplitude.value, exponent.value, floor.value), exponent.interval, zetas[label])
    return laws


def meetings(first: StatedLaw, second: StatedLaw) -> tuple[float, ...]:
    """Return the FLOPs, from 1e9 to 1e27, at which both laws give the same loss."""
    return crossings(first.law, second.law, *_SEARCH)


def rounded(first: StatedLaw, second: StatedLaw, at: float) -> Rounded:
    """Evaluate all 64 corners of the box that rounds to the printed numbers of two laws.

    Args:
        at: FLOPs where the two are compared.
    """
    printed = meetings(first, second)
    met: list[float | None] = []
    below: list[bool] = []
    for one, other in product(_corners(first.law), _corners(second.law)):
        found = crossings(one, other, *_SEARCH)
        near = (lambda flops: abs(math.log(flops / printed[0]))) if printed else float
        met.append(min(found, key=near) if found else None)
        below.append(bool(one(at) < other(at)))
    return Rounded(tuple(met), tuple(below))


def _corners(law: PowerLaw) -> list[PowerLaw]:
    signs = product((-1, 1), repeat=3)
    return [
        PowerLaw(
            law.amplitude + b * _HALF_DIGIT["B"], law.exponent + e * _HALF_DIGIT["λ"], law.floor + f * _HALF_DIGIT["E"]
        )
        for b, e, f in signs
    ]


def smallest_visible_difference(first: StatedLaw, second: StatedLaw) -> float:
    """Return half of the 95% interval of the difference of two exponents, if their intervals are independent."""
    return math.hypot(*((law.exponent[1] - law.exponent[0]) / 2 for law in (first, second)))


def halving(exponent: float) -> float:
    """Return the share of the reducible loss that is left after twice the data."""
    return 2.0**-exponent


def pairs(laws: Mapping[str, StatedLaw]) -> list[tuple[str, str, str]]:
    """Return each backbone with the labels of its two methods, in the order of the table."""
    backbones = dict.fromkeys(label.split()[0] for label in laws)
    found = []
    for backbone in backbones:
        first, second = (label for label in laws if label.split()[0] == backbone)
        found.append((backbone, first, second))
    return found


def study(paper: PaperTable, zetas: Mapping[str, float]) -> list[str]:
    """Return what table 1 says of itself, one sentence a line."""
    lines = [
        "FLOPs per token by the paper's formula, with the published shapes and our trained parameters: "
        + ", ".join(f"{label} {zeta:.3g}" for label, zeta in zetas.items())
        + "."
    ]
    printed = stated_laws(paper, zetas)
    for backbone, one, other in pairs(printed):
        for objective in OBJECTIVES:
            laws = stated_laws(paper, zetas, objective)
            lines.append(_crossing_line(backbone, objective, laws[one], laws[other], (one, other)))
    for backbone, one, other in pairs(printed):
        first, second = printed[one], printed[other]
        gaps = ", ".join(
            f"{float(second.in_data(rows * _UNITS[unit]) - first.in_data(rows * _UNITS[unit])):+.3f} at "
            f"{rows:,.0f} rows if D_f counts {unit}"
            for unit in _UNITS
            for rows in BUDGETS
        )
        lines.append(f"{backbone}: at equal data, loss of {other.split()[1]} minus loss of {one.split()[1]}: {gaps}.")
    for backbone, one, other in pairs(printed):
        first, second = printed[one], printed[other]
        low, high = second.exponent
        lines.append(
            f"{backbone}: the exponents differ by {first.law.exponent - second.law.exponent:+.2f}; intervals as wide "
            f"as the printed ones could not show a difference under {smallest_visible_difference(first, second):.2f}. "
            f"The {other.split()[1]}'s own interval, {low:g} to {high:g}, runs from a method to which twice the data "
            f"leaves {halving(low):.0%} of the reducible loss to one that it leaves {halving(high):.0%}."
        )
    law = printed[next(iter(printed))]
    middle = math.sqrt(math.prod(law.range("rows")))
    lines.append(
        f"λ printed to two decimals leaves B open by a factor of {middle ** (2 * _HALF_DIGIT['λ']):.2f} at the middle "
        "of the range: the B of two rows cannot be compared, and B 869 (least squares) beside 701 (Huber) at the same "
        "λ and E is within that."
    )
    return lines


def _crossing_line(backbone: str, objective: str, first: StatedLaw, second: StatedLaw, labels: tuple[str, str]) -> str:
    one, other = (label.split()[1] for label in labels)
    found = meetings(first, second)
    where = " and ".join(f"{flops:.2g}" for flops in found) or "nowhere"
    parts = []
    for unit in _UNITS:
        low, high = min(first.range(unit)[0], second.range(unit)[0]), max(first.range(unit)[1], second.range(unit)[1])
        middle = math.sqrt(low * high)
        inside = any(low <= flops <= high for flops in found)
        lower = one if first.law(middle) < second.law(middle) else other
        share = sum(rounded(first, second, middle).below) / 64
        agreed = share if lower == one else 1 - share
        parts.append(
            f"if D_f counts {unit}, {low:.1e} to {high:.1e} FLOPs were run, the crossing is "
            f"{'in' if inside else 'out'}side, and {lower} is lower at equal FLOPs in the middle "
            f"({agreed:.0%} of the rounding corners agree)"
        )
    corners = rounded(first, second, 1.0)
    reach = corners.reach
    spread = "never" if reach is None else f"from {reach[0]:.0e} to {reach[1]:.0e}"
    none = sum(one is None for one in corners.crossings)
    return (
        f"{backbone}, {objective}: the printed laws cross at {where} FLOPs; {'; '.join(parts)}. Within the rounding of "
        f"the printed digits they cross {spread}, and at {none} of 64 corners nowhere from 1e9 to 1e27."
    )


@matplotlib.rc_context(STYLE)
def laws_figure(laws: Mapping[str, StatedLaw]) -> Figure:
    """Draw both methods' laws for each backbone over FLOPs, with bands of the rounding, budgets and crossings."""
    chosen = pairs(laws)
    figure, axes = blank(len(chosen), width=11.5)
    for axis, (backbone, *labels) in zip(axes, chosen, strict=True):
        low = min(laws[label].range("rows")[0] for label in labels) / 5
        high = 5 * max(laws[label].range("tokens")[1] for label in labels)
        grid = np.geomspace(low, high, 300)
        for number, label in enumerate(labels):
            one = laws[label]
            curves = np.array([corner(grid) for corner in _corners(one.law)])
            colour = COLOURS[number]
            axis.plot(grid, one.law(grid), color=colour, label=f"{label.split()[1]}, as printed")
            axis.fill_between(grid, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, lw=0)
        _mark_ranges(axis, laws, labels)
        for flops in meetings(laws[labels[0]], laws[labels[1]]):
            if low < flops < high:
                loss = float(laws[labels[0]].law(flops))
                axis.plot(flops, loss, "o", markersize=10, markerfacecolor="none", markeredgecolor="black")
                axis.annotate(
                    f"cross at {flops:.1e}", (flops, loss), xytext=(8, 10), textcoords="offset points", fontsize=8
                )
        axis.set(xscale="log", xlabel="FLOPs of training, the paper's count", title=backbone, xlim=(low, high))
        axis.set_ylim(0.16, 0.42)
        axis.minorticks_off()
        axis.legend(loc="upper right")
    axes[0].set_ylabel("loss by table 1; band: rounding of its digits")
    return figure


def _mark_ranges(axis: Axes, laws: Mapping[str, StatedLaw], labels: list[str]) -> None:
    """Mark the budgets that were run, as a grey span for each reading of D_f."""
    for unit, text in (("rows", "D_f in rows"), ("tokens", f"D_f in tokens,\n{TOKENS_A_ROW} a row (ours)")):
        low = min(laws[label].range(unit)[0] for label in labels)
        high = max(laws[label].range(unit)[1] for label in labels)
        axis.axvspan(low, high, color="grey", alpha=0.12, lw=0)
        axis.annotate(
            f"50k to 400k rows,\n{text}", (math.sqrt(low * high), 0.02), xycoords=("data", "axes fraction"),
            ha="center", va="bottom", fontsize=8, color="dimgrey",
        )  # fmt: skip
