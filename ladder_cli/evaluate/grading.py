"""Grades answers in worker processes that can be killed.

Each verification runs in a worker with a memory limit. The parent keeps the deadline, because a timeout by SIGALRM
fails outside the main thread. A worker that misses its deadline is replaced, and only its current answer gets the
verdict `timeout`. The answer of a worker that dies is graded again.
"""

import contextlib
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from ladder_cli.data.gold import AS_EXPRESSION, GoldRule
from ladder_cli.errors import RunFailed
from ladder_cli.evaluate.answers.verdict import CRASH, LONGEST_GRADED, RELATIVE_TOLERANCE, TIMEOUT, Judged, judge
from ladder_cli.evaluate.second_opinion import PACKAGES, math_verify_says

try:
    import resource
except ImportError:  # Windows: there the deadline alone is kept, by the parent
    resource = None  # type: ignore[assignment]

DEFAULT_WORKERS = 2
DEFAULT_SECONDS = 5.0
MEMORY_LIMIT_BYTES = 2 * 2**30
# Raise it when the modules that `verdict.py` names judge anything differently.
RULES_VERSION = 3
_START_SECONDS = 120.0
_STARTS = 5  # times that a worker may die before its first answer
# So many workers may die at one answer before its verdict is a crash: by SIGKILL, which another process must have sent,
# and in any other way, which the answer may have caused.
_KILLS, _DEATHS = 10, 2


@dataclass(frozen=True)
class Task:
    """One completion to grade against one gold answer.

    Attributes:
        key: the caller's name for it.
        truncated: the completion was cut off at the token limit.
        rule: how the gold is read.
    """

    key: Any
    gold: str
    completion: str
    truncated: bool = False
    rule: GoldRule = AS_EXPRESSION


@dataclass(frozen=True)
class Grade:
    """The verdict on one completion.

    Attributes:
        answer: the string that was compared, as it is in the completion.
        reading: how it was found, what was left out and why, and how it was compared.
        math_verify: Math-Verify's own verdict on the completion; None if it was not asked.
    """

    key: Any
    verdict: str
    answer: str | None = None
    reading: dict[str, Any] | None = None
    math_verify: str | None = None


def grader_identity(seconds: float) -> dict[str, Any]:
    """Return what identifies the grader: verdicts of different graders are never mixed."""
    return {
        **{package.replace("-", "_"): version(package) for package in ("mpmath", *PACKAGES)},
        "rules": RULES_VERSION,
        "longest_graded": LONGEST_GRADED,
        "relative_tolerance": RELATIVE_TOLERANCE,
        "seconds": seconds,
    }


class Grader:
    """A pool of grading workers; use it as a context manager."""

    def __init__(
        self, workers: int = DEFAULT_WORKERS, seconds: float = DEFAULT_SECONDS, second_opinion: bool = False
    ) -> None:
        """`seconds`: deadline of one verification; `second_opinion`: ask Math-Verify too, within the deadline."""
        self._count, self._seconds, self._second_opinion = workers, seconds, second_opinion
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def grade(self, tasks: Iterable[Task]) -> Iterator[Grade]:
        """Yield grades in the order in which they are ready."""
        waiting = iter(tasks)
        running: dict[Connection, tuple[_Worker, Task]] = {}
        idle = list(self._workers)
        again: list[Task] = []
        deaths: Counter[Any] = Counter()
        exhausted = False
        while True:
            while (again or not exhausted) and len(running) < self._count:
                task = again.pop() if again else next(waiting, None)
                if task is None:
                    exhausted = True
                    break
                worker = idle.pop() if idle else self._start()
                worker.submit(task, self._seconds, self._second_opinion)
                running[worker.connection] = (worker, task)
            if not running:
                return
            patience = min(worker.deadline for worker, _ in running.values()) - time.monotonic()
            for connection in wait(list(running), timeout=max(0.0, patience)):
                worker, task = running[connection]  # type: ignore[index]
                result = worker.result()
                if isinstance(result, Judged) and self._second_opinion:
                    worker.judged = result  # the second opinion follows
                    continue
                del running[connection]  # type: ignore[arg-type]
                if result is None:
                    deaths[task.key] += 1
                    if deaths[task.key] < (_KILLS if worker.was_killed() else _DEATHS):
                        again.append(task)
                    elif worker.judged is not None:
                        # It was Math-Verify that the worker died of.
                        yield _grade(task, worker.judged, CRASH)
                    else:
                        yield Grade(task.key, CRASH)
                    self._discard(worker)
                else:
                    idle.append(worker)
                    if isinstance(result, Judged):
                        yield _grade(task, result, None)
                    else:
                        assert worker.judged is not None
                        yield _grade(task, worker.judged, result)
            for connection, (worker, task) in list(running.items()):
                if time.monotonic() >= worker.deadline:
                    del running[connection]
                    self._discard(worker)
                    judged = worker.judged
                    yield Grade(task.key, TIMEOUT) if judged is None else _grade(task, judged, TIMEOUT)

    def _start(self) -> "_Worker":
        for _ in range(_STARTS):
            with contextlib.suppress(EOFError):
                worker = _Worker()
                self._workers.append(worker)
                return worker
        raise RunFailed(
            f"a grading worker died {_STARTS} times while it started: is something killing processes, for want of "
            "memory perhaps? What was graded is kept; the same command continues."
        )

    def _discard(self, worker: "_Worker") -> None:
        worker.kill()
        self._workers.remove(worker)


