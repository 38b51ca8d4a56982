"""Intervals for what was measured."""

import math


def wilson_interval(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """95% Wilson score interval of a proportion (Wilson, 1927), clipped to [0, 1].

    Raises:
        ValueError: without trials.
    """
    if trials < 1:
        raise ValueError("a proportion of no trials has no interval")
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def matthews_correlation(true_positive: int, true_negative: int, false_positive: int, false_negative: int) -> float:
    """Matthews' correlation of a binary confusion matrix, -1 to 1; 0 where a row or column of it is empty."""
    denominator = math.sqrt(
        (true_positive + false_positive)
        * (true_positive + false_negative)
        * (true_negative + false_positive)
        * (true_negative + false_negative)
    )
    if denominator == 0:
        return 0.0
    return (true_positive * true_negative - false_positive * false_negative) / denominator
