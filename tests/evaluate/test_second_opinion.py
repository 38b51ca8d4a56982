"""Math-Verify's own word on a completion stands beside our verdict and never in its place."""

import os
import signal

import pytest

from ladder_cli.evaluate.answers.verdict import CORRECT, CRASH, INCORRECT, NO_ANSWER, TIMEOUT, Judged
from ladder_cli.evaluate.grading import Grader, Task, _Worker, grader_identity
from ladder_cli.evaluate.samples import Sample
from ladder_cli.evaluate.second_opinion import math_verify_says
from ladder_cli.evaluate.summary import summarise


@pytest.mark.parametrize(
    ("gold", "completion", "says"),
    [
        ("10", r"It fell by \boxed{10\%}.", CORRECT),
        (r"\frac{1}{2}", r"\boxed{0.5}", CORRECT),
        ("3", r"\boxed{4}", INCORRECT),
        ("3", "I do not know.", NO_ANSWER),
        ("0.0000001", r"\boxed{0.0000002}", CORRECT),  # as it is: to six places; our verdict is another
    ],
)
def test_math_verify_is_asked_as_papers_ask_it(gold, completion, says):
    assert math_verify_says(gold, completion) == says


def test_a_disagreement_is_recorded_and_our_verdict_stands():
    tasks = [Task("tiny", "0.0000001", r"\boxed{0.0000002}"), Task("plain", "7", r"\boxed{7}")]
    with Grader(second_opinion=True) as grader:
        grades = {grade.key: grade for grade in grader.grade(tasks)}
    assert (grades["tiny"].verdict, grades["tiny"].math_verify) == (INCORRECT, CORRECT)
    assert (grades["plain"].verdict, grades["plain"].math_verify) == (CORRECT, CORRECT)


def test_who_does_not_ask_gets_no_opinion():
    with Grader() as grader:
        (grade,) = grader.grade([Task("plain", "7", r"\boxed{7}")])
    assert grade.math_verify is None


def test_a_second_opinion_that_hangs_costs_no_verdict():
    # Math-Verify computes all digits, and does not come back.
    endless = Task("endless", "3", r"\boxed{10^{10^{10}}}")
    with Grader(workers=1, seconds=3.0, second_opinion=True) as grader:
        grades = {grade.key: grade for grade in grader.grade([endless, Task("after", "7", r"\boxed{7}")])}
    assert grades["endless"].verdict == INCORRECT
    assert grades["endless"].math_verify in (TIMEOUT, CRASH)
    assert (grades["after"].verdict, grades["after"].math_verify) == (CORRECT, CORRECT)


def test_a_worker_killed_while_math_verify_was_asked_costs_no_opinion(monkeypatch):
    result, killed = _Worker.result, []

    def killed_between(worker):
        value = result(worker)
        if isinstance(value, Judged) and len(killed) < 3:
            os.kill(worker._process.pid, signal.SIGKILL)
            killed.append(value.verdict)
        return value

    monkeypatch.setattr(_Worker, "result", killed_between)
    with Grader(workers=1, second_opinion=True) as grader:
        (grade,) = grader.grade([Task("hunted", r"\frac{1}{2}", r"\boxed{0.5}")])
    assert killed == [CORRECT] * 3
    assert (grade.verdict, grade.math_verify) == (CORRECT, CORRECT)


def sample(name, verdict, says):
    return Sample(
        id=name, completion="", gold="", answer=None, verdict=verdict, tokens=3, stop_reason="stop", math_verify=says
    )


def test_the_summary_counts_both_and_names_the_difference():
    samples = [sample("a", CORRECT, CORRECT), sample("b", CORRECT, NO_ANSWER), sample("c", INCORRECT, NO_ANSWER)]
    figures = summarise({"run": [samples]})
    assert figures["pass_at_1"] == pytest.approx(2 / 3)
    assert figures["math_verify"] == {"pass_at_1": pytest.approx(1 / 3), "disagreements": 1, "disagreed": ["b"]}


def test_where_math_verify_was_not_asked_of_all_no_figure_is_given():
    assert summarise({"run": [[sample("a", CORRECT, CORRECT), sample("b", CORRECT, None)]]})["math_verify"] is None


def test_the_grader_names_every_package_that_a_verdict_rests_on():
    identity = grader_identity(5.0)
    assert {"mpmath", "math_verify", "latex2sympy2_extended", "sympy", "antlr4_python3_runtime"} <= identity.keys()
