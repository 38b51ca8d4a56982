"""Evaluations that are killed at random moments and started again.

LADDER_KILLS=10 pytest -s tests/evaluate/test_kill.py     as many kills as that, of generation and of grading each
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from ladder_cli.evaluate.answers.verdict import CRASH, TIMEOUT

KILLS = int(os.environ.get("LADDER_KILLS", "1"))
GENERATION = ["model=tiny", "hardware=cpu", "limit=40", "decode.max_new_tokens=48", "decode.batch_size=4"]


def start(folder, options):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "ladder_cli.evaluate", *options, "output_dir=out"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(folder, options):
    _, errors = (process := start(folder, options)).communicate(timeout=300)
    assert process.returncode == 0, errors


def lines(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_after_progress(folder, options, samples, chance):
    """Start, wait for samples beyond those on disk, and kill -9 a random moment later; False if it ended before."""
    before = lines(samples)
    process = start(folder, options)
    while lines(samples) <= before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.4))
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


def left_behind(folder):
    """Processes that still stand in the folder: graders without a parent."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder.resolve():
                found.append(entry.name)
        except OSError:
            continue
    return found


def killed_again_and_again(folder, options, samples):
    chance, killed = random.Random(5), 0
    for _ in range(KILLS):
        killed += kill_after_progress(folder, options, samples, chance)
    finish(folder, options)
    patience = time.monotonic() + 60
    while left_behind(folder) and time.monotonic() < patience:
        time.sleep(0.1)
    assert left_behind(folder) == []
    print(f"killed {killed} of {KILLS} times before the end")
    assert killed > 0


def result(folder):
    """All samples by id, each of which stands there once, and the figures."""
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}, json.loads((folder / "result.json").read_text())


def test_a_killed_generation_ends_with_the_result_of_an_undisturbed_one(tmp_path):
    finish(tmp_path / "whole", GENERATION)
    killed_again_and_again(
        tmp_path / "killed", GENERATION, tmp_path / "killed" / "out" / "arithmetic" / "samples.jsonl"
    )
    whole, killed = (result(tmp_path / name / "out" / "arithmetic") for name in ("whole", "killed"))
    assert len(whole[0]) == 40
    assert killed == whole


def test_a_killed_grading_ends_with_the_result_of_an_undisturbed_one(tmp_path):
    rows = [{"id": n, "gold": str(n), "completion": f"\\boxed{{{n // 2 * 2}}}", "tokens": n} for n in range(320)]
    hanging = {"90", "210"}
    for n in map(int, hanging):
        rows[n]["completion"] = "\\boxed{\\sum_{a=1}^{2000}\\sum_{b=1}^{2000}\\sum_{c=1}^{2000} a b c}"
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"completions={source}"]
    finish(tmp_path / "whole", options)
    killed_again_and_again(tmp_path / "killed", options, tmp_path / "killed" / "out" / "samples.jsonl")
    whole, killed = (result(tmp_path / name / "out") for name in ("whole", "killed"))
    assert len(whole[0]) == 320
    # What hangs comes to the deadline or to the memory limit, whichever this machine reaches first.
    assert {rows[name].pop("verdict") for rows, _ in (whole, killed) for name in hanging} <= {TIMEOUT, CRASH}
    assert killed[0] == whole[0]
    assert killed[1]["pass_at_1"] == whole[1]["pass_at_1"] == 158 / 320
