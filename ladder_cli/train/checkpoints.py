"""The folder of checkpoints: each is written whole or not at all, checked before it is used, and kept by its step.

    checkpoint-40/     adapter, optimizer.pt, scheduler.pt, rng_state.pth, trainer_state.json, progress.json, SHA256SUMS
    .writing/          what a save that was killed left behind; deleted at the next start

The order of checkpoints is that of their steps: clocks and modification times are asked nowhere.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ladder_cli.run.files import damage, move_into_place, remove_folder, seal, write_text

_PREFIX = "checkpoint-"
_STATE, _PROGRESS = "trainer_state.json", "progress.json"
# The newest, the best, and no more: a checkpoint that was damaged later costs the steps since the one before it.
KEPT = 2


@dataclass(frozen=True)
class Progress:
    """What Transformers' own checkpoint leaves out.

    Attributes:
        finished: nothing is left to train: the last step was taken, or early stopping ended the run.
        total_loss: sum of the losses of all steps that were logged.
        pending_loss: sum of those since the last log line.
        last_logged: step of the last log line.
    """

    finished: bool
    total_loss: float
    pending_loss: float
    last_logged: int


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def staging(self) -> Path:
        """Where a checkpoint is written before it has its name."""
        return self.folder / ".writing"

    def at(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.folder / f"{_PREFIX}{step}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        numbers = (path.name.removeprefix(_PREFIX) for path in self.folder.glob(f"{_PREFIX}*") if path.is_dir())
        return sorted(int(number) for number in numbers if number.isdecimal())

    def clean(self) -> None:
        """Delete what killed saves and deletions left behind."""
        for leftover in (self.staging, *self.folder.glob(".discarded-*")):
            remove_folder(leftover)

    def commit(self, step: int, progress: Progress) -> None:
        """Give the staged checkpoint of `step` its name."""
        staged = self.staging / f"{_PREFIX}{step}"
        write_text(staged / _PROGRESS, json.dumps(asdict(progress)) + "\n")
        seal(staged)
        move_into_place(staged, self.at(step))
        remove_folder(self.staging)

    def rotate(self, best: int | None) -> None:
        """Delete all but the newest and the best."""
        steps = self.steps()
        kept = {steps[-1], best} if best in steps else set(steps[-1:])
        for step in reversed(steps):
            if len(kept) < KEPT:
                kept.add(step)
        for step in steps:
            if step not in kept:
                remove_folder(self.at(step))

    def newest_whole(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that is undamaged, and whose best checkpoint is too.

        Returns:
            It, or None; and a line for each newer one that had to be passed over.
        """
        complaints: list[str] = []
        for step in reversed(self.steps()):
            wrong = self._damage(step)
            if wrong is None:
                return self.at(step), complaints
            complaints.append(f"{self.at(step)} is damaged ({wrong})")
        return None, complaints

    def best_step(self, checkpoint: Path) -> int | None:
        """The step with the lowest validation loss, as a checkpoint remembers it."""
        return json.loads((checkpoint / _STATE).read_text(encoding="utf-8")).get("best_global_step")

    def progress(self, checkpoint: Path) -> Progress:
        """What `commit` was given."""
        return Progress(**json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8")))

    def _damage(self, step: int) -> str | None:
        wrong = damage(self.at(step))
        if wrong is not None:
            return wrong
        best = self.best_step(self.at(step))
        if best is not None and best != step and (wrong := damage(self.at(best))):
            return f"its best checkpoint, {self.at(best).name}: {wrong}"
        return None
