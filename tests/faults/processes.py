"""Commands in processes that can be killed, without paying for the imports of every start.

A server process imports torch and the rest once and forks; what is killed is a real process that holds real files.
"""

import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOAD = ["ladder_cli.train.run", "ladder_cli.evaluate.run", "bitsandbytes", "datasets", "hydra", "peft"]
_PATIENCE_SECONDS = 300
_NOBODY = 65534


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status (negative: the signal that killed it), what it printed, and when."""

    status: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Limits:
    """What the process is denied."""

    file_bytes: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    clock_offset_seconds: float = 0.0
    console_lines: int | None = None  # the reader of its output goes away after so many lines
    unprivileged: bool = False  # root is not held back by permissions; this process shall be


class Command:
    """`ladder-train` or `ladder-eval` with its arguments, running in a process of its own."""

    def __init__(self, folder: Path, name: str, *arguments: str, limits: Limits | None = None) -> None:
        """`folder`: where it runs and where its output is kept."""
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        self._began = time.monotonic()
        _CONTEXT.set_forkserver_preload(_PRELOAD)
        self.process: ForkServerProcess = _CONTEXT.Process(
            target=_main, args=(str(folder), name, list(arguments), limits or Limits())
        )
        self.process.start()

    def wait(self, seconds: float = _PATIENCE_SECONDS) -> Outcome | None:
        """Its outcome, or None if it is still running after so many seconds."""
        self.process.join(seconds)
        status = self.process.exitcode
        if status is None:
            return None
        took = time.monotonic() - self._began
        return Outcome(status, self._out.read_text(), self._err.read_text(), took)

    def finish(self) -> Outcome:
        """Its outcome, however long it takes; a command that hangs is killed."""
        outcome = self.wait()
        return outcome if outcome is not None else self.kill()

    def kill(self) -> Outcome:
        """SIGKILL: it is given no time to tidy up."""
        self.process.kill()
        outcome = self.wait()
        assert outcome is not None
        return outcome

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def descendants(self) -> list[int]:
        """Process ids of what it has started, and what those have."""
        assert self.process.pid is not None
        found, waiting = [], [self.process.pid]
        while waiting:
            with contextlib.suppress(OSError):
                parent = waiting.pop()
                children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
                waiting += map(int, children)
                found += map(int, children)
        return found

    def kill_when(self, ready: Callable[[], bool]) -> Outcome:
        """SIGKILL at the moment a condition holds, or its outcome if it ended before."""
        while self.process.exitcode is None and not ready():
            time.sleep(0.0005)
        return self.kill()


def run(folder: Path, name: str, *arguments: str, limits: Limits | None = None) -> Outcome:
    """A command from its beginning to its end."""
    return Command(folder, name, *arguments, limits=limits).finish()


def _main(folder: str, name: str, arguments: list[str], limits: Limits) -> None:
    os.chdir(folder)
    sys.argv = [f"ladder-{name}", *arguments]
    for stream, file in ((sys.stdout, "stdout.txt"), (sys.stderr, "stderr.txt")):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream.fileno())
    if limits.console_lines is not None:
        _lose_reader(limits.console_lines)
    os.environ.update(dict(limits.environment))
    if limits.clock_offset_seconds:
        _move_clock(limits.clock_offset_seconds)
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    if limits.unprivileged and os.geteuid() == 0:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    import torch

    torch.set_num_threads(1)
    from ladder_cli.cli.evaluate import main as evaluate
    from ladder_cli.cli.train import main as train

    with contextlib.suppress(BrokenPipeError):
        (train if name == "train" else evaluate)()


def _lose_reader(lines: int) -> None:
    """Standard output and error into a pipe whose reader ends after some lines."""
    reading, writing = os.pipe()
    subprocess.Popen(["head", "-n", str(lines)], stdin=reading, stdout=subprocess.DEVNULL)
    os.close(reading)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(writing, stream.fileno())
    os.close(writing)


def _move_clock(seconds: float) -> None:
    """Python's wall clock, for everything in this process that reads it through `time`; the system's stays."""
    true_time, true_nanoseconds = time.time, time.time_ns
    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_nanoseconds() + int(seconds * 1e9)
