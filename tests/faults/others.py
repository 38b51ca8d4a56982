"""Signals, other processes, dead workers, clocks, a hub that is not there, and input that is not what it should be."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.interrupted import KIND, Interrupted, contents
from tests.faults.processes import Command, Limits
from tests.faults.table import Row
from tests.faults.twins import DECODED, Difference, compare_runs, compare_samples, train_arguments
from tests.malformed import complaint, folders, make_runs, options, rows, tokenizers

_AT_ONCE_SECONDS = 20  # the busiest of machines included; retrying takes a minute
_TEN_YEARS = 10 * 365 * 86_400.0
_LATEST_LINE = 9  # of metrics.jsonl, which has 12; the run has steps to go then


def signals(half: Interrupted, folder: Path, seed: int = 5) -> Iterator[Row]:
    """Ctrl-C, SIGTERM, SIGHUP of a closed terminal, SIGUSR1 of Slurm, at a random step: saved, 130, continued."""
    rng = random.Random(seed)
    found, tried = Difference(), 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1):
        ours = folder / f"signal-{tried}"
        command = Command(ours, "train", *train_arguments(KIND, ours))
        # At a step, not at a second: on a fast machine the run would be over.
        lines = rng.randrange(1, _LATEST_LINE)
        while _lines(ours / "run" / "metrics.jsonl") < lines and command.process.exitcode is None:
            time.sleep(0.01)
        command.signal(number)
        outcome = command.finish()
        tried += 1
        found += Difference(damaged=int(outcome.status != 130)) + half.mended(ours)
    yield Row("Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 while training", tried, found.lost, found.damaged)


def unwatched(half: Interrupted, folder: Path) -> Iterator[Row]:
    """The reader of a pipe goes away after some lines of output: the run goes on, and ends as its twin."""
    found, tried = Difference(), 0
    for lines in (1, 30, 45):
        ours = folder / f"training-{lines}"
        limits = Limits(console_lines=lines)
        outcome = Command(ours, "train", *train_arguments(KIND, ours), limits=limits).finish()
        found += compare_runs(ours / "run", half.twin / "run") + Difference(damaged=int(outcome.status != 0))
        tried += 1
    yield Row("reader of the output gone while training", tried, found.lost, found.damaged)

    twin, ours = folder / "eval-twin", folder / "eval"
    arguments = ("model=tiny", *DECODED)
    Command(twin, "evaluate", *arguments, f"output_dir={twin / 'eval'}").finish()
    outcome = Command(
        ours, "evaluate", *arguments, f"output_dir={ours / 'eval'}", limits=Limits(console_lines=1)
    ).finish()
    found = compare_samples(ours / "eval" / "arithmetic", twin / "eval" / "arithmetic")
    yield Row("reader of the output gone while evaluating", 1, found.lost, found.damaged + (outcome.status != 0))


def two_at_once(half: Interrupted, folder: Path, tries: int = 3) -> Iterator[Row]:
    """Two processes start in one run directory: one trains, the other says so; a left lock file keeps nobody out."""
    found = Difference()
    for number in range(tries):
        ours = folder / f"both-{number}"
        (ours / "run").mkdir(parents=True)
        (ours / "run" / ".lock").write_text("process 1 on a machine that is no more\n")
        arguments = train_arguments(KIND, ours)
        pair = [Command(ours / str(side), "train", *arguments) for side in range(2)]
        ends = sorted((command.finish() for command in pair), key=lambda end: end.status)
        refused = "is being written by process" in ends[1].err and len(ends[1].err.splitlines()) == 1
        found += Difference(damaged=int([end.status for end in ends] != [0, 2] or not refused))
        found += compare_runs(ours / "run", half.twin / "run")
    yield Row("two processes in one run directory", tries, found.lost, found.damaged)

    twin, ours = folder / "eval-twin", folder / "eval-both"
    arguments = ("model=tiny", *DECODED)
    Command(twin, "evaluate", *arguments, f"output_dir={twin / 'eval'}").finish()
    pair = [Command(ours / str(side), "evaluate", *arguments, f"output_dir={ours / 'eval'}") for side in range(2)]
    statuses = sorted(command.finish().status for command in pair)
    found = compare_samples(ours / "eval" / "arithmetic", twin / "eval" / "arithmetic")
    yield Row("two evaluations in one folder", 1, found.lost, found.damaged + (statuses != [0, 2]))


def dead_workers(folder: Path, seed: int = 6) -> Iterator[Row]:
    """Grading workers killed at random: every completion has the verdict that it would have had."""
    rng = random.Random(seed)
    source = folder / "answers.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    texts = [f"so it is \\boxed{{{n}^2 + \\sqrt{{{n}}}}}" if n % 2 else f"\\boxed{{{n}}}" for n in range(400)]
    source.write_text(
        "".join(json.dumps({"id": n, "gold": str(n), "completion": t}) + "\n" for n, t in enumerate(texts))
    )
    twin, ours = folder / "graded-twin", folder / "graded"
    Command(twin, "evaluate", f"completions={source}", f"output_dir={twin / 'out'}").finish()
    command = Command(ours, "evaluate", f"completions={source}", f"output_dir={ours / 'out'}")
    killed = 0
    while command.process.exitcode is None and killed < 5:
        if (ours / "out" / "samples.jsonl").exists():
            for worker in rng.sample(workers := _graders(command), k=min(1, len(workers))):
                with contextlib.suppress(OSError):
                    os.kill(worker, signal.SIGKILL)
                    killed += 1
        time.sleep(rng.uniform(0.05, 0.3))
    status = command.finish().status
    theirs = {row["id"]: row for row in map(json.loads, (twin / "out" / "samples.jsonl").read_text().splitlines())}
    mine = [json.loads(line) for line in (ours / "out" / "samples.jsonl").read_text().splitlines()]
    by_id = {row["id"]: row for row in mine}
    lost = sum(name not in by_id for name in theirs) + len(mine) - len(by_id)
    damaged = sum(by_id.get(name, row) != row for name, row in theirs.items()) + int(status != 0)
    yield Row("grading worker killed", killed, lost, damaged)


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.is_file() else 0


def _graders(command: Command) -> list[int]:
    """Processes of the command that have started none themselves, but for Python's own helper."""
    found = command.descendants()
    leaves = []
    for process in found:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/cmdline").read_bytes()
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
            if b"resource_tracker" not in words and not children:
                leaves.append(process)
    return leaves


