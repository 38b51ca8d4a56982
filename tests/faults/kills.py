"""SIGKILL at random moments of training and evaluation, and at the worst one: while a checkpoint is being written."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.faults.processes import Command, Outcome
from tests.faults.table import Row
from tests.faults.twins import DECODED, TRAINED, Difference, compare_runs, compare_samples, train_arguments, train_twin

# A run that is killed over and over is let go in the end.
MOST_KILLS_OF_A_RUN = 6


def training(folder: Path, kills: int, seed: int = 0) -> Iterator[Row]:
    """Runs of every method, each killed at random moments and started again until it ends."""
    rng = random.Random(seed)
    yield from _killed_runs(folder / "training", kills, lambda command, seconds: _at_random(command, seconds, rng))


def checkpoints(folder: Path, kills: int, seed: int = 1) -> Iterator[Row]:
    """The same, each time while a checkpoint is being written."""
    rng = random.Random(seed)

    def kill(command: Command, run: Path) -> int:
        # The folder exists for some milliseconds, a different number of files in it every time.
        files = rng.randrange(7)
        staged = run / "checkpoints" / ".writing"
        return command.kill_when(lambda: len(list(staged.glob("*/*"))) >= files and staged.exists()).status

    tried, found = 0, Difference()
    twin = folder / "checkpoint-twin"
    train_twin("ladder", twin)
    number = 0
    while tried < kills:
        ours = folder / f"checkpoint-{number}"
        number += 1
        for _ in range(min(MOST_KILLS_OF_A_RUN, kills - tried)):
            if kill(Command(ours, "train", *train_arguments("ladder", ours)), ours / "run") >= 0:
                break
            tried += 1
        found += _ended(ours, "ladder", twin)
    yield Row("SIGKILL while a checkpoint is written", tried, found.lost, found.damaged)


def evaluation(folder: Path, kills: int, seed: int = 2) -> Iterator[Row]:
    """Evaluations of the embedded backbone, killed at random moments."""
    rng = random.Random(seed)
    twin = folder / "evaluation-twin"
    arguments = ("model=tiny", *DECODED)
    whole = Command(twin, "evaluate", *arguments, f"output_dir={twin / 'eval'}").finish()
    assert whole.status == 0, whole.err
    seconds = whole.seconds
    tried, found, number = 0, Difference(), 0
    while tried < kills:
        ours = folder / f"evaluation-{number}"
        number += 1
        again = (*arguments, f"output_dir={ours / 'eval'}")
        for attempt in range(min(MOST_KILLS_OF_A_RUN, kills - tried)):
            outcome = _at_random(Command(ours, "evaluate", *again), seconds, rng)
            if outcome.status >= 0:
                if attempt == 0:
                    seconds = min(seconds, outcome.seconds)
                break
            tried += 1
        last = Command(ours, "evaluate", *again).finish()
        found += Difference(damaged=int(last.status != 0))
        found += compare_samples(ours / "eval" / "arithmetic", twin / "eval" / "arithmetic")
    yield Row("SIGKILL at random moments of evaluation", tried, found.lost, found.damaged)


def _killed_runs(folder: Path, kills: int, kill) -> Iterator[Row]:
    kinds = list(TRAINED)
    for position, kind in enumerate(kinds):
        share = kills // len(kinds) + (position < kills % len(kinds))
        twin = folder / f"{kind}-twin"
        seconds = train_twin(kind, twin).seconds
        tried, found, number = 0, Difference(), 0
        while tried < share:
            ours = folder / f"{kind}-{number}"
            number += 1
            for attempt in range(min(MOST_KILLS_OF_A_RUN, share - tried)):
                outcome = kill(Command(ours, "train", *train_arguments(kind, ours)), seconds)
                if outcome.status >= 0:
                    if attempt == 0:
                        # The twin may have been slow, on a machine that was busy: most runs would end unkilled.
                        seconds = min(seconds, outcome.seconds)
                    break
                tried += 1
            found += _ended(ours, kind, twin)
        yield Row(f"SIGKILL at random moments of training, {kind}", tried, found.lost, found.damaged)


def _at_random(command: Command, seconds: float, rng: random.Random) -> Outcome:
    """Let it run for a random share of what an uninterrupted run takes, then kill it; how it ended."""
    ended = command.wait(rng.uniform(0.1, 1.0) * seconds)
    return ended or command.kill()


def _ended(ours: Path, kind: str, twin: Path) -> Difference:
    """Start it once more, to its end, and compare."""
    last = Command(ours, "train", *train_arguments(kind, ours)).finish()
    status = json.loads((ours / "run" / "run.json").read_text())["status"]
    found = compare_runs(ours / "run", twin / "run") + Difference(damaged=int(last.status != 0 or status != "done"))
    if found == Difference():
        shutil.rmtree(ours)
    return found
