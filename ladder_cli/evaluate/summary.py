"""Computes the metrics of a benchmark from graded samples: of one run, of several, or of one with repeats."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from ladder_cli.evaluate.answers.verdict import CORRECT, NO_ANSWER, TIMEOUT
from ladder_cli.evaluate.samples import Sample
from ladder_cli.evaluate.statistics import (
    Array,
    matthews_correlation,
    matthews_interval,
    score_interval,
    wald_interval,
    wilson_interval,
)
from ladder_cli.generate.engine import LENGTH

# What a standard deviation is over.
RUNS, INITIALISATIONS, SEEDS, ORDERS = "runs", "initialisations", "sampling seeds", "batch orders"
# Run -> its repeats -> the samples of all problems, in the same order.
Answers = dict[str, list[list[Sample]]]


def summarise(answers: Answers, greedy: bool = True, differ_in: str = RUNS) -> dict[str, Any]:
    """Compute the metrics of one benchmark.

    Args:
        answers: of runs that differ in nothing but the seed, or of one.
        greedy: whether the completions are.
        differ_in: what several runs differ in by their seed: `RUNS`, in first weights and order of rows; or
            `INITIALISATIONS`, in first weights alone.

    Returns:
        `pass_at_1`, the mean of `scores`; `std`, their sample standard deviation (n - 1), null for a single one;
        `n_runs`, how many scores that are; `spread_over`, what they differ in: `differ_in`, or of a single run that was
        repeated its sampling seeds or (greedy) its batch orders, null for a single score; `n_repeats` of each run;
        `scores` by run; `n_problems`; `ci95` and `ci95_method`; `truncated_rate`, `no_answer_rate`, `timeout_rate`;
        `mean_tokens_correct` and `mean_tokens_incorrect` over all samples (null where there is none);
        `math_verify`: what Math-Verify by itself makes of the same completions, and on how many of them it
        disagrees (null where it was not asked of all).
    """
    units = _units(answers)
    scores = {name: float(np.mean(row)) for name, row in units.items()}
    matrix = np.array(list(units.values()))
    samples = [sample for repeats in answers.values() for repeat in repeats for sample in repeat]
    correct = [sample for sample in samples if sample.verdict == CORRECT]
    wrong = [sample for sample in samples if sample.verdict != CORRECT]
    count, several = matrix.shape[1], len(scores) > 1
    over = differ_in if len(answers) > 1 else ORDERS if greedy else SEEDS

    def share(wanted: Callable[[Sample], bool]) -> float:
        return sum(map(wanted, samples)) / len(samples)

    return {
        "pass_at_1": float(matrix.mean()),
        "std": float(np.std(list(scores.values()), ddof=1)) if several else None,
        "n_runs": len(scores),
        "spread_over": over if several else None,
        "n_repeats": len(next(iter(answers.values()))),
        "scores": scores,
        "n_problems": count,
        "ci95": list(score_interval(matrix) if several else wilson_interval(round(matrix.sum()), count)),
        "ci95_method": f"hierarchical bootstrap over {over} and problems" if several else "Wilson over problems",
        "truncated_rate": share(lambda sample: sample.stop_reason == LENGTH),
        "no_answer_rate": share(lambda sample: sample.verdict == NO_ANSWER),
        "timeout_rate": share(lambda sample: sample.verdict == TIMEOUT),
        "mean_tokens_correct": _mean_tokens(correct),
        "mean_tokens_incorrect": _mean_tokens(wrong),
        "math_verify": _math_verify(samples),
    }


def _math_verify(samples: list[Sample]) -> dict[str, Any] | None:
    """Pass@1 by Math-Verify alone, and the ids of samples on whose correctness it disagrees."""
    if any(sample.math_verify is None for sample in samples):
        return None
    right = [sample.math_verify == CORRECT for sample in samples]
    disagreed = [s.id for s, says in zip(samples, right, strict=True) if says != (s.verdict == CORRECT)]
    return {"pass_at_1": sum(right) / len(right), "disagreements": len(disagreed), "disagreed": disagreed}


def summarise_labels(answers: Answers, positive: str, differ_in: str = RUNS) -> dict[str, Any]:
    """The metrics of a label task: those of `summarise`, where Pass@1 is the accuracy, and what label tasks add.

    Returns:
        also `wald95`, Wald's interval beside Wilson's (null for several runs); `matthews` (Matthews' correlation,
        mean over runs), `matthews_std` and `matthews_ci95`; `f1` of the positive label, mean over runs (null where it
        is neither there nor predicted); `majority`, the accuracy of always giving the more frequent label.
    """

    def cell(sample: Sample) -> list[float]:
        gold, given = sample.gold == positive, sample.answer == positive
        return [gold and given, gold and not given, given and not gold, not (gold or given)]

    metrics = summarise(answers, differ_in=differ_in)
    cells = np.array([[cell(s) for s in repeat] for repeats in answers.values() for repeat in repeats], dtype=float)
    by_run = matthews_correlation(cells.sum(1))
    tp, fn, fp, _ = cells.sum(1).T
    with_positive = 2 * tp + fp + fn > 0
    golds = Counter(sample.gold for sample in next(iter(answers.values()))[0])
    single = len(cells) == 1
    return {
        **metrics,
        "wald95": list(wald_interval(round(cells[0, :, [0, 3]].sum()), cells.shape[1])) if single else None,
        "matthews": float(by_run.mean()),
        "matthews_std": None if single else float(by_run.std(ddof=1)),
        "matthews_ci95": list(matthews_interval(cells)),
        "f1": float((2 * tp / (2 * tp + fp + fn)).mean()) if with_positive.all() else None,
        "majority": max(golds.values()) / cells.shape[1],
    }


def score_matrix(answers: Answers) -> Array:
    """Return scores `[runs, problems]`; for a single run with repeats, `[repeats, problems]`."""
    return np.array(list(_units(answers).values()))


def _units(answers: Answers) -> dict[str, list[float]]:
    """Return scores by run (the mean of its repeats), or by repeat if there is a single run."""
    right = {
        name: [[float(sample.verdict == CORRECT) for sample in repeat] for repeat in repeats]
        for name, repeats in answers.items()
    }
    (first, *others) = right.values()
    if not others and len(first) > 1:
        return {f"repeat {number}": scores for number, scores in enumerate(first, start=1)}
    return {name: [sum(same) / len(same) for same in zip(*repeats, strict=True)] for name, repeats in right.items()}


def _mean_tokens(samples: list[Sample]) -> float | None:
    counted = [sample.tokens for sample in samples if sample.tokens is not None]
    return sum(counted) / len(counted) if counted else None
