"""A trunk and an objective for fake tensors, wrapped from outside: what is trained knows nothing of being counted."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ladder_cli.nn.loss import DEFAULT_CHUNK, summed_cross_entropy
from ladder_cli.plan.allocation import BACKBONE, LOSS, AllocationCount
from ladder_cli.trunk.base import Batch, Hidden, Summed, TapRequest, Taps, TrainableModule, Trunk
from ladder_cli.trunk.rows import gathered


class CountingTrunk:
    """A trunk whose passes are marked in a count; everything else is the wrapped trunk's."""

    def __init__(self, trunk: Trunk, count: AllocationCount, row_by_row: bool = False) -> None:
        self._trunk, self._count, self._row_by_row = trunk, count, row_by_row

    def taps(self, request: TapRequest, batch: Batch, *rest: Any, **more: Any) -> Taps:
        """What is allocated in the pass and outlives it are taps; the rest is the backbone's for a moment."""
        with self._count.part(BACKBONE):
            if not self._row_by_row:
                return self._trunk.taps(request, batch, *rest, **more)
            # Of fake rows nobody can tell how long they are: all are as long as the batch.
            rows = (self._trunk.taps(request, Batch(ids[None])) for ids in batch.input_ids)
            return gathered(request, batch, rows, self._trunk.parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trunk, name)


class EveryTokenCounts:
    """Next-token cross-entropy as if every token counted, the most there can be: fake labels have no values."""

    columns = ("labels",)

    def __init__(self, chunk: int = DEFAULT_CHUNK, count: AllocationCount | None = None) -> None:
        """`chunk`: positions whose logits exist at the same time; `count`: where the loss is marked."""
        self._chunk, self._count = chunk, count

    def count(self, batches: Iterable[Batch]) -> int:
        """Every token but the first of each row, which nothing predicts."""
        return sum(batch.input_ids[:, 1:].numel() for batch in batches)

    def __call__(self, hidden: Hidden, batch: Batch, divisor: Tensor | int | None = None) -> Summed:
        """The loss of a batch."""
        assert batch.labels is not None
        rows, targets = hidden.state[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten()
        with self._marked():
            total = summed_cross_entropy(rows, targets, hidden.readout, self._chunk)
        return Summed(total / (len(targets) if divisor is None else divisor), torch.tensor(len(targets)))

    def _marked(self) -> AbstractContextManager[None]:
        return self._count.part(LOSS) if self._count is not None else nullcontext()


def mark_passes(model: TrainableModule, count: AllocationCount, row_by_row: bool = False) -> None:
    """Let a model that reads taps read them through a `CountingTrunk`, rows alone or together."""
    if model.request is not None:
        vars(model)["trunk"] = CountingTrunk(vars(model)["trunk"], count, row_by_row)


def fake_loss(model: TrainableModule, batch: Batch, objective: EveryTokenCounts) -> Tensor:
    """The loss of a batch of fake tensors, as training computes it: nothing but the state outlives the forward pass."""
    hidden = replace(model.hidden(batch), reference=None)
    return objective(hidden, batch).total
