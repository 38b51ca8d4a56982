"""Commands taken apart, and what they cost."""

from dataclasses import replace

import pytest

from paper.commands import cells_of, evaluations_of, runs_of
from paper.costs import completions, costs, rate
from paper.reported import PAPER, paper_tables


def test_a_sweep_is_every_combination_and_commas_in_brackets_belong_to_a_value():
    runs = runs_of("ladder-train -m a=1,2 b=[[1,1],[2,2]],[[1,2]] hydra.sweep.dir=x")
    assert runs == [
        ["a=1", "b=[[1,1],[2,2]]"],
        ["a=1", "b=[[1,2]]"],
        ["a=2", "b=[[1,1],[2,2]]"],
        ["a=2", "b=[[1,2]]"],
    ]


def test_without_m_a_comma_is_part_of_the_value_and_other_commands_train_nothing():
    assert runs_of("ladder-train a=1,2") == [["a=1,2"]]
    assert runs_of("ladder-eval benchmarks=[a,b]") == []
    (evaluation,) = evaluations_of(["ladder-eval run='runs/*' benchmarks=[math500,amc23]", "ladder-train seed=1"])
    assert evaluation.benchmarks == ["math500", "amc23"]


def test_cells_are_told_apart_by_backbone_and_method():
    cells = cells_of(["ladder-train -m method=ladder,qlora seed=0,1"])
    assert {cell.label: [config.seed for config in cell.configs] for cell in cells} == {
        "tiny ladder": [0, 1],
        "tiny qlora": [0, 1],
    }


def test_costs_follow_the_arithmetic_and_the_paper_s_hour():
    command = "ladder-train -m experiment=scaling,scaling-qlora data.train_samples=100000"
    table = replace(paper_tables()[1], commands={PAPER: (command,)})
    ladder, qlora = costs(table)
    # The rate is a ladder's hour for 100,000 rows; QLoRA really does 4N + 6n where a ladder does 2N + 6n.
    assert (ladder.hours, qlora.hours) == (pytest.approx(1.0), pytest.approx(2.0, abs=0.01))
    assert ladder.flops == pytest.approx(rate() * 3600)


def test_completions_count_problems_runs_and_repeats():
    commands = (
        "ladder-train -m method=ladder seed=0,1,2",
        "ladder-eval run='runs/*' benchmarks=[amc23,cola]",
        "ladder-eval model=tiny benchmarks=[aime24] repeats=5",
    )
    assert completions(replace(paper_tables()[2], commands={PAPER: commands})) == 3 * 40 + 5 * 30
