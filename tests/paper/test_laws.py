"""The paper's table 1 against itself."""

import numpy as np
import pytest

from paper.laws import (
    BUDGETS,
    OBJECTIVES,
    StatedLaw,
    laws_figure,
    meetings,
    pairs,
    rounded,
    smallest_visible_difference,
    stated_laws,
    study,
)
from paper.reported import paper_tables
from paper.scaling_law import PowerLaw, fit

PAPER = paper_tables()[1]
# N and n of the published shapes and of our presets (docs/shapes.md).
N = {"qwen2.5-math-1.5b": 1_543_714_304, "qwen2.5-7b": 7_615_616_512}
ZETAS = {
    "qwen2.5-math-1.5b qlora": 6.0 * (N["qwen2.5-math-1.5b"] + 18_464_768),
    "qwen2.5-7b qlora": 6.0 * (N["qwen2.5-7b"] + 40_370_176),
    "qwen2.5-math-1.5b ladder": 2.0 * N["qwen2.5-math-1.5b"] + 6 * 9_550_592,
    "qwen2.5-7b ladder": 2.0 * N["qwen2.5-7b"] + 6 * 49_594_496,
}


@pytest.mark.parametrize("label", PAPER.reported)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("unit", ["rows", "tokens"])
def test_our_fits_give_back_the_printed_laws_from_points_drawn_from_them(label, objective, unit):
    stated = stated_laws(PAPER, ZETAS, objective)[label]
    low, high = stated.range(unit)
    compute = np.array([50_000, 100_000, 200_000, 300_000, 400_000]) * low / BUDGETS[0]
    assert compute[-1] == pytest.approx(high)
    losses = stated.law(compute)
    for ours in ("least_squares", "huber"):
        found = fit(compute.tolist(), losses.tolist(), ours, draws=1).law
        assert found.exponent == pytest.approx(stated.law.exponent, abs=0.004)
        assert found.floor == pytest.approx(stated.law.floor, abs=0.004)
        assert found(compute) == pytest.approx(losses, abs=1e-5)
        # B follows the exponent: 0.001 of that is 4% of B here.
        assert np.log(found.amplitude) == pytest.approx(np.log(stated.law.amplitude), abs=0.15)


def test_with_equal_floors_the_printed_laws_cross_where_algebra_says():
    laws = stated_laws(PAPER, ZETAS)
    (found,) = meetings(laws["qwen2.5-math-1.5b qlora"], laws["qwen2.5-math-1.5b ladder"])
    assert found == pytest.approx((869 / 189) ** (1 / (0.26 - 0.22)), rel=1e-6)


def test_the_rounding_of_the_printed_digits_moves_a_crossing_by_orders_of_magnitude():
    laws = stated_laws(PAPER, ZETAS)
    spread = rounded(laws["qwen2.5-math-1.5b qlora"], laws["qwen2.5-math-1.5b ladder"], at=1e15)
    assert len(spread.crossings) == len(spread.below) == 64
    low, high = spread.reach
    assert high / low > 1e8
    assert None in spread.crossings
    assert 0 < sum(spread.below) < 64


def test_budgets_are_in_flops_by_the_paper_s_formula():
    law = stated_laws(PAPER, ZETAS)["qwen2.5-7b ladder"]
    assert law.range("rows") == (50_000 * ZETAS["qwen2.5-7b ladder"], 400_000 * ZETAS["qwen2.5-7b ladder"])
    assert law.in_data(1000.0) == pytest.approx(law.law(1000.0 * law.zeta))


def test_a_difference_is_visible_beyond_both_intervals_together():
    one = StatedLaw(PowerLaw(1.0, 0.3, 0.2), (0.27, 0.33), 1.0)
    other = StatedLaw(PowerLaw(1.0, 0.3, 0.2), (0.26, 0.34), 1.0)
    assert smallest_visible_difference(one, other) == pytest.approx(0.05)


def test_the_study_names_both_backbones_and_both_objectives_and_is_short():
    lines = study(PAPER, ZETAS)
    assert len(lines) == 10
    assert [line.split(":")[0] for line in lines[1:5]] == [
        f"{backbone}, {objective}" for backbone in N for objective in OBJECTIVES
    ]
    assert "cross at 3.7e+16 FLOPs" in lines[1]
    assert "under 0.11" in lines[7]


def test_the_figure_has_a_panel_for_each_backbone_and_a_ring_where_the_laws_cross():
    laws = stated_laws(PAPER, ZETAS)
    assert [pair[0] for pair in pairs(laws)] == list(N)
    first, second = laws_figure(laws).axes
    rings = [line.get_xdata()[0] for line in first.get_lines() if line.get_marker() == "o"]
    assert rings == [pytest.approx((869 / 189) ** 25)]
    # Those of 7B cross far below anything that was run.
    assert not [line for line in second.get_lines() if line.get_marker() == "o"]
