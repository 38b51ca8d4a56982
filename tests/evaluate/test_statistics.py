import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ladder_cli.evaluate import statistics
from ladder_cli.evaluate.statistics import (
    holm,
    matthews_correlation,
    matthews_interval,
    mcnemar,
    mean_difference,
    score_interval,
    wald_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (8, 10), (250, 500), (500, 500), (1, 40)])
def test_intervals_of_a_proportion_are_those_of_statsmodels(successes, trials):
    assert wilson_interval(successes, trials) == pytest.approx(
        proportion_confint(successes, trials, method="wilson"), abs=1e-9
    )
    assert wald_interval(successes, trials) == pytest.approx(
        proportion_confint(successes, trials, method="normal"), abs=1e-9
    )


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 1), (12, 30), (7, 7)])
def test_mcnemar_is_that_of_statsmodels(only_first, only_second):
    expected = reference_mcnemar([[20, only_first], [only_second, 9]], exact=True).pvalue
    assert mcnemar(only_first, only_second) == pytest.approx(expected)


@pytest.mark.parametrize("p_values", [[0.04], [0.01, 0.04, 0.03], [0.5, 0.001, 0.9, 0.02], [0.03, 0.03]])
def test_holm_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_the_interval_of_a_difference_of_two_runs_is_the_paired_bootstrap_of_scipy():
    random = np.random.default_rng(3)
    first, second = (random.random((2, 300)) < [[0.6], [0.5]]).astype(float)
    second = np.where(random.random(300) < 0.5, first, second)
    ours = mean_difference(first[None], second[None])
    theirs = stats.bootstrap((first - second,), np.mean, method="percentile", rng=1).confidence_interval
    assert ours.value == pytest.approx((first - second).mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)
    assert ours.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-6)


def test_the_interval_does_not_hide_that_runs_differ():
    problems = 200
    same = np.tile(np.arange(problems) % 2, (4, 1)).astype(float)
    apart = same.copy()
    apart[:2, : problems // 2], apart[2:, : problems // 2] = 1.0, 0.0
    width = [high - low for low, high in (score_interval(same), score_interval(apart))]
    assert width[1] > 2 * width[0]


def test_scores_that_never_vary_have_the_interval_of_their_problems():
    assert score_interval(np.zeros((3, 40))) == wilson_interval(0, 40)
    assert score_interval(np.ones((3, 40))) == wilson_interval(40, 40)
    reach = wilson_interval(0, 40)[1]
    even = mean_difference(np.ones((1, 40)), np.ones((1, 40)))
    assert (even.low, even.value, even.high, even.p_value) == (-reach, 0, reach, 1)
    far = mean_difference(np.ones((1, 40)), np.zeros((1, 40)))
    assert (far.low, far.high) == (1 - reach, 1)
    assert far.p_value == pytest.approx(mcnemar(40, 0))


def drawn(random, runs, difficulty, ability, noise=0.5):
    """Right and wrong answers `[runs, problems]` by a logistic model with effects of run and problem."""
    logits = difficulty + ability + random.normal(0, noise, (runs, len(difficulty)))
    return (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)


def logistic_mean(*spreads):
    """The mean score when difficulty, ability and noise are normal with these standard deviations."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    return float((weights / (1 + np.exp(-points * np.sqrt(sum(s * s for s in spreads))))).sum() / weights.sum())


@pytest.mark.parametrize(("runs", "problems", "between_runs"), [(5, 60, 0.1), (3, 100, 0.3)])
def test_95_per_cent_intervals_over_runs_and_problems_cover_the_truth_as_often(
    runs, problems, between_runs, monkeypatch
):
    monkeypatch.setattr(statistics, "_RESAMPLES", 500)
    random = np.random.default_rng(runs)
    truth = logistic_mean(2.0, between_runs, 0.5)
    covered = []
    for _ in range(500):
        scores = drawn(random, runs, random.normal(0, 2, problems), random.normal(0, between_runs, (runs, 1)))
        low, high = score_interval(scores)
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("runs", [1, 4])
def test_95_per_cent_intervals_of_a_difference_cover_the_truth_as_often(runs, monkeypatch):
    monkeypatch.setattr(statistics, "_RESAMPLES", 500)
    random = np.random.default_rng(runs + 10)
    between_runs = 0.15 if runs > 1 else 0.0
    covered = []
    for _ in range(500):
        difficulty = random.normal(0, 2, 80)
        sides = [drawn(random, runs, difficulty, random.normal(0, between_runs, (runs, 1))) for _ in range(2)]
        result = mean_difference(*sides)
        covered.append(result.low <= 0 <= result.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_wilson_interval_covers_as_often_as_it_says_over_all_proportions():
    trials = 100
    intervals = [wilson_interval(k, trials) for k in range(trials + 1)]
    proportions = np.linspace(0.02, 0.98, 200)
    coverage = [
        sum(stats.binom.pmf(k, trials, p) for k, (low, high) in enumerate(intervals) if low <= p <= high)
        for p in proportions
    ]
    assert 0.94 <= np.mean(coverage) <= 0.96


def test_matthews_correlation_is_pearsons_of_the_two_indicators_and_its_interval_surrounds_it():
    random = np.random.default_rng(0)
    gold = random.random(150) < 0.6
    given = np.where(random.random(150) < 0.75, gold, ~gold)
    cells = np.stack([gold & given, gold & ~given, ~gold & given, ~gold & ~given], axis=-1).astype(float)
    value = float(matthews_correlation(cells.sum(0)))
    assert value == pytest.approx(np.corrcoef(gold, given)[0, 1])
    low, high = matthews_interval(cells[None])

    def reference(gold, given):
        return np.corrcoef(gold, given)[0, 1]

    theirs = stats.bootstrap((gold, given), reference, paired=True, vectorized=False, n_resamples=2000,
                             method="percentile", rng=2).confidence_interval  # fmt: skip
    assert low < value < high
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
