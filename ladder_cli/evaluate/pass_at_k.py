"""Estimates Pass@k from several completions of each problem."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ladder_cli.evaluate.answers.verdict import CORRECT
from ladder_cli.evaluate.samples import Sample
from ladder_cli.evaluate.statistics import score_interval
from ladder_cli.evaluate.summary import summarise


def pass_at_k(completions: int, correct: int, k: int) -> float:
    """Estimate without bias the chance that one of `k` completions is right: 1 - C(n - c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1. With k = 1 it is the share of right completions.

    Raises:
        ValueError: unless 1 <= k <= completions and 0 <= correct <= completions.
    """
    if not (1 <= k <= completions and 0 <= correct <= completions):
        raise ValueError(f"pass@{k} of {correct} right among {completions} completions is not defined")
    # Python's integers neither cancel nor overflow, even for hundreds of completions.
    return 1.0 - math.comb(completions - correct, k) / math.comb(completions, k)


def summarise_problems(name: str, problems: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """Compute the metrics of graded completions, one or several of each problem.

    Args:
        name: of what was graded.
        problems: the samples of each problem.

    Returns:
        Those of `summary.summarise`. Where a problem has several completions, `pass_at_1` is the mean over problems of
        the share of right ones, with a bootstrap interval over problems; and there are `n_completions` and
        `pass_at_k`, `{"1": ..., "2": ...}`, up to the fewest completions that a problem has.
    """
    metrics = summarise({name: [[sample for samples in problems for sample in samples]]})
    if all(len(samples) == 1 for samples in problems):
        return metrics
    counts = [(len(samples), sum(sample.verdict == CORRECT for sample in samples)) for samples in problems]
    fewest = min(completions for completions, _ in counts)
    by_k = {str(k): float(np.mean([pass_at_k(n, c, k) for n, c in counts])) for k in range(1, fewest + 1)}
    shares = np.array([[c / n for n, c in counts]])
    return metrics | {
        "pass_at_1": by_k["1"],
        "scores": {name: by_k["1"]},
        "n_problems": len(problems),
        "n_completions": sum(completions for completions, _ in counts),
        "n_repeats": fewest,
        "ci95": list(score_interval(shares)),
        "ci95_method": "bootstrap over problems",
        "pass_at_k": by_k,
    }


def problem_lines(problems: Sequence[Sequence[Sample]]) -> list[dict[str, Any]]:
    """Return a line for each problem: its completions, the right ones, and its pass@k for every possible k."""
    lines = []
    for samples in problems:
        n, c = len(samples), sum(sample.verdict == CORRECT for sample in samples)
        by_k = {str(k): pass_at_k(n, c, k) for k in range(1, n + 1)}
        lines.append({"id": samples[0].id, "completions": n, "correct": c, "pass_at_k": by_k})
    return lines
