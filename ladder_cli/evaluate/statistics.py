"""Intervals and tests of scores. Scores are 0 or 1 (or a mean of repeats), `[runs, problems]`."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
CONFIDENCE = 0.95
_Z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
_RESAMPLES = 10_000
_CHUNK = 500  # resamples drawn at a time
_SEED = 0  # equal samples always have equal intervals


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95% Wilson score interval of a proportion (Wilson, 1927).

    Raises:
        ValueError: if there are no trials.
    """
    if trials < 1:
        raise ValueError("a proportion of no trials has no interval")
    interval = stats.binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))


def wald_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95% Wald interval, clipped to [0, 1]. Most papers give it; near 0 and 1 it is too narrow."""
    share = successes / trials
    half = _Z * math.sqrt(share * (1 - share) / trials)
    return max(0.0, share - half), min(1.0, share + half)


@dataclass(frozen=True)
class Difference:
    """A mean, or a difference of means, with its 95% interval.

    Attributes:
        p_value: two-sided, of the hypothesis of no difference.
    """

    value: float
    low: float
    high: float
    p_value: float


def score_interval(scores: Array) -> tuple[float, float]:
    """Compute the 95% interval of the mean score of several runs on the same problems, for new problems and new runs.

    Hierarchical bootstrap: runs and problems are drawn with replacement, independently of each other. A plain one
    counts the noise of single answers three times (Owen, 2007) and is too narrow for five runs. So its spread is scaled
    to the one that the components of variance give (two-way analysis of variance), and widened by Student's t at
    Satterthwaite's degrees of freedom. In simulation (tests/evaluate/test_statistics.py) it covers 93 to 97%. If
    nothing varies, it is Wilson's interval over problems.

    Args:
        scores: `[runs, problems]`.
    """
    problems = scores.shape[1]
    if scores.min() == scores.max() and scores.min() in (0.0, 1.0):
        return wilson_interval(round(problems * float(scores.min())), problems)
    interval = mean_difference(scores, np.zeros((1, problems)))
    return max(0.0, interval.low), min(1.0, interval.high)


def mean_difference(first: Array, second: Array) -> Difference:
    """Compare the mean score of `first` with that of `second` over the same problems, as in `score_interval`.

    Problems are drawn for both sides together (a paired bootstrap), runs for each side separately. The p-value is that
    of Student's t with the spread and degrees of freedom of the interval.

    Args:
        first, second: `[runs, problems]`; a side with one run has no variance between runs.
    """
    problems = first.shape[1]
    value = float(first.mean() - second.mean())
    # (weight, mean square, its degrees of freedom); the variance of the mean is the weighted sum of mean squares.
    by_problem = first.mean(0) - second.mean(0)
    parts = [(1 / problems, float(by_problem.var(ddof=1)), problems - 1)] if problems > 1 else []
    for side in (first, second):
        runs = len(side)
        if runs > 1 and problems > 1:
            between, noise = _mean_squares(side)
            if between > noise:
                parts += [(1 / side.size, between, runs - 1), (-1 / side.size, noise, (runs - 1) * (problems - 1))]
    variance = sum(weight * square for weight, square, _ in parts)
    if variance <= 0:
        # No problem differs between the sides. As many may differ as Wilson's interval allows where none was seen.
        _, reach = wilson_interval(0, problems)
        p_value = 1.0 if value == 0 else 0.5 ** (problems - 1)
        return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), p_value)
    freedom = variance**2 / sum((weight * square) ** 2 / df for weight, square, df in parts)
    draws = _resampled(first, second) - value
    wider = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) / _Z
    low, high = np.quantile(draws, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    scale = wider * math.sqrt(variance) / float(draws.std())
    p_value = 2 * float(stats.t.sf(abs(value) / math.sqrt(variance), freedom))
    return Difference(value, max(-1.0, value + scale * float(low)), min(1.0, value + scale * float(high)), p_value)


def _mean_squares(scores: Array) -> tuple[float, float]:
    """Return the mean squares between runs and of the residual (two-way analysis of variance, one per cell)."""
    runs, problems = scores.shape
    by_run, by_problem, mean = scores.mean(1), scores.mean(0), scores.mean()
    between = problems * float(((by_run - mean) ** 2).sum()) / (runs - 1)
    rest = scores - by_run[:, None] - by_problem[None] + mean
    return between, float((rest**2).sum()) / ((runs - 1) * (problems - 1))


def _resampled(first: Array, second: Array) -> Array:
    random = np.random.default_rng(_SEED)
    problems = first.shape[1]
    draws = []
    for _ in range(_RESAMPLES // _CHUNK):
        weights = _weights(random, problems, _CHUNK)
        sides = [(_weights(random, len(side), _CHUNK) * (weights @ side.T)).sum(1) for side in (first, second)]
        draws.append(sides[0] - sides[1])
    return np.concatenate(draws)


def _weights(random: np.random.Generator, count: int, resamples: int) -> Array:
    """Draw resamples of `count` items: the share of each item in each resample, `[resamples, count]`."""
    return random.multinomial(count, np.full(count, 1 / count), resamples) / count


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the exact two-sided p-value of McNemar's test from the problems that only one of two systems solves."""
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values for their number (Holm, 1979); the order stays."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def matthews_correlation(counts: Array) -> Array:
    """Compute Matthews' correlation of binary confusion matrices, -1 to 1; 0 if a row or column is empty.

    Args:
        counts: `[..., 4]`, true positives, false negatives, false positives and true negatives.
    """
    tp, fn, fp, tn = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    denominator = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, denominator, out=np.zeros_like(denominator), where=denominator > 0)


def matthews_interval(cells: Array) -> tuple[float, float]:
    """Compute the 95% bootstrap interval of Matthews' correlation (mean over runs), over runs and problems.

    Args:
        cells: `[runs, problems, 4]`, one-hot: the cell of the confusion matrix of each answer.
    """
    random = np.random.default_rng(_SEED)
    runs, problems, _ = cells.shape
    draws = []
    for _ in range(_RESAMPLES // _CHUNK):
        counts = np.einsum("bp,rpc->brc", _weights(random, problems, _CHUNK), cells, optimize=True)
        draws.append((matthews_correlation(counts) * _weights(random, runs, _CHUNK)).sum(1))
    low, high = np.quantile(np.concatenate(draws), [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)
