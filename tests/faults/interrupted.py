"""A run that was killed after a checkpoint, to be copied for every fault that meets a restart."""

import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from tests.faults.processes import Command, Limits, Outcome
from tests.faults.twins import Difference, compare_runs, train_arguments, train_twin

KIND = "ladder"


class Interrupted:
    """Half of a run, and its whole twin."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies = 0

    @cached_property
    def twin(self) -> Path:
        """The folder of an uninterrupted run."""
        train_twin(KIND, self._folder / "twin")
        return self._folder / "twin"

    @cached_property
    def _half(self) -> Path:
        folder = self._folder / "half"
        command = Command(folder, "train", *train_arguments(KIND, folder))
        command.kill_when((folder / "run" / "checkpoints" / "checkpoint-12" / "SHA256SUMS").exists)
        return folder

    def copy(self) -> Path:
        """A folder with a copy of the killed run, which has checkpoints 8 and 12 of 20 steps."""
        self._copies += 1
        return Path(shutil.copytree(self._half, self._folder / f"copy-{self._copies}", copy_function=shutil.copy2))

    def again(self, folder: Path, limits: Limits | None = None) -> Outcome:
        """Start a copied run again."""
        return Command(folder, "train", *train_arguments(KIND, folder), limits=limits).finish()

    def mended(self, folder: Path) -> Difference:
        """Start it again and compare what it ends with to the twin."""
        outcome = self.again(folder)
        return compare_runs(folder / "run", self.twin / "run") + Difference(damaged=int(outcome.status != 0))

    def refused(self, folder: Path, spoil: Callable[[Path], None], limits: Limits | None = None) -> Difference:
        """Spoil a copy: it must be refused in one line, and everything in it be left as it is."""
        spoil(folder)
        before = contents(folder / "run")
        outcome = self.again(folder, limits)
        after = contents(folder / "run")
        told = outcome.status == 2 and len(outcome.err.splitlines()) == 1
        lost = sum(name not in after for name in before)
        return Difference(lost, int(not told) + sum(after.get(name, old) != old for name, old in before.items()))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name, locks left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
