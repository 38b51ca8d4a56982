"""The grader among strings that hang, crash or bloat others.

LADDER_STRESS=1000 pytest -s tests/evaluate/test_stress.py     as many as that, and the figures
"""

import os
import threading
import time
from collections import Counter
from pathlib import Path

from ladder_cli.evaluate.answers.verdict import CORRECT, INCORRECT, VERDICTS
from ladder_cli.evaluate.grading import MEMORY_LIMIT_BYTES, Grader, Task
from tests.evaluate.answers.nasty import nasty

NUMBER = int(os.environ.get("LADDER_STRESS", "35"))
SECONDS = 1.0 if NUMBER < 100 else 2.0
# What a loaded machine may take to start a worker or to be heard.
SLACK = 20.0


def peak_bytes(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmPeak")), 0)


def test_nasty_strings_neither_hang_nor_bloat_the_grader_nor_spoil_the_answers_between_them():
    tasks, good = [], {}
    for number, text in enumerate(nasty(NUMBER)):
        tasks.append(Task(("nasty", number), "7", text))
        good["right", number], good["wrong", number] = CORRECT, INCORRECT
        tasks.append(Task(("right", number), f"\\frac{{{number}}}{{7}}", f"thus \\boxed{{{number}/7}}"))
        tasks.append(Task(("wrong", number), str(number), f"thus \\boxed{{{number + 1}}}"))
    verdicts, gaps, peaks = {}, [], []

    def work():
        with Grader(workers=2, seconds=SECONDS) as grader:
            last = time.monotonic()
            for grade in grader.grade(tasks):
                verdicts[grade.key] = grade.verdict
                gaps.append(time.monotonic() - last)
                last = time.monotonic()
                peaks.extend(peak_bytes(worker._process.pid) for worker in grader._workers)

    thread = threading.Thread(target=work)
    started = time.monotonic()
    thread.start()
    thread.join()
    assert len(verdicts) == len(tasks)
    assert {key: verdicts[key] for key in good} == good
    assert set(verdicts.values()) <= set(VERDICTS)
    assert max(gaps) < SECONDS + SLACK
    assert max(peaks) <= MEMORY_LIMIT_BYTES
    ended = Counter(verdict for (kind, _), verdict in verdicts.items() if kind == "nasty")
    print(
        f"{NUMBER} nasty strings in {time.monotonic() - started:.0f} s, deadline {SECONDS} s: {dict(ended)}; longest "
        f"wait for any verdict {max(gaps):.2f} s; largest address space of a worker {max(peaks) / 2**20:.0f} MiB"
    )


def test_a_worker_whose_parent_is_gone_ends_by_itself():
    import resource
    import subprocess
    import sys

    code = "from ladder_cli.evaluate.grading import _end_by_itself\n_end_by_itself(0.5)\nwhile True: pass"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=120)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime
    assert ended.returncode < 0
    assert used < 10


def test_ordinary_answers_are_all_graded_and_their_number_per_second_is_printed():
    count = 200 if NUMBER < 100 else 2000
    tasks = [
        Task(n, gold.format(n=n, digit=n % 10), completion.format(n=n, digit=n % 10))
        for n, (gold, completion) in enumerate([
            ("{n}", "Hence the answer is $\\boxed{{{n}}}$."),
            ("\\frac{{{n}}}{{7}}", "so $x = \\boxed{{\\frac{{{n}}}{{7}}}}$"),
            ("\\sqrt{{2}}", "we get \\boxed{{\\sqrt{{2}}}}"),
            ("({digit}, 3)", "the point is \\boxed{{({digit},3)}}"),
            ("{n}", "and that is \\boxed{{12}}"),
        ] * (count // 5))
    ]  # fmt: skip
    with Grader(workers=2) as grader:
        list(grader.grade(tasks[:2]))
        started = time.monotonic()
        grades = list(grader.grade(tasks))
    seconds = time.monotonic() - started
    assert len(grades) == count
    assert all((grade.verdict == CORRECT) == (grade.key % 5 < 4 or grade.key == 12) for grade in grades)
    print(f"{count} ordinary answers: {count / seconds:.0f} verifications/s on 2 workers")
