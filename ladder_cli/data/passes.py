"""Passes over the training rows: each row once an epoch, whatever the batches and however many the processes.

Where the last batches of an epoch do not come out even, accelerate would repeat rows of its beginning; here blanks take
their place, of which no token counts. So several processes train on what one process trains on.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ladder_cli.data.encoding import IGNORED_LABEL

BLANK = -1  # the number of a row that is none


def steps_for(rows: int, effective_batch: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps: `max_steps` if given, else what the epochs need.

    An epoch passes every row once. Its last step takes the rows that are left, however few.
    """
    if max_steps is not None:
        return max_steps
    # As the number was written: in binary, 0.1 x 30 is a little more than 3.
    return max(1, math.ceil(Fraction(str(epochs)) * steps_in_epoch(rows, effective_batch)))


def steps_in_epoch(rows: int, effective_batch: int) -> int:
    """Optimizer steps that pass every row once."""
    return math.ceil(rows / effective_batch)


def rows_after(steps: int, rows: int, effective_batch: int) -> int:
    """Rows that were passed in so many steps, each as often as it was passed."""
    epochs, rest = divmod(steps, steps_in_epoch(rows, effective_batch))
    return epochs * rows + min(rest * effective_batch, rows)


def blank_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of one token, which does not count, with the columns of `row`."""
    return {**{name: values[:1] for name, values in row.items()}, "labels": [IGNORED_LABEL]}


class EvenSampler(Sampler[int]):
    """The order of another sampler, filled up with blanks to whole batches for every process."""

    def __init__(self, sampler: Any, rows_at_once: int) -> None:
        """`rows_at_once`: in one batch of all processes together; 1 fills nothing up."""
        self._sampler, self._rows_at_once = sampler, rows_at_once

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._sampler) + self._blanks

    def __iter__(self) -> Iterator[int]:
        yield from self._sampler
        yield from [BLANK] * self._blanks

    @property
    def _blanks(self) -> int:
        return -len(self._sampler) % self._rows_at_once


class Passes(TrainerCallback):
    """Tells the sampler which epoch begins, and counts epochs by rows.

    Transformers does both by batches: a short one counts as a whole one. And the epoch does not reach the sampler where
    several processes continue a run.
    """

    def __init__(self, rows: int, effective_batch: int) -> None:
        """`effective_batch`: rows of an optimizer step over all processes."""
        self._rows, self._effective_batch = rows, effective_batch
        self.sampler: EvenSampler | None = None

    def rows_seen(self, state: TrainerState) -> int:
        """Rows passed so far, each as often as it was passed."""
        return rows_after(state.global_step, self._rows, self._effective_batch)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Every epoch has an order of its own."""
        assert self.sampler is not None  # the loader was made with it
        self.sampler.set_epoch(state.global_step // steps_in_epoch(self._rows, self._effective_batch))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The epoch that is logged."""
        state.epoch = self.rows_seen(state) / self._rows