def _grade(task: Task, judged: Judged, math_verify: str | None) -> Grade:
    return Grade(task.key, judged.verdict, judged.answer, judged.reading, math_verify)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not import the caller's script again, which would run whatever is not under a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    """One spawned process and the pipe to it.

    Attributes:
        judged: the verdict on the current task, while its second opinion is still missing.
    """

    judged: Judged | None = None

    def __init__(self) -> None:
        # A server that has imported the grader, and has no thread of this process, forks a worker in milliseconds.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["math_verify", __name__])
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _without_main():
            self._process.start()
        theirs.close()
        # The first worker waits for the server's imports. They take seconds, which must not count for an answer.
        if not self.connection.poll(_START_SECONDS):
            self.kill()
            raise RuntimeError("a grading worker did not start")
        try:
            self.connection.recv()
        except EOFError:
            self.kill()
            raise
        self.deadline = 0.0

    def submit(self, task: Task, seconds: float, second_opinion: bool) -> None:
        self.deadline = time.monotonic() + seconds
        self.judged = None
        # The worker may have died meanwhile; result() returns None then.
        with contextlib.suppress(OSError):
            self.connection.send((task.gold, task.completion, task.rule, task.truncated, seconds, second_opinion))

    def result(self) -> Judged | str | None:
        """Return the verdict, then Math-Verify's if it was asked for; None if the process died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def was_killed(self) -> bool:
        """Return whether the process, which has died, was ended by SIGKILL."""
        self._process.join()
        return self._process.exitcode == -getattr(signal, "SIGKILL", 9)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """Run a worker: import, report that it is ready, answer until the pipe closes."""
    import logging

    # The parent handles Ctrl-C and kills its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401  (the slow import belongs before the memory limit and the first deadline)

    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    connection.send("ready")
    while True:
        try:
            gold, completion, rule, truncated, seconds, second_opinion = connection.recv()
        except (EOFError, OSError):
            return
        _end_by_itself(seconds)
        try:
            result = judge(gold, completion, rule, truncated)
        except MemoryError:
            # The allocator may be in any state: end, and let the parent start a fresh process.
            return
        except Exception:
            # An answer on which the reader fails must not affect the next one.
            result = Judged(CRASH, None)
        with contextlib.suppress(OSError):
            connection.send(result)
        if not second_opinion:
            continue
        try:
            opinion = math_verify_says(gold, completion)
        except MemoryError:
            return
        except Exception:
            opinion = CRASH
        with contextlib.suppress(OSError):
            connection.send(opinion)


def _end_by_itself(seconds: float) -> None:
    """Let the kernel end this process soon after its deadline, in case the parent was killed."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
