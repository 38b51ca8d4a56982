"""One trained part with all that belongs to it alone. Several of them can share one pass over a trunk."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ladder_cli.distributed import add_gradients, from_each, start_alike, summed, wait_for_everyone
from ladder_cli.errors import UserError
from ladder_cli.ranks import is_main_process, process_index, processes
from ladder_cli.train.bad_batch import BadBatch
from ladder_cli.train.checkpoints import Checkpoints, Progress
from ladder_cli.train.monitor import Line, Monitor
from ladder_cli.train.optimizer import load_state, save_state
from ladder_cli.train.random_states import load_random_states, save_random_states
from ladder_cli.trunk.base import Batch, Objective, Summed, Taps, TrainableModule

_OPTIMIZER = "optimizer.safetensors"


@dataclass
class Best:
    """The step with the lowest validation loss.

    Attributes:
        misses: validation losses since then that were no better.
    """

    step: int | None = None
    loss: float = math.inf
    misses: int = 0

    def met(self, step: int, loss: float) -> None:
        """Take note of a validation loss."""
        if loss < self.loss:
            self.step, self.loss, self.misses = step, loss, 0
        else:
            self.misses += 1


@dataclass
class Losses:
    """The training losses of the steps, summed up.

    Attributes:
        pending: this process's share of the sum since the last log line, a float32 scalar.
        total: the sum over all processes up to the last log line.
        last_logged: step of that line.
    """

    pending: Tensor
    total: float = 0.0
    last_logged: int = 0

    def drain(self, step: int) -> float:
        """The mean loss of the steps since the last log line; from here on `step` is that of the last one."""
        sum_of_steps = summed(self.pending.clone()).item()
        mean = sum_of_steps / (step - self.last_logged)
        self.pending.zero_()
        self.total, self.last_logged = self.total + sum_of_steps, step
        return mean

    def mean(self, step: int) -> float:
        """The mean loss of all steps."""
        return (self.total + summed(self.pending.clone()).item()) / step


@dataclass
class Learner:
    """A model of which a part is trained, and how.

    Attributes:
        model: with the trained part.
        load_weights: overwrites the trained part by an adapter's.
        monitors: are told its log lines; empty in processes that do not print.
        best: step and loss of the best validation.
        history: its log lines.
        finished: nothing is left to train: the last step was taken, or early stopping ended it.
        train_loss: the mean over all steps; None before the end.
    """

    model: TrainableModule
    load_weights: Callable[[Path], None]
    objective: Objective
    optimizer: Optimizer
    schedule: LRScheduler
    checkpoints: Checkpoints
    bad_batch: BadBatch
    device: torch.device
    monitors: Sequence[Monitor] = ()
    best: Best = field(default_factory=Best)
    history: list[Line] = field(default_factory=list)
    finished: bool = False
    train_loss: float | None = None

    def __post_init__(self) -> None:
        self.losses = Losses(torch.zeros((), device=self.device))
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def begin(self, step: int, steps: int) -> None:
        """Get ready to train on from `step`, with the same weights in all processes."""
        for monitor in self.monitors:
            monitor.begin(step, steps, self.history)
        start_alike(self.trained)
        self.model.train()

    def finish(self, step: int) -> None:
        """Sum up after `step`, and take the weights with the lowest validation loss."""
        self.train_loss = self.losses.mean(step)
        if self.best.step is not None:
            self.load_weights(self.checkpoints.at(self.best.step))
        self.end()

    def end(self) -> None:
        """Tell the monitors that it is over."""
        for monitor in self.monitors:
            monitor.end(self.train_loss)

    def loss(self, batch: Batch, taps: Taps | None, divisor: Tensor | None = None) -> Summed:
        """The loss of a batch: the one place where a batch becomes a loss.

        Args:
            taps: of the trunk, where it has run already.
            divisor: of the sum, in place of 1.
        """
        # Nobody reads the bare backbone's state yet: it goes before the loss takes its memory.
        return self.objective(replace(self.model.hidden(batch, taps), reference=None), batch, divisor)

    def backward(self, step: int, batch: Batch, taps: Taps | None, divisor: Tensor) -> None:
        """Add the gradients of a micro-batch of the step after `step`.

        Raises:
            RunFailed: on a loss that is not finite.
        """
        self.bad_batch.seen(step, batch.row_ids)
        loss = self.loss(batch, taps, divisor).total
        loss.backward()
        if not torch.isfinite(loss):
            self.bad_batch.refuse("loss", loss.item(), batch.row_ids)
        self.losses.pending += loss.detach()

    def update(self, max_norm: float) -> None:
        """Take a step by the gradients of all processes.

        Args:
            max_norm: gradients are scaled down to it; 0: they are left as they are.

        Raises:
            RunFailed: on a gradient that is not finite; the step is not taken.
        """
        add_gradients(self.trained)
        self._norm = nn.utils.clip_grad_norm_(self.trained, max_norm or math.inf).item()
        if not math.isfinite(self._norm):
            self.bad_batch.refuse("gradient norm", self._norm)
        self.optimizer.step()
        self._rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        self.optimizer.zero_grad()

    def stepped(self, step: int) -> None:
        """Tell the monitors of a step."""
        for monitor in self.monitors:
            monitor.stepped(step)

    def training_metrics(self, step: int) -> dict[str, float]:
        """The mean loss since the last call, and gradient norm (before clipping) and learning rate of `step`."""
        return {"loss": self.losses.drain(step), "grad_norm": self._norm, "learning_rate": self._rate}

    def log(self, line: Line) -> None:
        """Remember a line and pass it on."""
        self.history.append(line)
        for monitor in self.monitors:
            monitor.log(line)

    def save(self, step: int, tokens_seen: int) -> None:
        """Write a checkpoint, whole or not at all; to be called by all processes."""
        folder = self.checkpoints.staged(step)
        if is_main_process():
            self.save_adapter(folder)
            save_state(self.optimizer, self.schedule, folder / _OPTIMIZER)
        save_random_states(folder / _random_states())
        pending = from_each(self.losses.pending.item(), self.device)
        wait_for_everyone()
        if is_main_process():
            best = self.best
            progress = Progress(
                step,
                self.finished,
                tokens_seen,
                best.step,
                best.loss if best.step is not None else None,
                best.misses,
                self.losses.total,
                pending,
                self.losses.last_logged,
            )
            self.checkpoints.commit(progress, self.history)
            self.checkpoints.rotate(best.step)
        wait_for_everyone()

    def load(self, step: int) -> Progress:
        """Take over from a checkpoint all but the random states.

        Raises:
            UserError: if the checkpoint is of another run.
        """
        folder, progress = self.checkpoints.at(step), self.checkpoints.progress(step)
        self.load_weights(folder)
        try:
            load_state(self.optimizer, self.schedule, folder / _OPTIMIZER)
        except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{folder} is of another run or damaged ({reason}): delete it, or start over with resume=false."
            ) from error
        self.history, self.finished = self.checkpoints.history(step), progress.finished
        loss = progress.best_loss if progress.best_loss is not None else math.inf
        self.best = Best(progress.best_step, loss, progress.misses)
        pending = progress.pending_losses
        if len(pending) != processes():  # it was written by another number of them
            pending = [sum(pending), *[0.0] * (processes() - 1)]
        share = pending[process_index()]
        self.losses = Losses(torch.tensor(share, device=self.device), progress.total_loss, progress.last_logged)
        return progress

    def load_random_states(self, step: int) -> None:
        """Go on with the random numbers of a checkpoint. Other processes than then draw others."""
        path = self.checkpoints.at(step) / _random_states()
        if path.is_file():
            load_random_states(path)

    def save_adapter(self, folder: Path) -> None:
        """Write the trained part alone."""
        model: Any = self.model
        model.save_pretrained(str(folder))


def _random_states() -> str:
    return f"random-{process_index()}.json"
