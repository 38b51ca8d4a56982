"""Decides by enumeration whether a printed mean and deviation can come from so many runs over so many problems.

A run solves a whole number of problems. Over few problems (AIME has 30) few pairs of a mean and a standard deviation
can occur, so a printed pair restricts the number of runs behind it.
"""

import math
from functools import cache


def possible(problems: int, runs: int, mean: float, deviation: float, ddof: int = 1, digits: int = 1) -> bool:
    """Return whether `runs` runs over `problems` problems can have this mean and deviation, both in percent.

    Args:
        ddof: 1 for the sample deviation (n - 1), 0 for the population's.
        digits: after the point, to which both are rounded.
    """
    half = 0.5 * 10**-digits + 1e-9
    for solved in range(problems * runs + 1):
        if abs(100 * solved / (problems * runs) - mean) > half:
            continue
        for squares in _sums_of_squares(problems, runs, solved):
            variance = max(squares - solved * solved / runs, 0.0) / (runs - ddof)
            if abs(100 / problems * math.sqrt(variance) - deviation) <= half:
                return True
    return False


@cache
def _sums_of_squares(problems: int, runs: int, solved: int) -> frozenset[int]:
    """Return the sums of squares of all `runs` numbers from 0 to `problems` that add up to `solved`."""
    if runs == 0:
        return frozenset([0] if solved == 0 else [])
    found: set[int] = set()
    for one in range(min(problems, solved) + 1):
        found.update(rest + one * one for rest in _sums_of_squares(problems, runs - 1, solved - one))
    return frozenset(found)
