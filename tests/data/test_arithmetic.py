from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.data.arithmetic import ArithmeticProblem, problems


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), split=st.sampled_from(["train", "validation", "test"]))
def test_every_step_is_right_and_stays_within_range(seed, split):
    for problem in islice(problems(split, seed), 20):
        value = problem.start
        for equation, (operator, operand) in zip(problem.equations, problem.steps, strict=True):
            left, right = equation.split("=")
            assert left == f"{value}{operator}{operand}"
            # Python's own arithmetic is the reference.
            assert eval(left) == int(right)
            value = int(right)
            assert 0 <= value <= 49
        assert problem.solution.endswith(f"\\boxed{{{value}}}.")
        assert str(problem.start) in problem.question


def test_splits_never_share_a_problem_whatever_the_seeds():
    drawn = {
        split: {p.expression for seed in (0, 1, 2) for p in islice(problems(split, seed), 1500)}
        for split in ("train", "validation", "test")
    }
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


def test_a_stream_depends_on_the_seed_alone_and_repeats_nothing():
    first = list(islice(problems("train", 7), 300))
    assert first == list(islice(problems("train", 7), 300))
    assert first != list(islice(problems("train", 8), 300))
    assert len({problem.expression for problem in first}) == 300


def test_the_chain_is_carried_out_from_left_to_right():
    problem = ArithmeticProblem(7, (("+", 5), ("*", 2)))
    assert problem.question == "Compute 7+5*2 from left to right."
    assert problem.solution == "7+5=12\n12*2=24\nThe answer is \\boxed{24}."


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="choose from train, validation, test"):
        next(problems("dev", 0))
