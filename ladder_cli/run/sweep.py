"""A sweep (`-m`): what became of each of its runs, wherever the launcher ran them. Imports no torch.

Where the launcher runs them in this process they are collected first, so that some can be trained side by side.

Every run writes its outcome into a folder of the sweep, since a launcher may run it in another process or on another
machine; at the end the outcomes become `summary.csv`, one row a run directory. Rows of other sweeps in the same
folder stay.
"""

import contextlib
import csv
import glob
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ladder_cli.config.compose import SweepJob
from ladder_cli.errors import Interrupted, RunFailed, UserError
from ladder_cli.run.claim import claimed
from ladder_cli.run.directory import OUTPUTS, RunDir, read_json, write_json
from ladder_cli.run.files import write_text

SUMMARY_FILE = "summary.csv"
RUNNING, DONE, FAILED, MISTAKE, INTERRUPTED = "running", "done", "failed", "mistake", "interrupted"
_METRICS = (
    *("train_loss", "eval_loss", "eval_reward", "best_step", "trainable_parameters", "backbone_parameters"),
    *("tokens_seen", "tokens_per_second", "wall_seconds"),
)
_NAMED = ("run", "status", "options")
_COLUMNS = (*_NAMED, *_METRICS, "peak_memory_bytes", "error")


Task = Callable[[Any, list[str]], object]  # does the work of a config and the options that made it
Place = Callable[[Any, list[str]], Path]  # the directory that it writes to


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended.

    Attributes:
        number: of the run within the sweep, from 0.
        folder: of the sweep, where `summary.csv` goes.
        run: its directory; the options where the config was too wrong to name one.
        options: what was given on the command line, for this run.
        status: `running` (it died without a word), `done`, `failed`, `mistake` (the user's) or `interrupted`.
    """

    number: int
    folder: str
    run: str
    options: list[str]
    status: str = RUNNING
    error: str | None = None


@dataclass(frozen=True)
class Placed:
    """A run of a sweep that knows its directory, and has not begun.

    Attributes:
        outcome: as far as it is known.
        config: typed.
    """

    outcome: Outcome
    config: Any

    @property
    def path(self) -> Path:
        """Its directory."""
        return Path(self.outcome.run)

    @property
    def overrides(self) -> list[str]:
        """The options that made it."""
        return self.outcome.options


class Sweep:
    """The outcomes of one sweep. Pickled into the launcher's processes, so it holds a path and nothing else."""

    def __init__(self, one_each: bool = False) -> None:
        """`one_each`: every run needs a directory of its own, and one whose directory is another's is refused."""
        self._one_each = one_each
        # Absolute and under outputs/: the processes of every launcher reach it.
        self._records = (OUTPUTS / ".sweeps" / uuid4().hex[:12]).absolute()

    def run(self, job: SweepJob, check: Callable[[], Any], overrides: list[str], task: Task, place: Place) -> None:
        """One run of the sweep, inside a job of Hydra's; what goes wrong in it is recorded and stops no other.

        Args:
            check: gives the typed config.

        Raises:
            Interrupted: which does stop the sweep.
        """
        for placed in self.place(job, check, overrides, place):
            with self.recorded(placed):
                if job.launcher == "joblib":
                    claim_card(job.workers, Path(job.folder))
                self.begin(placed)
                task(placed.config, overrides)

    def place(
        self, job: SweepJob, check: Callable[[], Any], overrides: list[str], place: Place, others: Sequence[Placed] = ()
    ) -> list[Placed]:
        """A run with its directory; none if there is a mistake in its options, which is then recorded.

        Args:
            check: gives the typed config.
            others: that have not begun.
        """
        outcome = Outcome(job.number, job.folder, " ".join(overrides), overrides)
        with self.recorded(Placed(outcome, None), over=False):
            config = check()
            placed = replace(outcome, run=str(place(config, overrides)))
            if self._one_each:
                self._refuse_taken(placed, [other.outcome for other in others])
            return [Placed(placed, config)]
        return []

    def begin(self, placed: Placed) -> None:
        """Say that a run begins."""
        self.record(placed.outcome)
        print(f"\nrun {placed.outcome.number}: {placed.outcome.run}", flush=True)

    @contextlib.contextmanager
    def recorded(self, placed: Placed, over: bool = True) -> Iterator[None]:
        """What comes of a run within: it is done (unless it is not `over` with it), or what went wrong is recorded.

        Raises:
            Interrupted: which stops the sweep.
        """
        try:
            yield
        except Exception as failure:
            self.end(placed, failure)
            if isinstance(failure, Interrupted):
                raise
        else:
            if over:
                self.end(placed, None)

    def end(self, placed: Placed, failure: Exception | None) -> None:
        """Record what became of a run.

        Args:
            failure: what ended it before it was done.
        """
        self.record(replace(placed.outcome, **_ending(failure)))

    def _refuse_taken(self, outcome: Outcome, others: Sequence[Outcome]) -> None:
        for other in (*others, *(Outcome(**read_json(path)) for path in self._records.glob("*.json"))):
            if other.number != outcome.number and other.run == outcome.run:
                raise UserError(
                    f"run {other.number} of this sweep writes to {outcome.run} too: their options differ in nothing "
                    "that changes a result, or name one output_dir; drop one of the two."
                )

    def record(self, outcome: Outcome) -> None:
        """Write the present state of a run, in place of an earlier one."""
        # Another sweep that ends may take `.sweeps` away before this one's folder is in it; then it is made again.
        with contextlib.suppress(FileNotFoundError):
            self._records.mkdir(parents=True, exist_ok=True)
        write_json(self._records / f"{outcome.number}.json", asdict(outcome))

    def close(self) -> list[Outcome]:
        """All outcomes in the order of the runs, after writing `summary.csv`; empty if no sweep was run."""
        outcomes = [Outcome(**read_json(path)) for path in self._records.glob("*.json")]
        outcomes.sort(key=lambda outcome: outcome.number)
        if outcomes:
            write_summary(Path(outcomes[0].folder) / SUMMARY_FILE, outcomes)
        shutil.rmtree(self._records, ignore_errors=True)
        # Of several sweeps the last one takes the folder away.
        with contextlib.suppress(OSError):
            self._records.parent.rmdir()
        return outcomes


def _ending(failure: Exception | None) -> dict[str, Any]:
    """Status and error of a run that is over."""
    if failure is None:
        return {"status": DONE}
    for kind, status in _STATUSES.items():
        if isinstance(failure, kind):
            return {"status": status, "error": str(failure) if status is not INTERRUPTED else None}
    traceback.print_exception(failure)
    return {"status": FAILED, "error": f"{type(failure).__name__}: {' '.join(str(failure).split())}"}


# What ends a run in a known way; anything else is told with its traceback.
_STATUSES = {Interrupted: INTERRUPTED, UserError: MISTAKE, RunFailed: FAILED}


def refuse_shared_output(words: list[str]) -> None:
    """Refuse a sweep whose runs would all write to one `output_dir`, before the first of them starts.

    Args:
        words: of the command line.

    Raises:
        UserError: if `output_dir` is given, and does not depend on what is swept.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    if not {"-m", "--multirun"} & set(words):
        return
    try:
        options = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])
    except OverrideParseException:
        return  # which Hydra complains of, in its own place
    swept = [option.key_or_group for option in options if option.is_sweep_override()]
    for option in options:
        own = option.key_or_group == "output_dir" and "${" not in str(option.input_line)
        others = [name for name in swept if name != "output_dir"]
        if own and others:
            raise UserError(
                f"{option.input_line} would be written by several runs of this sweep over {', '.join(others)}: leave "
                "it out, so that each run gets a directory of its own (hydra.sweep.dir=DIR says where)."
            )


def tell(outcomes: list[Outcome]) -> None:
    """Say how a sweep ended.

    Raises:
        UserError: if runs are missing, all of them by a mistake of the user's.
        RunFailed: if runs are missing for another reason.
    """
    if not outcomes:
        return
    missing = [outcome for outcome in outcomes if outcome.status != DONE]
    summary = Path(outcomes[0].folder) / SUMMARY_FILE
    if not missing:
        print(f"\nall {len(outcomes)} runs of the sweep are done: {summary}")
        return
    for outcome in missing:
        reason = outcome.error or "its process ended without a word"
        print(f"{outcome.run}: {outcome.status}: {reason}", file=sys.stderr)
    message = (
        f"{len(missing)} of {len(outcomes)} runs of the sweep are not done; {summary} lists all, and the same command "
        "runs only what is missing."
    )
    raise UserError(message) if all(outcome.status == MISTAKE for outcome in missing) else RunFailed(message)


def write_summary(path: Path, outcomes: list[Outcome]) -> None:
    """Add the outcomes to a `summary.csv`, or replace their rows; another sweep that writes there meanwhile waits.

    Raises:
        UserError: if the file is another one of that name, or its folder cannot be made.
    """
    written = {
        outcome.run: {
            "run": outcome.run,
            "status": outcome.status,
            "options": " ".join(outcome.options),
            **(_metrics(RunDir(outcome.run)) if outcome.status == DONE else {}),
            "error": outcome.error,
        }
        for outcome in outcomes
    }
    with claimed(path.parent, wait=True):
        rows: dict[str, dict[str, Any]] = {row["run"]: row for row in read_summary(path)} | written
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
        write_text(path, text.getvalue())


def read_summary(path: Path) -> list[dict[str, Any]]:
    """The rows of a `summary.csv`; none if there is no such file.

    Raises:
        UserError: if the file is another one of that name.
    """
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        # An earlier version may have known fewer.
        if not set(_NAMED) <= set(rows.fieldnames or ()) <= set(_COLUMNS):
            raise UserError(f"{path} is not the summary of a sweep: move it away.")
        return list(rows)


def claim_card(workers: int, folder: Path) -> None:
    """Give this process a GPU to itself, where several processes of one machine share a sweep.

    The claim is a lock on a file, which the system lifts when the process ends.

    Raises:
        UserError: if there are fewer cards than workers.
    """
    if os.name != "posix" or _claims:
        return
    import fcntl

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible else [str(n) for n in range(len(glob.glob("/dev/nvidia[0-9]*")))]
    if visible == "" or not cards:
        return
    if len(cards) < workers:
        raise UserError(f"hydra.launcher.n_jobs={workers}, but this machine has {len(cards)} GPU(s): lower it.")
    folder.mkdir(parents=True, exist_ok=True)
    for card in cards:
        lock = (folder / f".gpu-{card}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _claims.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = card
        return
    raise UserError("every GPU of this machine is taken by another run of a sweep: lower hydra.launcher.n_jobs.")


_claims: list[Any] = []


def _metrics(run: RunDir) -> dict[str, Any]:
    if not run.metrics.is_file():
        return {}
    metrics = json.loads(run.metrics.read_text())
    return {name: metrics.get(name) for name in _METRICS} | {
        "peak_memory_bytes": metrics["peak_memory_bytes"]["measured"]
    }
