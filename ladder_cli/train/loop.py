"""The training loop: one pass over the rows for however many learners there are.

A step is: fetch its micro-batches, count what their losses are divided by over all processes, run each forward and
backward, sum the gradients of all processes, clip, update. After it: log, validate, save, and stop if there is nothing
left to train or a signal came.

What is sampled from a learner instead of read (`train.rollouts`) comes when the next step is asked for; the
validation then is the reward of what it answers.

A run that is continued from a checkpoint ends as if it had never stopped: weights, optimizer, order of rows, random
numbers, best step, early stopping, and the losses that are logged. And a learner ends as it would have ended alone: it
has its own pace and random numbers, and what goes wrong in one of them ends no other.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from operator import or_
from typing import Protocol

import torch
from torch import Tensor

from ladder_cli.data.passes import ValidationBatches
from ladder_cli.distributed import summed, summed_numbers
from ladder_cli.train.learner import Learner
from ladder_cli.train.monitor import Line, Spent, Throughput
from ladder_cli.train.signals import StopOnSignal
from ladder_cli.trunk.base import Batch, Taps, Trunk


def raise_failure(learner: Learner, failure: Exception | None) -> None:
    """What to do about a learner that ended, where there is no other that could go on."""
    if failure is not None:
        raise failure


class Steps(Protocol):
    """Micro-batches, step by step."""

    def steps(self, first: int = 0) -> Iterator[list[Batch]]:
        """Those of each step from the one after `first` on."""
        ...

    def tokens(self, batches: Iterable[Batch]) -> int:
        """Tokens of the rows in these batches, without padding."""
        ...

    def examples_after(self, steps: int) -> int:
        """Rows of the data that were passed in so many steps."""
        ...

    def epochs_after(self, steps: int) -> float:
        """Passes over them in so many steps."""
        ...


class Loop:
    """Trains learners that share their batches.

    Attributes:
        learning: those that have not ended.
        step: optimizer steps that were taken.
        tokens_seen: tokens of the rows that were passed, without padding.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        batches: Steps,
        validation: ValidationBatches | Callable[[], dict[str, float]],
        device: torch.device,
        stop: StopOnSignal,
        throughput: Throughput,
        trunk: Trunk | None = None,
        ended: Callable[[Learner, Exception | None], None] = raise_failure,
        spent: Spent | None = None,
    ) -> None:
        """Put together.

        Args:
            batches: to train on.
            validation: batches whose loss is measured; or, of one learner by itself, measures `eval_reward` and more.
            stop: is asked after every step.
            throughput: times the steps.
            trunk: that all learners read; None: each asks its own.
            ended: is told of a learner that has come to its end, with its best weights, or of what went wrong in it.
            spent: the seconds of steps by part, which are then logged.
        """
        self.learning, self._batches, self._validation = list(learners), batches, validation
        self._device, self._stop, self._throughput = device, stop, throughput
        self._trunk, self._ended, self._spent = trunk, ended, spent
        self.step = self.tokens_seen = 0

    def resume(self, step: int) -> None:
        """Take over from the checkpoints of a step.

        Raises:
            UserError: if one of them belongs to another run, and its learner is the only one.
        """

        def load(learner: Learner) -> None:
            progress = learner.load(step)
            self.step, self.tokens_seen = progress.step, progress.tokens_seen

        self._each(load)

    def run(self) -> None:
        """Train to the end or to a signal, and load the best weights.

        Raises:
            RunFailed: on a loss or gradient that is not finite, before the optimizer could spread it, where no other
                learner goes on.
        """
        self._each(lambda learner: learner.begin(self.step))
        try:
            self._train()
        except BaseException:
            for learner in self.learning:
                learner.end()
            raise
        # A signal came: they have been saved.
        self._each(lambda learner: learner.finish(self.step))

    def _train(self) -> None:
        began, seen_before = time.time(), self.tokens_seen
        steps = self._batches.steps(self.step)
        self._let_go()
        while self.learning:
            self._take(next(steps))
            if not self.learning:
                return
            stopped = self._stop.requested(self._device)
            speed = _speed(time.time() - began, self.tokens_seen - seen_before)
            self._each(
                partial(self._log, speed), [learner for learner in self.learning if learner.pace.logs(self.step)]
            )
            validated = [learner for learner in self.learning if learner.pace.validates(self.step)]
            if validated:
                self._validate(validated)
            for learner in self.learning:
                learner.finished = self.step >= learner.pace.steps or learner.best.misses >= learner.pace.patience
            saved = self.learning if stopped else validated
            self._each(lambda learner: learner.save(self.step, self.tokens_seen), saved)
            self._let_go()
            if stopped:
                return

    def _log(self, speed: dict[str, float], learner: Learner) -> None:
        parts = self._spent.told() if self._spent is not None else {}
        learner.log(self._line(learner.training_metrics(self.step)) | speed | parts)

    def _let_go(self) -> None:
        """End the learners that have nothing left to train."""

        def finish(learner: Learner) -> None:
            learner.finish(self.step)
            self._ended(learner, None)

        done = [learner for learner in self.learning if learner.finished]
        self._each(finish, done)
        self.learning = [learner for learner in self.learning if learner not in done]

    def _each(self, work: Callable[[Learner], object], learners: Iterable[Learner] | None = None) -> None:
        """Do something for each of the learners that have not ended; what goes wrong in one ends that one."""
        for learner in list(self.learning if learners is None else learners):
            if learner in self.learning:
                with self._alone(learner):
                    work(learner)

    @contextlib.contextmanager
    def _alone(self, learner: Learner) -> Iterator[None]:
        try:
            yield
        except Exception as failure:
            self.learning.remove(learner)
            learner.end()
            self._ended(learner, failure)

    def _take(self, micro_batches: list[Batch]) -> None:
        """One optimizer step."""
        self._throughput.begin()
        learning = list(self.learning)
        own = [learner.objective.count(micro_batches) for learner in learning]
        tokens, *counts = summed_numbers([self._batches.tokens(micro_batches), *own], self._device)
        divisors = {
            learner: torch.tensor(float(count), device=self._device)
            for learner, count in zip(learning, counts, strict=True)
        }
        updates = max(learner.updates for learner in learning)
        with self._spent.part("train") if self._spent is not None else contextlib.nullcontext():
            for _ in range(updates):
                for micro_batch in micro_batches:
                    batch = micro_batch.to(self._device)
                    taps = self._taps(self.learning, batch)
                    self._each(partial(self._backward, batch, taps, divisors))
                self._each(Learner.update)
        if self._spent is not None:
            self._spent.stepped()
        self.step += 1
        self.tokens_seen += tokens
        self._throughput.end(updates * tokens)
        self._each(lambda learner: learner.stepped(self.step))

    def _backward(self, batch: Batch, taps: Taps | None, divisors: dict[Learner, Tensor], learner: Learner) -> None:
        learner.backward(self.step, batch, taps, divisors[learner])

    def _validate(self, learning: list[Learner]) -> None:
        if isinstance(self._validation, ValidationBatches):
            self._measure_losses(learning, self._validation)
        else:
            self._each(partial(self._measure_reward, self._validation), learning)

    def _measure_reward(self, measured: Callable[[], dict[str, float]], learner: Learner) -> None:
        """Of a learner by itself: the highest reward is the best."""
        metrics = measured()
        learner.log(self._line(metrics))
        learner.best.met(self.step, -metrics["eval_reward"])

    @torch.no_grad()
    def _measure_losses(self, learning: list[Learner], validation: ValidationBatches) -> None:
        """The mean loss over the whole validation set, whatever the batches, and of what else objectives measure."""
        most = max(len(learner.objective.measures) for learner in learning)
        sums = torch.zeros(len(learning), 2 + most, dtype=torch.float64, device=self._device)
        own = dict(zip(learning, sums, strict=True))
        self._each(lambda learner: learner.model.eval(), learning)
        for micro_batch, counts in validation:
            batch = micro_batch.to(self._device)
            taps = self._taps([learner for learner in learning if learner in self.learning], batch)

            def add(learner: Learner, batch: Batch = batch, taps: Taps | None = taps, counts: bool = counts) -> None:
                loss = learner.loss(batch, taps)
                if counts:
                    own[learner][:2] += torch.stack([loss.total.double(), loss.count.double()])
                    if loss.measured is not None:
                        own[learner][2 : 2 + len(loss.measured)] += loss.measured

            self._each(add, learning)
        summed(sums)

        def take_note(learner: Learner) -> None:
            learner.model.train()
            mean, _, *measured = (own[learner] / own[learner][1]).tolist()
            told = zip(learner.objective.measures, measured, strict=False)  # others may have more
            learner.log(self._line({"eval_loss": mean, **{f"eval_{name}": value for name, value in told}}))
            learner.best.met(self.step, mean)

        self._each(take_note, learning)

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
            "rows_seen": self._batches.examples_after(self.step),
            "epoch": self._batches.epochs_after(self.step),
            "num_input_tokens_seen": self.tokens_seen,
        }


def _speed(seconds: float, tokens: int) -> dict[str, float]:
    """Of this start, validations and checkpoints included."""
    return {"train_runtime": round(seconds, 4), "train_tokens_per_second": round(tokens / seconds, 3)}
