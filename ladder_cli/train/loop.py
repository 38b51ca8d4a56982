"""The training loop: one pass over the rows for however many learners there are.

A step is: fetch its micro-batches, count what their losses are divided by over all processes, run each forward and
backward, sum the gradients of all processes, clip, update. After it: log, validate, save, and stop if there is nothing
left to train or a signal came.

A run that is continued from a checkpoint ends as if it had never stopped: weights, optimizer, order of rows, random
states, best step, early stopping, and the losses that are logged.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import torch

from ladder_cli.config.schema import OptimizationConfig
from ladder_cli.data.passes import TrainingBatches, ValidationBatches
from ladder_cli.distributed import summed, summed_numbers
from ladder_cli.train.learner import Learner
from ladder_cli.train.monitor import Line, Throughput
from ladder_cli.train.signals import StopOnSignal
from ladder_cli.trunk.base import Batch, Taps, Trunk


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

    def logs(self, step: int) -> bool:
        """Whether a step has a log line."""
        return step == 1 or step % self.log_every == 0

    def validates(self, step: int) -> bool:
        """Whether a validation and a checkpoint follow a step."""
        return step % self.validate_every == 0 or step >= self.steps


class Loop:
    """Trains learners on the same batches.

    Attributes:
        step: optimizer steps that were taken.
        tokens_seen: tokens of the rows that were passed, of all processes, without padding.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        batches: TrainingBatches,
        validation: ValidationBatches,
        pace: Pace,
        device: torch.device,
        stop: StopOnSignal,
        throughput: Throughput,
        trunk: Trunk | None = None,
    ) -> None:
        """Get ready.

        Args:
            stop: is asked after every step.
            throughput: times the steps.
            trunk: that all learners read; None: each asks its own.
        """
        self.learners, self._batches, self._validation = learners, batches, validation
        self._trunk = trunk
        self._pace, self._device, self._stop, self._throughput = pace, device, stop, throughput
        self.step = self.tokens_seen = 0
        self._resumed_at: int | None = None

    def resume(self, step: int) -> None:
        """Take over from the checkpoints of a step.

        Raises:
            UserError: if one of them belongs to another run.
        """
        for learner in self.learners:
            progress = learner.load(step)
            self.step, self.tokens_seen = progress.step, progress.tokens_seen
        self._resumed_at = step

    def run(self) -> None:
        """Train to the end or to a signal, and load the best weights.

        Raises:
            RunFailed: on a loss or gradient that is not finite, before the optimizer could spread it.
        """
        for learner in self.learners:
            learner.begin(self.step, self._pace.steps)
        try:
            self._train()
        except BaseException:
            for learner in self.learners:
                learner.end()
            raise
        for learner in self.learners:
            learner.finish(self.step)

    def _train(self) -> None:
        began, seen_before = time.time(), self.tokens_seen
        steps, stopped = self._micro_batches(), False
        while (learning := [learner for learner in self.learners if not learner.finished]) and not stopped:
            self._take(next(steps), learning)
            stopped = self._stop.requested(self._device)
            if self._pace.logs(self.step):
                speed = _speed(time.time() - began, self.tokens_seen - seen_before)
                for learner in learning:
                    learner.log(self._line(learner.training_metrics(self.step)) | speed)
            if self._pace.validates(self.step):
                self._validate(learning)
            for learner in learning:
                learner.finished = self.step >= self._pace.steps or learner.best.misses >= self._pace.patience
                if stopped or self._pace.validates(self.step):
                    learner.save(self.step, self.tokens_seen)

    def _micro_batches(self) -> Iterator[list[Batch]]:
        """Those of each step that is left.

        The random states of a checkpoint are set where they were saved: before the loader of a new epoch draws its
        seed, and behind that draw where a loader starts in the middle of an epoch.
        """
        steps = self._batches.steps(self.step)
        if self._batches.begins_epoch(self.step):
            self._load_random_states()
        else:
            first = next(steps)
            self._load_random_states()
            yield first
        yield from steps

    def _load_random_states(self) -> None:
        if self._resumed_at is not None:
            self.learners[0].load_random_states(self._resumed_at)

    def _take(self, micro_batches: list[Batch], learning: list[Learner]) -> None:
        """One optimizer step."""
        self._throughput.begin()
        own = [learner.objective.count(micro_batches) for learner in learning]
        tokens, *counts = summed_numbers([self._batches.tokens(micro_batches), *own], self._device)
        divisors = [torch.tensor(float(count), device=self._device) for count in counts]
        for micro_batch in micro_batches:
            batch = micro_batch.to(self._device)
            taps = self._taps(learning, batch)
            for learner, divisor in zip(learning, divisors, strict=True):
                learner.backward(self.step, batch, taps, divisor)
        for learner in learning:
            learner.update(self._pace.max_norm)
        self.step += 1
        self.tokens_seen += tokens
        self._throughput.end(tokens)
        for learner in learning:
            learner.stepped(self.step)

    @torch.no_grad()
    def _validate(self, learning: list[Learner]) -> None:
        """The mean loss over the whole validation set, whatever the batches."""
        sums = torch.zeros(len(learning), 2, dtype=torch.float64, device=self._device)
        for learner in learning:
            learner.model.eval()
        for micro_batch, counts in self._validation:
            batch = micro_batch.to(self._device)
            taps = self._taps(learning, batch)
            for learner, own in zip(learning, sums, strict=True):
                loss = learner.loss(batch, taps)
                if counts:
                    own += torch.stack([loss.total.double(), loss.count.double()])
        for learner, (total, count) in zip(learning, summed(sums), strict=True):
            learner.model.train()
            mean = (total / count).item()
            learner.log(self._line({"eval_loss": mean}))
            learner.best.met(self.step, mean)

    def _taps(self, learning: list[Learner], batch: Batch) -> Taps | None:
        """One pass for all that read the trunk; None where one learner asks for itself, and lets go of what it can."""
        requests = [request for learner in learning if (request := learner.model.request) is not None]
        if self._trunk is None or len(learning) == 1 or not requests:
            return None
        return self._trunk.taps(reduce(or_, requests), batch)

    def _line(self, metrics: dict[str, float]) -> Line:
        return {
            "step": self.step,
            **metrics,
            "rows_seen": self._batches.rows_after(self.step),
            "epoch": self._batches.epochs_after(self.step),
            "num_input_tokens_seen": self.tokens_seen,
        }


def _speed(seconds: float, tokens: int) -> dict[str, float]:
    """Of this start, validations and checkpoints included."""
    return {"train_runtime": round(seconds, 4), "train_tokens_per_second": round(tokens / seconds, 3)}
