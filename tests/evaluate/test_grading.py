import contextlib
import json
import os
import signal
import threading
import time

import pytest

from ladder_cli.evaluate.answers.verdict import CORRECT, CRASH, INCORRECT, NO_ANSWER, TIMEOUT
from ladder_cli.evaluate.grading import Grader, Task, _Worker
from tests.evaluate.answers.test_verdict import CASES


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
    endless = "\\boxed{\\sum_{a=1}^{2000}\\sum_{b=1}^{2000}\\sum_{c=1}^{2000} a b c}"
    tasks = [
        Task("good 1", "7", "\\boxed{7}"),
        Task("endless", "7", endless),
        Task("good 2", "8", "\\boxed{8}"),
        Task("bad", "7", "\\boxed{9}"),
    ]
    started = time.monotonic()
    grades = {grade.key: grade.verdict for grade in grader.grade(tasks)}
    assert time.monotonic() - started < 60
    assert grades["endless"] in (TIMEOUT, CRASH)
    assert (grades["good 1"], grades["good 2"], grades["bad"]) == (CORRECT, CORRECT, INCORRECT)


def dying(monkeypatch, key, number, times):
    """Let a signal end the worker that is given the task of that key, before it can answer; returns who died."""
    submit, dead = _Worker.submit, []

    def submit_to_the_dying(worker, task, seconds, second_opinion):
        if task.key != key or len(dead) == times:
            submit(worker, task, seconds, second_opinion)
            return
        process = worker._process.pid
        os.kill(process, signal.SIGSTOP)
        submit(worker, task, seconds, second_opinion)
        os.kill(process, number)
        with contextlib.suppress(ProcessLookupError):  # SIGKILL ends a stopped process too
            os.kill(process, signal.SIGCONT)
        dead.append(process)

    monkeypatch.setattr(_Worker, "submit", submit_to_the_dying)
    return dead


@pytest.mark.parametrize(("kills", "verdict"), [(5, CORRECT), (10, CRASH)])
def test_workers_killed_by_somebody_else_cost_no_verdict_unless_it_never_ends(grader, monkeypatch, kills, verdict):
    dead = dying(monkeypatch, "hunted", signal.SIGKILL, kills)
    grades = {
        grade.key: grade.verdict for grade in grader.grade(Task(n, "1", "\\boxed{1}") for n in ("hunted", "other"))
    }
    assert (len(dead), grades) == (kills, {"hunted": verdict, "other": CORRECT})


def test_a_worker_that_dies_twice_at_one_answer_makes_it_a_crash(grader, monkeypatch):
    dead = dying(monkeypatch, "fatal", signal.SIGSEGV, 3)
    grades = {
        grade.key: grade.verdict for grade in grader.grade(Task(n, "1", "\\boxed{1}") for n in ("fatal", "other"))
    }
    assert (len(dead), grades) == (2, {"fatal": CRASH, "other": CORRECT})


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
