"""Passes over the rows of a training or validation set: each row once, whatever the batches and the processes.

Where the last batches of an epoch do not come out even, one process takes a smaller one. Several must all have one, so
that blanks fill it up, of which no token counts: several processes train on what one process trains on.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ladder_cli.data.batching import StepOrder
from ladder_cli.data.encoding import IGNORED_LABEL, Row
from ladder_cli.trunk.base import BLANK, Batch


class Rows(Protocol):
    """Rows of a set, by number."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Row: ...


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


class PassedRows(Dataset):
    """Rows as they are passed: those of a set, and for `BLANK` one token that does not count."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        if index != BLANK:
            return self._rows[index]
        row = self._rows[0]
        return {**{name: values[:1] for name, values in row.items()}, "labels": [IGNORED_LABEL]}


@dataclass(frozen=True)
class Loading:
    """How rows become tensors, and which of several processes this one is.

    Attributes:
        collate: of rows to `input_ids`, `labels` and `attention_mask` or `position_ids`, each `[batch, tokens]`.
        micro_batch: rows of a batch; whole examples.
        workers: data loader processes; 0 loads in this one.
        pinned: in memory that a GPU reads directly.
        rows_each: rows of an example, which stay side by side.
    """

    collate: Callable[[Sequence[Any]], dict[str, Tensor]]
    micro_batch: int
    process: int = 0
    processes: int = 1
    workers: int = 0
    pinned: bool = False
    rows_each: int = 1

    def batches(self, rows: Rows, plan: list[list[int]], workers: int = 0) -> Iterator[Batch]:
        """The batches of these rows, on the host.

        A loader draws a seed for its workers, which nobody reads; it shall not draw it from the learners' numbers.
        """
        loader = DataLoader(
            PassedRows(rows),
            batch_sampler=plan,
            collate_fn=self.collate,
            num_workers=workers,
            pin_memory=self.pinned,
            generator=torch.Generator(),
        )
        for row_ids, tensors in zip(plan, loader, strict=True):
            yield Batch(**tensors, row_ids=tuple(row_ids))


class TrainingBatches:
    """The micro-batches of one process, step by step, epoch after epoch."""

    def __init__(self, rows: Rows, loading: Loading, accumulation: int, seed: int) -> None:
        """`accumulation`: micro-batches of a step; `seed`: of the order of rows."""
        self._rows, self._loading, self._accumulation = rows, loading, accumulation
        each = loading.rows_each
        # An example is as long as its longest row.
        lengths = [max(rows.lengths[at : at + each]) for at in range(0, len(rows), each)]
        self.effective_batch = loading.micro_batch * loading.processes * accumulation
        self._order = StepOrder(lengths, self.effective_batch // each, seed)
        self.steps_in_epoch = steps_in_epoch(len(rows), self.effective_batch)

    def rows_after(self, steps: int) -> int:
        """Rows that all processes passed in so many steps, each as often as it was passed."""
        return rows_after(steps, len(self._rows), self.effective_batch)

    def examples_after(self, steps: int) -> int:
        """Examples whose rows they are."""
        return self.rows_after(steps) // self._loading.rows_each

    def epochs_after(self, steps: int) -> float:
        """Passes over the rows in so many steps."""
        return self.rows_after(steps) / len(self._rows)

    def tokens(self, batches: Iterable[Batch]) -> int:
        """Tokens of the rows in these batches, without padding and blanks."""
        return sum(self._rows.lengths[row] for batch in batches for row in batch.row_ids if row != BLANK)

    def steps(self, first: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each step from the one after `first` on."""
        epoch, done = divmod(first, self.steps_in_epoch)
        while True:
            plan = self._plan(epoch)[done * self._accumulation :]
            batches = self._loading.batches(self._rows, plan, self._loading.workers)
            while step := list(islice(batches, self._accumulation)):
                yield step
            epoch, done = epoch + 1, 0

    def _plan(self, epoch: int) -> list[list[int]]:
        """Row numbers of this process's batches."""
        loading, each = self._loading, self._loading.rows_each
        self._order.set_epoch(epoch)
        rows = [example * each + row for example in self._order for row in range(each)]
        if loading.processes > 1:
            rows += [BLANK] * (-len(rows) % (loading.micro_batch * loading.processes))
        return _cut(rows, loading.micro_batch)[loading.process :: loading.processes]


class ValidationBatches:
    """The validation rows, each once over all processes."""

    def __init__(self, rows: Rows, loading: Loading) -> None:
        self._rows, self._loading = rows, loading
        batches = _cut(list(range(len(rows))), loading.micro_batch)
        own = batches[loading.process :: loading.processes]
        # A sharded layer is gathered by all processes or by none (`trunk.sharded`), so that one that has no batch
        # left runs another once more, which does not count.
        idle = math.ceil(len(batches) / loading.processes) - len(own)
        self._plan, self._own = [*own, *batches[:idle]], len(own)

    def __iter__(self) -> Iterator[tuple[Batch, bool]]:
        """Batches of this process, on the host, and whether each counts."""
        batches = self._loading.batches(self._rows, self._plan)
        return ((batch, number < self._own) for number, batch in enumerate(batches))


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]
