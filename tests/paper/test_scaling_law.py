"""Fits of scaling laws: what was put in comes out, with intervals that hold it."""

import numpy as np
import pytest

from ladder_cli.errors import UserError
from paper.scaling_law import PARAMETERS, Fit, PowerLaw, crossings, fit, meeting

LAW = PowerLaw(30.0, 0.4, 0.5)
BUDGETS = np.array([5e4, 1e5, 2e5, 3e5, 4e5])


@pytest.mark.parametrize("objective", ["least_squares", "huber"])
@pytest.mark.parametrize("law", [LAW, PowerLaw(5e3, 0.9, 1.2), PowerLaw(4.0, 0.15, 0.05)])
def test_losses_of_a_known_law_give_it_back(law, objective):
    found = fit(BUDGETS, law(BUDGETS), objective, draws=1).law
    for name in PARAMETERS:
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=0.02), name


def test_the_intervals_hold_the_true_parameters():
    simulations, held = 40, dict.fromkeys(PARAMETERS, 0)
    for seed in range(simulations):
        noise = np.random.default_rng(seed).standard_normal(len(BUDGETS)) * 1e-3
        fitted = fit(BUDGETS, LAW(BUDGETS) + noise, draws=60, seed=seed)
        for name in PARAMETERS:
            low, high = fitted.interval(name)
            held[name] += low <= getattr(LAW, name) <= high
    # 95% of 40 are 38; fewer than 34 would come three times in a thousand. scripts/scaling_coverage.py draws 200.
    assert min(held.values()) >= 34


def test_one_spoiled_run_moves_the_huber_fit_less():
    losses = np.tile(LAW(BUDGETS), 3)
    losses[7] *= 1.1
    squares, huber = (
        fit(np.tile(BUDGETS, 3), losses, kind, draws=1).predict(8e5)[0] for kind in ("least_squares", "huber")
    )
    truth = float(LAW(8e5))
    assert abs(huber - truth) < 0.1 * abs(squares - truth)


def test_the_interval_of_a_prediction_widens_away_from_the_points():
    noise = np.random.default_rng(0).standard_normal(5) * 1e-3
    fitted = fit(BUDGETS, LAW(BUDGETS) + noise, draws=100)
    widths = [high - low for _, (low, high) in map(fitted.predict, (2e5, 8e5, 8e6))]
    assert widths[0] < widths[1] < widths[2]


def test_a_law_in_compute_gives_the_same_loss_for_the_flops_of_the_same_data():
    zeta = 9.3e9 * 620
    in_compute = LAW.in_compute(zeta)
    assert in_compute.amplitude == pytest.approx(LAW.amplitude * zeta**LAW.exponent)
    assert in_compute(BUDGETS * zeta) == pytest.approx(LAW(BUDGETS))


def test_two_laws_meet_where_they_are_equal():
    steep, flat = PowerLaw(100.0, 0.5, 0.5), PowerLaw(10.0, 0.25, 0.5)
    # 100 / D^0.5 = 10 / D^0.25, so D = 10^4.
    assert crossings(steep, flat, 1e2, 1e7) == pytest.approx((1e4,))
    assert crossings(steep, PowerLaw(101.0, 0.5, 0.5), 1e2, 1e7) == ()


def exact(law: PowerLaw) -> Fit:
    """A law as if its points had no noise."""
    return Fit(law, (law,), (5e4, 4e5), ())


def test_laws_of_one_exponent_meet_where_algebra_says_in_rows_and_in_flops():
    # Laws invented for this test: 10 / sqrt(D) + 0.40 = 4 / sqrt(D) + 0.43, so D = ((10 - 4) / 0.03)^2.
    first, second = exact(PowerLaw(10.0, 0.5, 0.40)), exact(PowerLaw(4.0, 0.5, 0.43))
    assert meeting(first, second).budgets == pytest.approx((40_000.0,), rel=1e-9)
    # With unlike costs of a row, A becomes A sqrt(zeta) and C = ((10 x 3 - 4 x 5) / 0.03)^2 x 10^6.
    in_flops = meeting(first.in_compute(9e6), second.in_compute(25e6))
    assert in_flops.budgets == pytest.approx(((10 / 0.03) ** 2 * 1e6,), rel=1e-9)


def test_laws_of_unlike_exponents_meet_twice_where_a_quadratic_says():
    # Invented: with u = D^-0.25, 100 u^2 + 0.9 = 14 u + 0.5 has the roots u = 1/10 and u = 1/25.
    steep, flat = PowerLaw(100.0, 0.5, 0.9), PowerLaw(14.0, 0.25, 0.5)
    assert crossings(steep, flat, 1e2, 1e8) == pytest.approx((1e4, 25.0**4), rel=1e-9)
    # A root on the edge of the range, or on a point of the grid, counts as well.
    assert crossings(steep, flat, 1e4, 25.0**4 * 1.1)[-1] == pytest.approx(25.0**4)
    assert crossings(steep, steep, 1e2, 1e8) == ()


def test_the_meeting_of_two_fits_has_an_interval_that_holds_it():
    first, second = PowerLaw(100.0, 0.5, 0.5), PowerLaw(100.0 / 1e5**0.25, 0.25, 0.5)
    (truth,) = crossings(first, second, 1e3, 1e8)
    assert truth == pytest.approx(1e5)
    random = np.random.default_rng(3)
    fits = [fit(BUDGETS, law(BUDGETS) + random.standard_normal(5) * 2e-4, draws=100) for law in (first, second)]
    found = meeting(*fits)
    assert found.interval is not None
    assert found.interval[0] < truth < found.interval[1]


def test_points_that_cannot_tell_three_parameters_apart_are_said_to():
    clear = fit(BUDGETS, LAW(BUDGETS) + np.array([1, -1, 1, -1, 1]) * 1e-5, draws=60)
    assert clear.warnings == ()
    noisy = fit(BUDGETS, LAW(BUDGETS) + np.array([1, -1, 1, -1, 1]) * 1e-2, draws=60)
    assert any("do not identify the exponent" in warning for warning in noisy.warnings)
    assert "no intervals" in fit(BUDGETS[:3], LAW(BUDGETS[:3])).warnings[0]


def test_losses_that_fall_faster_and_faster_are_said_to_follow_no_such_law_perhaps():
    # Of validation losses at small size, before the model has learned the task.
    early = fit([125, 250, 500, 1000, 2000], [1.034, 0.979, 0.920, 0.858, 0.695], draws=60)
    assert any("may not follow" in warning for warning in early.warnings)
    assert not any("may not follow" in warning for warning in fit(BUDGETS, LAW(BUDGETS), draws=2).warnings)


def test_a_flat_curve_is_not_taken_for_a_law():
    flat = fit(BUDGETS, 0.5 + np.array([1, -2, 1, 2, -2]) * 1e-3, draws=60)
    assert any("exponent" in warning for warning in flat.warnings)


@pytest.mark.parametrize(
    ("budgets", "losses", "message"),
    [([1e4, 1e4, 2e4], [1.0, 1.1, 0.9], "three budgets"), ([1, 2, 3], [1.0, float("nan"), 0.9], "positive numbers")],
)
def test_what_cannot_be_fitted_is_refused(budgets, losses, message):
    with pytest.raises(UserError, match=message):
        fit(budgets, losses)
