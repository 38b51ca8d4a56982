"""Fits scaling laws of fine-tuning: L(D) = A / D^lambda + E in data, L(C) = B / C^lambda + E in compute (section 4.2).

A law is fitted from many starts, either by non-linear least squares of the loss or by Huber loss of its logarithm
(Hoffmann et al., 2022). Intervals are percentiles of a parametric bootstrap in which the noise itself is uncertain,
which matters with five points: each draw takes a variance RSS / chi2(points - 3), adds noise of that variance to the
fitted curve and fits again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, least_squares

from ladder_cli.errors import UserError

Objective = Literal["least_squares", "huber"]
PARAMETERS = ("amplitude", "exponent", "floor")
_LARGEST_EXPONENT = 5.0
_HUBER_SCALE = 1e-3  # Hoffmann et al., appendix D.2
_STARTS = 3  # polished, of those that the grid offers


@dataclass(frozen=True)
class PowerLaw:
    """loss = amplitude / budget^exponent + floor (A or B, lambda, E)."""

    amplitude: float
    exponent: float
    floor: float

    def __call__(self, budget: ArrayLike) -> NDArray[np.float64]:
        """Return the loss at each budget."""
        return self.amplitude * np.asarray(budget, dtype=float) ** -self.exponent + self.floor

    def in_compute(self, flops_per_unit: float) -> "PowerLaw":
        """Return the same law over FLOPs C = zeta D, where zeta is the cost of one unit of data: B = A zeta^lambda."""
        return PowerLaw(self.amplitude * flops_per_unit**self.exponent, self.exponent, self.floor)


@dataclass(frozen=True)
class Fit:
    """A fitted law and its uncertainty.

    Attributes:
        draws: bootstrapped laws.
        budgets: the smallest and the largest that were measured.
        warnings: what the points do not determine, a sentence each.
    """

    law: PowerLaw
    draws: tuple[PowerLaw, ...]
    budgets: tuple[float, float]
    warnings: tuple[str, ...]

    def interval(self, parameter: str) -> tuple[float, float]:
        """Return the 95% interval of one of PARAMETERS."""
        return _interval([getattr(law, parameter) for law in self.draws])

    @property
    def identified(self) -> bool:
        """Return whether the points determine the exponent to a factor of three."""
        low, high = self.interval("exponent")
        return high <= 3 * low

    def predict(self, budget: float) -> tuple[float, tuple[float, float]]:
        """Predict the loss at a budget, measured or not, with its 95% interval."""
        return float(self.law(budget)), _interval([float(law(budget)) for law in self.draws])

    def in_compute(self, flops_per_unit: float) -> "Fit":
        """Return the same fit over FLOPs."""
        low, high = self.budgets
        return Fit(
            self.law.in_compute(flops_per_unit),
            tuple(law.in_compute(flops_per_unit) for law in self.draws),
            (low * flops_per_unit, high * flops_per_unit),
            self.warnings,
        )


@dataclass(frozen=True)
class Meeting:
    """Where two fitted laws predict the same loss.

    Attributes:
        budgets: all of them within the range that was searched; none, one or two.
        interval: 95%, of the first one, if at least half of the draws meet; else None.
        share: of the draws that have any.
    """

    budgets: tuple[float, ...]
    interval: tuple[float, float] | None
    share: float


def fit(
    budgets: Sequence[float], losses: Sequence[float], objective: Objective = "least_squares", draws: int = 400,
    seed: int = 0,
) -> Fit:  # fmt: skip
    """Fit a law to measured losses; several runs of one budget are several points.

    Args:
        budgets: rows, tokens or FLOPs, all above 0.
        losses: the loss that each reached.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: for fewer than three distinct budgets, or a loss that is not a positive number.
    """
    x, y = np.asarray(budgets, dtype=float), np.asarray(losses, dtype=float)
    distinct = len(np.unique(x))
    if distinct < 3:
        raise UserError(f"a scaling law needs runs of at least three budgets: there are {distinct}.")
    if not (np.isfinite(y).all() and (y > 0).all() and (x > 0).all()):
        raise UserError("a scaling law needs budgets and losses that are positive numbers.")
    law = _fit(x, y, objective)
    freedom = len(x) - len(PARAMETERS)
    if freedom == 0:
        warning = "three points fit any three parameters exactly: there are no intervals."
        return Fit(law, (), (x.min(), x.max()), (warning,))
    random = np.random.default_rng(seed)
    predicted = law(x)
    logarithmic = objective == "huber"
    residuals = np.log(y / predicted) if logarithmic else y - predicted
    drawn = []
    for _ in range(draws):
        noise = random.standard_normal(len(x)) * np.sqrt(residuals @ residuals / random.chisquare(freedom))
        again = predicted * np.exp(noise) if logarithmic else np.maximum(predicted + noise, 1e-9)
        drawn.append(_fit(x, again, objective, law))
    fitted = Fit(law, tuple(drawn), (x.min(), x.max()), ())
    return Fit(law, fitted.draws, fitted.budgets, _warnings(fitted, distinct, float(y.min())))


def meeting(first: Fit, second: Fit, reach: float = 1000.0) -> Meeting:
    """Find the budgets where two methods meet, from 1/`reach` of the smallest measured to `reach` times the largest."""
    low = min(first.budgets[0], second.budgets[0]) / reach
    high = max(first.budgets[1], second.budgets[1]) * reach
    found = crossings(first.law, second.law, low, high)
    # Two fits of one seed draw the same noise. Reversing one order makes the draws independent.
    pairs = list(zip(first.draws, second.draws[::-1], strict=False))
    met = [roots for a, b in pairs if (roots := crossings(a, b, low, high))]
    share = len(met) / len(pairs) if pairs else 0.0
    interval = None
    if found and share >= 0.5:
        interval = _interval([min(roots, key=lambda root: abs(np.log(root / found[0]))) for roots in met])
    return Meeting(found, interval, share)


def crossings(first: PowerLaw, second: PowerLaw, low: float, high: float) -> tuple[float, ...]:
    """Find the budgets in [low, high] at which both laws give the same loss, which are at most two."""
    grid = np.geomspace(low, high, 400)
    gap = first(grid) - second(grid)

    def difference(log_budget: float) -> float:
        return float(first(np.exp(log_budget)) - second(np.exp(log_budget)))

    above = gap >= 0
    changes = np.flatnonzero(above[:-1] != above[1:])
    return tuple(float(np.exp(brentq(difference, np.log(grid[i]), np.log(grid[i + 1])))) for i in changes)


def _fit(x: NDArray, y: NDArray, objective: Objective, near: PowerLaw | None = None) -> PowerLaw:
    """Fit from several starts, those of a grid over the exponent and `near`; return the best law."""
    # Budgets over their geometric mean, so that amplitude and exponent are nearly independent.
    centre = np.exp(np.log(x).mean())
    log_x = np.log(x / centre)
    starts = _grid_starts(log_x, y)
    if near is not None:
        starts = [*starts[:1], (near.amplitude * centre**-near.exponent, near.exponent, near.floor)]
    log_y = np.log(y)

    def residual(theta: NDArray) -> NDArray:
        predicted = theta[0] * np.exp(-theta[1] * log_x) + theta[2]
        return np.log(np.maximum(predicted, 1e-12)) - log_y if objective == "huber" else predicted - y

    def jacobian(theta: NDArray) -> NDArray:
        power = np.exp(-theta[1] * log_x)
        columns = np.stack([power, -theta[0] * log_x * power, np.ones_like(power)], axis=1)
        if objective == "huber":
            columns /= np.maximum(theta[0] * power + theta[2], 1e-12)[:, None]
        return columns

    lower, upper = [1e-12, 1e-6, 0.0], [np.inf, _LARGEST_EXPONENT, np.inf]
    found = [
        least_squares(
            residual,
            np.clip(start, [1e-9, 1e-4, 1e-9], [np.inf, _LARGEST_EXPONENT - 1e-6, np.inf]),
            jac=jacobian,
            bounds=(lower, upper),
            x_scale=[y.mean(), 1.0, y.mean()],
            loss="huber" if objective == "huber" else "linear",
            f_scale=_HUBER_SCALE if objective == "huber" else 1.0,
        )
        for start in starts
    ]
    amplitude, exponent, floor = min(found, key=lambda result: result.cost).x
    return PowerLaw(float(amplitude * centre**exponent), float(exponent), float(floor))


def _grid_starts(log_x: NDArray, y: NDArray) -> list[tuple[float, float, float]]:
    """Solve for amplitude and floor, which are linear, at every exponent of a grid; return the best few."""
    exponents = np.geomspace(0.01, _LARGEST_EXPONENT * 0.9, 60)
    power = np.exp(-exponents[:, None] * log_x[None, :])
    spread = power - power.mean(axis=1, keepdims=True)
    amplitude = np.maximum((spread * (y - y.mean())).sum(axis=1) / (spread**2).sum(axis=1), 1e-9)
    floor = np.maximum(y.mean() - amplitude * power.mean(axis=1), 0.0)
    error = ((amplitude[:, None] * power + floor[:, None] - y) ** 2).sum(axis=1)
    best = np.argsort(error)[: _STARTS * 5 : 5]
    return [(float(amplitude[i]), float(exponents[i]), float(floor[i])) for i in best]


def _warnings(fitted: Fit, distinct: int, smallest: float) -> tuple[str, ...]:
    """Say what the points cannot identify; `smallest` is the smallest loss."""
    warnings = []
    if distinct < 5:
        warnings.append(f"{distinct} budgets for three parameters: the intervals lean on the law being right.")
    if not fitted.identified:
        low, high = fitted.interval("exponent")
        warnings.append(
            f"the points do not identify the exponent: {low:.3f} to {high:.3f}; more or wider budgets would."
        )
    low, high = fitted.interval("floor")
    if fitted.law.floor < 1e-3 * smallest:
        warnings.append(
            "the best floor is 0, the least there can be: within these budgets the losses may not follow such a law."
        )
    elif low < 0.05 * fitted.law.floor or high - low > fitted.law.floor:
        warnings.append(f"the points do not identify the floor: {low:.3f} to {high:.3f}; larger budgets would.")
    return tuple(warnings)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    # Weibull positions: the expected coverage is 95% for any number of draws.
    low, high = np.quantile(values, [0.025, 0.975], method="weibull")
    return float(low), float(high)
