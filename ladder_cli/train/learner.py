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

from ladder_cli.config.optimization import OptimizationConfig
from ladder_cli.distributed import add_gradients, from_each, start_alike, summed, wait_for_everyone
from ladder_cli.errors import UserError
from ladder_cli.ranks import is_main_process, process_index, processes
from ladder_cli.train.bad_batch import BadBatch
from ladder_cli.train.checkpoints import Checkpoints, Progress
from ladder_cli.train.monitor import Line, Monitor
from ladder_cli.train.optimizer import load_state, save_state
from ladder_cli.train.random_states import RandomStream
from ladder_cli.trunk.base import Batch, Objective, Summed, Taps, TrainableModule

_OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True)
class Pace:
    """When what happens, in optimizer steps.

    Attributes:
        steps: of the whole run.
        validate_every: between two validations, each with a checkpoint; the last step has one in any case.
        log_every: between two log lines; the first step has one in any case.
        patience: validations without improvement after which a learner stops; infinite: it never does.
        max_norm: that gradients are scaled down to; 0: they are left as they are.
    """

    steps: int
    validate_every: int
    log_every: int
    patience: float
    max_norm: float

    @classmethod
    def of(cls, train: OptimizationConfig, steps: int) -> "Pace":
        """As a config says it."""
        every = max(1, steps // train.evaluations)
        patience = math.inf if train.early_stopping is None else train.early_stopping
        return cls(steps, every, train.logging_steps, patience, train.max_grad_norm)

    def check_patience(self) -> None:
        """Refuse patience that outlasts the run.

        Raises:
            UserError: if it could stop the run at the last step or never.
        """
        validations = math.ceil(self.steps / self.validate_every)
        # The first validation is always the best so far.
        if validations - 1 <= self.patience < math.inf:
            raise UserError(
                f"train.early_stopping={self.patience} never ends a run of {validations} validations early, of which "
                "the first cannot be a miss: raise train.evaluations, or leave it out."
            )

    def logs(self, step: int) -> bool:
        """Whether a step has a log line."""
        return step == 1 or step % self.log_every == 0

    def validates(self, step: int) -> bool:
        """Whether a validation and a checkpoint follow a step."""
        return step % self.validate_every == 0 or step >= self.steps


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
    """The training losses of the steps, and what else is measured of them, summed up.

    Attributes:
        pending: this process's share of the sums since the last log line, float32: first of the loss, then of the
            objective's measures.
        total: the sum of the losses over all processes up to the last log line.
        last_logged: step of that line.
    """

    pending: Tensor
    total: float = 0.0
    last_logged: int = 0

    def drain(self, step: int) -> list[float]:
        """The means of the steps since the last log line; from here on `step` is that of the last one."""
        sums = summed(self.pending.clone()).tolist()
        means = [sum_of_steps / (step - self.last_logged) for sum_of_steps in sums]
        self.pending.zero_()
        self.total, self.last_logged = self.total + sums[0], step
        return means

    def mean(self, step: int) -> float:
        """The mean loss of all steps."""
        return (self.total + summed(self.pending.clone()).tolist()[0]) / step


@dataclass(eq=False)
class Learner:
    """A model of which a part is trained, and how.

    Attributes:
        model: with the trained part.
        load_weights: overwrites the trained part by an adapter's.
        pace: when what happens.
        random: what it draws from while it computes (dropout).
        monitors: are told its log lines; empty in processes that do not print.
        beside: names of what is told of a step beside what the objective measures (`note`).
        updates: of the weights in a step, each by all of its rows.
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
    pace: Pace
    checkpoints: Checkpoints
    bad_batch: BadBatch
    device: torch.device
    random: RandomStream = field(default_factory=RandomStream)
    monitors: Sequence[Monitor] = ()
    beside: tuple[str, ...] = ()
    updates: int = 1
    best: Best = field(default_factory=Best)
    history: list[Line] = field(default_factory=list)
    finished: bool = False
    train_loss: float | None = None

    def __post_init__(self) -> None:
        self.measures = (*self.objective.measures, *self.beside)
        self.losses = Losses(torch.zeros(1 + len(self.measures), device=self.device))
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._watched = False

    def begin(self, step: int) -> None:
        """Get ready to train on from `step`, with the same weights in all processes."""
        for monitor in self.monitors:
            monitor.begin(step, self.pace.steps, self.history)
        self._watched = True
        start_alike(self.trained)
        self.model.train()

    def finish(self, step: int) -> None:
        """Sum up after `step`, and take the weights with the lowest validation loss."""
        self.train_loss = self.losses.mean(step)
        if self.best.step is not None:
            self.load_weights(self.checkpoints.at(self.best.step))
        self.end()

    def end(self) -> None:
        """Tell the monitors that it is over, once."""
        if self._watched:
            self._watched = False
            for monitor in self.monitors:
                monitor.end(self.train_loss)

    def loss(self, batch: Batch, taps: Taps | None, divisor: Tensor | None = None) -> Summed:
        """The loss of a batch: the one place where a batch becomes a loss.

        Args:
            taps: of the trunk, where it has run already.
            divisor: of the sum, in place of 1.
        """
        with self.random.drawing():
            hidden = self.model.hidden(batch, taps)
            if not self.objective.refers:  # the bare backbone's state goes before the loss takes its memory
                hidden = replace(hidden, reference=None)
            return self.objective(hidden, batch, divisor)

    def backward(self, step: int, batch: Batch, taps: Taps | None, divisor: Tensor) -> None:
        """Add the gradients of a micro-batch of the step after `step`.

        Raises:
            RunFailed: on a loss that is not finite.
        """
        self.bad_batch.seen(step, batch.row_ids)
        found = self.loss(batch, taps, divisor)
        loss = found.total
        # Draws nothing new: what is recomputed draws again what the forward pass drew, and sets the generators back.
        loss.backward()
        if not torch.isfinite(loss):
            self.bad_batch.refuse("loss", loss.item(), batch.row_ids)
        self.losses.pending[0] += loss.detach() / self.updates
        if found.measured is not None:
            self.losses.pending[1 : 1 + len(found.measured)] += found.measured / self.updates

    def note(self, values: Sequence[float]) -> None:
        """Take note of what is told of a step, by the names of `beside`."""
        self.losses.pending[len(self.losses.pending) - len(values) :] += torch.tensor(values, device=self.device)

    def update(self) -> None:
        """Update the weights by the gradients of all processes; the learning rate is one for all updates of a step.

        Raises:
            RunFailed: on a gradient that is not finite; the step is not taken.
        """
        add_gradients(self.trained)
        self._norm = nn.utils.clip_grad_norm_(self.trained, self.pace.max_norm or math.inf).item()
        if not math.isfinite(self._norm):
            self.bad_batch.refuse("gradient norm", self._norm)
        self.optimizer.step()
        self._rate = float(self.schedule.get_last_lr()[0])
        self.optimizer.zero_grad()

    def stepped(self, step: int) -> None:
        """Go on to the next step's learning rate, and tell the monitors of this step."""
        self.schedule.step()
        for monitor in self.monitors:
            monitor.stepped(step)

    def training_metrics(self, step: int) -> dict[str, float]:
        """The mean loss since the last call, likewise what the objective measures, and gradient norm (before clipping)
        and learning rate of `step`.
        """
        loss, *measured = self.losses.drain(step)
        told = dict(zip(self.measures, measured, strict=True))
        return {"loss": loss, **told, "grad_norm": self._norm, "learning_rate": self._rate}

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
        self.random.save(folder / _random_states())
        pending, *measured = (from_each(value, self.device) for value in self.losses.pending.tolist())
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
                measured,
            )
            self.checkpoints.commit(progress, self.history)
            self.checkpoints.rotate(best.step)
        wait_for_everyone()

    def load(self, step: int) -> Progress:
        """Take over from a checkpoint. Other processes than wrote it draw other random numbers.

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
        pending = [progress.pending_losses, *progress.pending_measures]
        if len(pending[0]) != processes():  # it was written by another number of them
            pending = [[sum(shares), *[0.0] * (processes() - 1)] for shares in pending]
        share = torch.tensor([shares[process_index()] for shares in pending], device=self.device)
        self.losses = Losses(share, progress.total_loss, progress.last_logged)
        if (states := folder / _random_states()).is_file():
            self.random.load(states)
        return progress

    def save_adapter(self, folder: Path) -> None:
        """Write the trained part alone."""
        model: Any = self.model
        model.save_pretrained(str(folder))


def _random_states() -> str:
    return f"random-{process_index()}.json"
