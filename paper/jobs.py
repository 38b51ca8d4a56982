"""Runs jobs in parallel, each on a share of the processor; within a job, commands run one after the other."""

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
class Slot:
    """The share of the machine on which the commands of one job run.

    Attributes:
        threads: how many each process may compute with; None: as many as there are cores.
        quiet: whether the output of commands goes to a log alone, as it must while other jobs run.
        stopped: set when any job was interrupted; then no job begins another command.
    """

    threads: int | None = None
    quiet: bool = False
    stopped: Event = field(default_factory=Event)

    def run(self, shown: str, words: Sequence[str], log: Path) -> bool:
        """Run one command and return whether it succeeded.

        Args:
            shown: the command as it is printed.
            words: program and arguments.
            log: the file for its output, if the slot is quiet.

        Raises:
            Interrupted: if this command or one of another job was.
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
            # In a thread: an interrupt reaches the command, which saves its state, and nothing else kills it.
            status = subprocess.run(words, stdout=file, stderr=file, env=environment).returncode
        if status == _INTERRUPTED:
            self.stopped.set()
            raise Interrupted("the same command continues.")
        if self.quiet:
            how = "done" if status == 0 else f"exit status {status}"
            print(f"  {how} after {time.monotonic() - start:.0f} s: {_short(shown)} (printed to {log})", flush=True)
        return status == 0


Task = Callable[[Slot], list[str]]


def run_jobs(jobs: Sequence[Sequence[Task]]) -> list[str]:
    """Run all jobs, each a sequence of tasks, and return what their tasks return, job by job.

    With one core the jobs run one after the other.

    Raises:
        Interrupted: if a command was.
    """
    cores = os.cpu_count() or 1
    jobs = [job for job in jobs if job]
    if cores == 1:
        jobs = [[task for job in jobs for task in job]]
    slot = Slot(max(1, cores // len(jobs)), quiet=True) if len(jobs) > 1 else Slot()
    pool = ThreadPoolExecutor(max(1, len(jobs)))
    started = [pool.submit(_in_order, job, slot) for job in jobs]
    try:
        wait(started)
    except KeyboardInterrupt:
        # An interrupt from the terminal reaches the commands too: each saves its state and ends.
        slot.stopped.set()
        print("\ninterrupted: waiting for the commands that run to save their state", file=sys.stderr, flush=True)
        wait(started)
        raise
    finally:
        pool.shutdown(wait=False)
    return [result for one in started for result in one.result()]


def _short(shown: str, width: int = 60) -> str:
    return shown if len(shown) <= width else f"{shown[:width]}..."


def _in_order(job: Sequence[Task], slot: Slot) -> list[str]:
    return [result for task in job for result in task(slot)]
