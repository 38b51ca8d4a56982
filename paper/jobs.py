"""Commands one after the other in a lane, and lanes beside one another on a share of the processor each."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from ladder_cli.errors import Interrupted

_INTERRUPTED = 130


@dataclass(frozen=True)
class Lane:
    """Where the commands of a lane run.

    Attributes:
        threads: that each of its processes may compute with; None: as many as there are cores.
        quiet: whether what commands print goes to a log alone, as it must with other lanes beside.
        stopped: set where any lane was interrupted; no lane begins another command then.
    """

    threads: int | None = None
    quiet: bool = False
    stopped: Event = field(default_factory=Event)

    def run(self, shown: str, words: Sequence[str], log: Path) -> bool:
        """Run one command; true if it succeeded.

        Args:
            shown: the command as it is told.
            words: what is started.
            log: gets what it prints, if the lane is quiet.

        Raises:
            Interrupted: if the command was, or another lane's.
        """
        if self.stopped.is_set():
            raise Interrupted("the same command continues.")
        print(f"$ {shown}" if self.quiet else f"\n$ {shown}", flush=True)
        environment = dict(os.environ)
        if self.threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(self.threads))
        start = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") if self.quiet else nullcontext() as file:
            if file is not None:
                file.write(f"\n$ {shown}\n")
                file.flush()
            # In a thread: an interrupt reaches the command, which saves its state, and nobody kills it meanwhile.
            status = subprocess.run(words, stdout=file, stderr=file, env=environment).returncode
        if status == _INTERRUPTED:
            self.stopped.set()
            raise Interrupted("the same command continues.")
        if self.quiet:
            how = "done" if status == 0 else f"exit status {status}"
            print(f"  {how} after {time.monotonic() - start:.0f} s: {_short(shown)} (printed to {log})", flush=True)
        return status == 0


Task = Callable[[Lane], list[str]]


def run_lanes(lanes: Sequence[Sequence[Task]]) -> list[str]:
    """Run the tasks of all lanes; what they return, lane by lane. With one core the lanes become one.

    Raises:
        Interrupted: if a command was.
    """
    cores = os.cpu_count() or 1
    lanes = [lane for lane in lanes if lane]
    if cores == 1:
        lanes = [[task for lane in lanes for task in lane]]
    place = Lane(max(1, cores // len(lanes)), quiet=True) if len(lanes) > 1 else Lane()
    pool = ThreadPoolExecutor(max(1, len(lanes)))
    started = [pool.submit(_in_order, lane, place) for lane in lanes]
    try:
        wait(started)
    except KeyboardInterrupt:
        # The commands were told too, if it came from a terminal: each saves its state and ends.
        place.stopped.set()
        print("\ninterrupted: waiting for the commands that run to save their state", file=sys.stderr, flush=True)
        wait(started)
        raise
    finally:
        pool.shutdown(wait=False)
    return [result for one in started for result in one.result()]


def _short(shown: str, width: int = 60) -> str:
    return shown if len(shown) <= width else f"{shown[:width]}..."


def _in_order(lane: Sequence[Task], place: Lane) -> list[str]:
    return [result for task in lane for result in task(place)]
