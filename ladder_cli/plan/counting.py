"""A trunk and an objective for fake tensors, wrapped from outside: what is trained knows nothing of being counted."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ladder_cli.config.choices import ObjectiveKind
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.nn.loss import DEFAULT_CHUNK, summed_cross_entropy, token_log_probabilities
from ladder_cli.nn.policy import GroupRelative, clipped_costs, divergence, tempered
from ladder_cli.nn.preference import Preference
from ladder_cli.plan.allocation import BACKBONE, LOSS, AllocationCount
from ladder_cli.trunk.base import Batch, Hidden, Objective, Summed, TapRequest, Taps, TrainableModule, Trunk
from ladder_cli.trunk.rows import gathered, looked_up


class CountingTrunk:
    """A trunk whose passes are marked in a count; everything else is the wrapped trunk's."""

    def __init__(self, trunk: Trunk, count: AllocationCount) -> None:
        self._trunk, self._count = trunk, count

    def taps(self, request: TapRequest, batch: Batch, *rest: Any, **more: Any) -> Taps:
        """What is allocated in the pass and outlives it are taps; the rest is the backbone's for a moment."""
        with self._count.part(BACKBONE):
            return self._read(request, batch, *rest, **more)

    def _read(self, request: TapRequest, batch: Batch, *rest: Any, **more: Any) -> Taps:
        return self._trunk.taps(request, batch, *rest, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trunk, name)


class CountingRows(CountingTrunk):
    """The same where rows go through alone. Of fake rows nobody can tell how long they are: all are as long as the
    batch.
    """

    def _read(self, request: TapRequest, batch: Batch, *rest: Any, **more: Any) -> Taps:
        rows = (self._trunk.taps(request, Batch(ids[None])) for ids in batch.input_ids)
        return gathered(request, batch, rows, self._trunk.parts)


class StoredTaps(CountingTrunk):
    """The same where no row passes the backbone: its taps come out of a cache."""

    def _read(self, request: TapRequest, batch: Batch, *rest: Any, **more: Any) -> Taps:
        parts, shape = self._trunk.parts, (*batch.input_ids.shape, self._trunk.parts.config.hidden_size)
        rungs = {layer: torch.empty(shape, dtype=self._trunk.dtype) for layer in sorted(request.layers)}
        final = rungs.get(len(parts.layers)) if request.final else None
        if request.final and final is None:
            final = torch.empty(shape, dtype=self._trunk.dtype)
        embed = partial(looked_up, parts.embeddings, batch.input_ids)
        return Taps({0: embed()} | rungs, final, embed)


class EveryTokenCounts:
    """Next-token cross-entropy as if every token counted, the most there can be: fake labels have no values."""

    columns: tuple[str, ...] = ("labels",)
    refers = False
    measures: tuple[str, ...] = ()

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


class EveryPairCounts(Preference):
    """Preferences as if every token of both answers counted."""

    def __init__(
        self, config: ObjectiveConfig, chunk: int = DEFAULT_CHUNK, count: AllocationCount | None = None
    ) -> None:
        """`chunk`, `count`: as of `EveryTokenCounts`."""
        super().__init__(config, chunk)
        self._count = count

    def __call__(self, hidden: Hidden, batch: Batch, divisor: Tensor | int | None = None) -> Summed:
        """The loss of a batch."""
        assert batch.labels is not None
        targets = batch.labels[:, 1:].flatten()
        with self._count.part(LOSS) if self._count is not None else nullcontext():
            kept, learned = _against_reference(hidden, targets, hidden.readout, self._chunk)
            ratios = (learned - kept).view(len(batch.labels), -1).sum(1)
            total = (ratios[::2] - ratios[1::2]).sum()
        return Summed(total, torch.tensor(len(batch.labels) // 2))


class EveryCompletionCounts(GroupRelative):
    """Rewarded completions as if every token of them counted."""

    def __init__(
        self, config: ObjectiveConfig, chunk: int = DEFAULT_CHUNK, count: AllocationCount | None = None
    ) -> None:
        """`chunk`, `count`: as of `EveryTokenCounts`."""
        super().__init__(config, chunk)
        self._count = count

    def __call__(self, hidden: Hidden, batch: Batch, divisor: Tensor | int | None = None) -> Summed:
        """The loss of a batch."""
        assert batch.labels is not None
        targets, readout = batch.labels[:, 1:].flatten(), tempered(hidden.readout, self._config.temperature)
        with self._count.part(LOSS) if self._count is not None else nullcontext():
            backbone, learned = _against_reference(hidden, targets, readout, self._chunk)
            costs, _ = clipped_costs(learned, learned.detach(), torch.ones_like(learned), self._config)
            total = (costs + self._config.beta * divergence(backbone, learned)).sum()
        return Summed(total, torch.tensor(len(targets)))


def _against_reference(
    hidden: Hidden, targets: Tensor, readout: Callable[[Tensor], Tensor], chunk: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of every token under the bare backbone, and under what is trained; `[n]` each."""
    assert hidden.reference is not None
    with torch.no_grad():
        rows = hidden.reference[:, :-1].flatten(0, 1)
        kept = token_log_probabilities(rows, targets, readout, chunk)
        del rows
    return kept, token_log_probabilities(hidden.state[:, :-1].flatten(0, 1), targets, readout, chunk)


# As `nn.objective.OBJECTIVES`: labels on fake tensors have no values, by which tokens could be told that count.
_COUNTED: dict[ObjectiveKind, Callable[[ObjectiveConfig, int, AllocationCount], Objective]] = {
    ObjectiveKind.SFT: lambda config, chunk, count: EveryTokenCounts(chunk, count),
    ObjectiveKind.DPO: EveryPairCounts,
    ObjectiveKind.GRPO: EveryCompletionCounts,
}


def counted_objective(config: ObjectiveConfig, chunk: int, count: AllocationCount) -> Objective:
    """The objective of a config for fake tensors, as if every token counted; its loss is marked in `count`."""
    return _COUNTED[config.name](config, chunk, count)


def mark_passes(model: TrainableModule, count: AllocationCount, trunk: type[CountingTrunk] = CountingTrunk) -> None:
    """Let a model that reads taps read them through a `CountingTrunk` of this kind."""
    if model.request is not None:
        vars(model)["trunk"] = trunk(vars(model)["trunk"], count)


def fake_loss(model: TrainableModule, batch: Batch, objective: Objective) -> Tensor:
    """The loss of a batch of fake tensors, as training computes it: only what it reads outlives the forward pass."""
    hidden = model.hidden(batch)
    if not objective.refers:
        hidden = replace(hidden, reference=None)
    return objective(hidden, batch).total
