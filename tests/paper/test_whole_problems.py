"""Which of the paper's AIME and AMC cells can be five runs."""

from statistics import mean, pstdev, stdev

import pytest

from paper.reported import paper_tables
from paper.whole_problems import possible

PROBLEMS = {"aime24": 30, "aime25": 30, "amc23": 40}
TABLES = paper_tables()


def cells(trained):
    for number in (2, 3):
        for label, row in TABLES[number].reported.items():
            if (label not in TABLES[number].protocols) == trained:
                yield from ((f"{label} {name}", name, row[name]) for name in PROBLEMS if row[name].deviation)


@pytest.mark.parametrize("solved", [(2, 3, 3, 2, 5), (0, 0, 0, 0, 1), (12, 12, 12, 12, 12), (30, 0, 15, 7, 7)])
def test_what_five_runs_give_is_possible_for_five_runs(solved):
    shares = [100 * count / 30 for count in solved]
    assert possible(30, 5, round(mean(shares), 1), round(stdev(shares), 1))
    assert possible(30, 5, round(mean(shares), 1), round(pstdev(shares), 1), ddof=0)


def test_a_mean_between_two_whole_numbers_of_problems_is_impossible():
    # Five runs over 30 problems have means in steps of two thirds of a percent: 7.3 and 8.0, but not 7.7.
    assert not possible(30, 5, 7.7, 2.4)


def test_every_trained_cell_of_tables_2_and_3_fits_five_runs_with_the_sample_deviation():
    found = {name: possible(PROBLEMS[column], 5, cell.value, cell.deviation) for name, column, cell in cells(True)}
    assert len(found) == 18
    assert all(found.values())


def test_most_trained_cells_fit_no_other_way_of_counting():
    only = [
        name
        for name, column, cell in cells(True)
        if not any(
            possible(PROBLEMS[column], runs, cell.value, cell.deviation, ddof)
            for runs, ddof in ((3, 1), (3, 0), (4, 1), (4, 0), (5, 0), (8, 1), (8, 0))
        )
    ]
    assert len(only) == 13


def test_no_aime_cell_of_the_paper_s_four_baselines_fits_five_runs():
    baselines = [(name, column, cell) for name, column, cell in cells(False) if "backbone" in name]
    fits = {name: possible(PROBLEMS[column], 5, cell.value, cell.deviation) for name, column, cell in baselines}
    assert len(fits) == 12
    assert sorted(name for name, fit in fits.items() if fit) == [
        "qwen2.5-7b-instruct backbone amc23",
        "qwen2.5-math-1.5b backbone amc23",
    ]


def test_s1_1_s_cells_fit_the_ten_runs_of_the_paper_that_they_come_from():
    row = TABLES[2].reported["qwen2.5-7b s1.1-7B"]
    assert all(possible(PROBLEMS[name], 10, row[name].value, row[name].deviation) for name in PROBLEMS)