def clocks(half: Interrupted, seed: int = 7) -> Iterator[Row]:
    """Files that come from the future or the past, and a clock that has moved by ten years, either way."""
    rng = random.Random(seed)
    found, tried = Difference(), 0
    for offset in (_TEN_YEARS, -_TEN_YEARS, 0.0):
        ours = half.copy()
        for path in (ours / "run").rglob("*"):
            when = time.time() + rng.uniform(-1, 1) * _TEN_YEARS
            os.utime(path, (when, when))
        outcome = half.again(ours, Limits(clock_offset_seconds=offset))
        tried += 1
        found += compare_runs(ours / "run", half.twin / "run") + Difference(damaged=int(outcome.status != 0))
    how = "times of all files, and Python's clock in the process; the system's was left alone"
    yield Row("clock moved between kill and restart", tried, found.lost, found.damaged, how)


def missing_hub(half: Interrupted, folder: Path) -> Iterator[Row]:
    """No hub to ask: one line, at once, and a run that stands there is as it was."""
    nowhere = (("HF_HUB_OFFLINE", "0"), ("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", str(folder / "empty")))
    found, tried = Difference(), 0
    ours = half.copy()
    before = contents(ours / "run")
    for arguments in (("model=qwen2.5-0.5b", "data=arithmetic"), ("data=s1k",)):
        for command in ("train", "evaluate"):
            words = arguments
            if command == "evaluate":
                words = ("benchmarks=[math500]",) if arguments == ("data=s1k",) else arguments[:1]
            outcome = Command(
                ours, command, *words, f"output_dir={ours / 'new'}", limits=Limits(environment=nowhere)
            ).finish()
            told = outcome.status == 2 and len(outcome.err.splitlines()) == 1 and outcome.seconds < _AT_ONCE_SECONDS
            found += Difference(damaged=int(not told))
            tried += 1
    found += Difference(damaged=int(contents(ours / "run") != before)) + half.mended(ours)
    yield Row("hub out of reach", tried, found.lost, found.damaged, "an address where nobody listens, an empty cache")


def malformed(folder: Path) -> Iterator[Row]:
    """Every malformed input that the tests know."""
    runs = make_runs(folder / "whole")
    whole = contents(runs)
    cases = [*options.CASES, *rows.CASES, *folders.CASES, *tokenizers.CASES]
    wrong, slowest = 0, 0.0
    for number, case in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        began = time.monotonic()
        reason = complaint(case, place, runs)
        slowest = max(slowest, time.monotonic() - began)
        if reason is not None:
            wrong += 1
            print(f"{case.name}: {reason}")
    lost = sum(name not in contents(runs) for name in whole)
    note = f"one line and exit status 2 each; the slowest took {slowest:.1f} s"
    yield Row("malformed input", len(cases), lost, wrong + int(contents(runs) != whole), note)
