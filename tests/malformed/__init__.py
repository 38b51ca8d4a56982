"""Input that no one should have written: more than two hundred pieces, used by the tests and by the fault suite."""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ladder_cli.cli import main as cli
from ladder_cli.cli.evaluate import evaluate, results_path
from ladder_cli.cli.train import command as train
from ladder_cli.cli.train import run_path, train_several
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.schema import TrainConfig

TINY_RUN = (
    *("hardware=cpu", "data.train_samples=8", "data.validation_samples=4", "data.cache=false"),
    *("train.max_steps=1", "train.evaluations=1", "train.global_batch_size=4", "train.micro_batch_size=4"),
)


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        command: `train` or `evaluate`.
        arguments: makes the input inside an empty folder and gives the command's arguments. It may use `runs`, a folder
            with the finished runs `ladder` and `qlora`, which it must not change.
    """

    name: str
    command: str
    arguments: Callable[[Path, Path], list[str]]


def run_command(command: str, arguments: list[str]) -> tuple[int, str, str]:
    """A command in this process, through the error boundary that the console script has.

    Returns:
        Exit status, stdout and stderr. An exception that the boundary lets through is raised.
    """
    trains = command == "train"
    wiring = (TrainConfig, train, run_path) if trains else (EvaluateConfig, evaluate, results_path)
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, [f"ladder-{command}", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.run(command, *wiring, "", one_each=trains, several=train_several if trains else None)
    finally:
        sys.argv = before
    return status, out.getvalue(), err.getvalue()


def make_runs(folder: Path) -> Path:
    """Two finished runs for cases to copy and spoil."""
    for method in ("ladder", "qlora"):
        status, _, errors = run_command("train", [f"method={method}", f"output_dir={folder / method}", *TINY_RUN])
        assert status == 0, errors
    return folder


def complaint(case: Case, folder: Path, runs: Path) -> str | None:
    """What is wrong with how a command took a malformed input: None if it was one line and exit status 2."""
    arguments = case.arguments(folder, runs)
    try:
        status, _, errors = run_command(case.command, arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    lines = errors.splitlines()
    if status != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
        return f"exit status {status}, stderr {errors!r}"
    return None
