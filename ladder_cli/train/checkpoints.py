"""The folder of checkpoints: each is written whole or not at all, checked before it is used, and found by its step.

    checkpoint-40/     adapter, optimizer.safetensors, progress.json, history.jsonl, random-<process>.json, SHA256SUMS
    .writing/          what a save that was killed left behind; deleted at the next start

Nothing in it is a pickle. The order of checkpoints is that of their steps: clocks and modification times are asked
nowhere.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ladder_cli.errors import UserError
from ladder_cli.run.files import damage, move_into_place, remove_folder, seal, write_text

_PREFIX = "checkpoint-"
_PROGRESS, _HISTORY = "progress.json", "history.jsonl"
# The newest, the best, and no more: a checkpoint that was damaged later costs the steps since the one before it.
KEPT = 2


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: optimizer steps that were taken.
        finished: nothing is left to train: the last step was taken, or early stopping ended the run.
        tokens_seen: tokens of the rows that were passed, without padding.
        best_step: the step with the lowest validation loss; None before the first.
        best_loss: that loss.
        misses: validation losses since then that were no better.
        total_loss: sum of the losses of all steps that were logged.
        pending_losses: of each process, its share of the sum of those since the last log line.
        last_logged: step of the last log line.
        pending_measures: as `pending_losses`, for each of the objective's measures.
    """

    step: int
    finished: bool
    tokens_seen: int
    best_step: int | None
    best_loss: float | None
    misses: int
    total_loss: float
    pending_losses: list[float]
    last_logged: int
    pending_measures: list[list[float]] = field(default_factory=list)


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

    def staged(self, step: int) -> Path:
        """Where the checkpoint of a step is written; the folder is there."""
        folder = self.staging / f"{_PREFIX}{step}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, progress: Progress, history: list[dict[str, Any]]) -> None:
        """Give a staged checkpoint its name.

        Args:
            history: the log lines up to its step.
        """
        staged = self.staged(progress.step)
        write_text(staged / _PROGRESS, json.dumps(asdict(progress)) + "\n")
        write_text(staged / _HISTORY, "".join(json.dumps(line) + "\n" for line in history))
        seal(staged)
        move_into_place(staged, self.at(progress.step))
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

    def progress(self, step: int) -> Progress:
        """What `commit` was given at a step.

        Raises:
            UserError: if an earlier version of this package wrote it.
        """
        values = json.loads((self.at(step) / _PROGRESS).read_text(encoding="utf-8"))
        values.setdefault("pending_measures", [])  # as before there were any
        if values.keys() != {item.name for item in fields(Progress)}:
            raise UserError(
                f"{self.at(step)} was written by another version of ladder-cli, which cannot be continued: give "
                "resume=false to set the run aside and start over."
            )
        return Progress(**values)

    def history(self, step: int) -> list[dict[str, Any]]:
        """The log lines up to a step."""
        return [json.loads(line) for line in (self.at(step) / _HISTORY).read_text(encoding="utf-8").splitlines()]

    def _damage(self, step: int) -> str | None:
        wrong = damage(self.at(step))
        if wrong is not None:
            return wrong
        best = self.progress(step).best_step
        if best is not None and best != step and (wrong := damage(self.at(best))):
            return f"its best checkpoint, {self.at(best).name}: {wrong}"
        return None
