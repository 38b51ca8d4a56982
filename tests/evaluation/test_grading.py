import json
import threading
import time

import pytest

from ladder_cli.evaluation.grading import Grader, Task
from ladder_cli.evaluation.verdict import CORRECT, CRASH, INCORRECT, NO_ANSWER, TIMEOUT
from tests.evaluation.test_verdict import CASES


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=2, seconds=4.0) as pool:
        yield pool


def test_workers_give_the_same_verdicts_from_a_thread(grader):
    results = {}

    def work():
        for grade in grader.grade(Task(n, gold, text) for n, (gold, text, _) in enumerate(CASES)):
            results[grade.key] = grade.verdict

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert results == {n: expected for n, (_, _, expected) in enumerate(CASES)}


def test_a_verification_that_runs_on_is_killed_and_the_others_are_not_lost(grader):
    tower = "\\boxed{" + "9^{9^{9^{9^{9}}}}" + "!}"
    tasks = [
        Task("good 1", "7", "\\boxed{7}"),
        Task("tower", "7", tower),
        Task("good 2", "8", "\\boxed{8}"),
        Task("bad", "7", "\\boxed{9}"),
    ]
    started = time.monotonic()
    grades = {grade.key: grade.verdict for grade in grader.grade(tasks)}
    assert time.monotonic() - started < 60
    assert grades["tower"] in (TIMEOUT, CRASH)
    assert (grades["good 1"], grades["good 2"], grades["bad"]) == (CORRECT, CORRECT, INCORRECT)


def test_a_worker_that_dies_costs_one_verdict(grader):
    list(grader.grade([Task("warm", "1", "\\boxed{1}")]))
    for worker in grader._workers:
        worker._process.kill()
        worker._process.join()
    first = [grade.verdict for grade in grader.grade([Task(n, "1", "\\boxed{1}") for n in range(4)])]
    assert first.count(CRASH) <= 2
    assert first.count(CORRECT) >= 2
    assert [grade.verdict for grade in grader.grade([Task("after", "1", "\\boxed{1}")])] == [CORRECT]


def test_a_deadline_is_kept_by_the_parent():
    # The deadline starts after the worker is ready, and is shorter than any verification can be.
    with Grader(workers=1, seconds=0.0001) as hasty:
        assert [grade.verdict for grade in hasty.grade([Task(1, "x^2", "\\boxed{x^2}")])] == [TIMEOUT]


def test_a_completion_cut_off_without_a_box_has_no_answer(grader):
    tasks = [
        Task("cut", "7", "we get 7", truncated=True),
        Task("whole", "7", "we get 7"),
        Task("boxed", "7", "\\boxed{7} and then", truncated=True),
    ]
    grades = {grade.key: grade.verdict for grade in grader.grade(tasks)}
    assert grades == {"cut": NO_ANSWER, "whole": CORRECT, "boxed": CORRECT}


def test_verdicts_agree_with_those_that_others_gave_to_real_completions(shared, grader):
    path = shared / "data" / "critic_candidates" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    labels = {row["id"]: row["label"] == 1 for row in rows}
    grades = list(grader.grade(Task(row["id"], row["gold"], row["completion"]) for row in rows))
    assert len(grades) == len(rows) == 800
    agreeing = sum((grade.verdict == CORRECT) == labels[grade.key] for grade in grades)
    assert agreeing / 800 > 0.97
