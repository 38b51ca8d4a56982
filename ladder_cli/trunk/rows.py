"""Rows through a backbone one by one, so that what is read of a row depends on that row and nothing else.

In a padded batch a row's taps change in their last bits with the width of the batch, by the order of the sums in
attention. Alone and without padding they are always the same: whatever the batch, the epoch, the seed and the run. On
a CPU that is no slower (rows of a hundred tokens and more: faster, since nothing is padded).
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from ladder_cli.trunk.base import BLANK, Batch, TapRequest, Taps, Trunk, TrunkCost
from ladder_cli.trunk.parts import Anatomy


class TrunkOver:
    """A trunk over another one, which does everything that this one does not do itself."""

    def __init__(self, trunk: Trunk) -> None:
        self.under = trunk
        self.name, self.revision = trunk.name, trunk.revision

    @property
    def parts(self) -> Anatomy:
        """Of the trunk below."""
        return self.under.parts

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.under.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in."""
        return self.under.dtype

    @property
    def identity(self) -> str | None:
        """Of the weights."""
        return self.under.identity

    @identity.setter
    def identity(self, value: str | None) -> None:
        self.under.identity = value

    def identify(self) -> str:
        """The identity of the weights, hashed if nobody has done so."""
        return self.under.identify()

    def whole(self) -> PreTrainedModel:
        """The backbone as a model."""
        return self.under.whole()

    def view(self) -> Trunk:
        """The same over a view of the trunk below."""
        twin = copy.copy(self)
        twin.under = self.under.view()
        return twin

    def hold(self, layers: Iterable[int]) -> None:
        """Keep these layers' weights where it computes."""
        self.under.hold(layers)

    def settle(self, model: nn.Module) -> None:
        """Bring everything where it computes."""
        self.under.settle(model)

    def cost(self, request: TapRequest) -> TrunkCost:
        """What a pass takes."""
        return self.under.cost(request)

    def taps(self, request: TapRequest, batch: Batch, cache: Cache | None = None, /, **more: Any) -> Taps:
        """One pass."""
        return self.under.taps(request, batch, cache, **more)


class RowTrunk(TrunkOver):
    """Each row of a training or validation batch by itself, at its own length."""

    def taps(self, request: TapRequest, batch: Batch, cache: Cache | None = None, /, **more: Any) -> Taps:
        """As a pass over the batch; positions of padding are zero, and rows that only fill up are not run.

        Batches of no data set (`batch.row_ids` is empty: generation, proofs) go through together.
        """
        if not batch.row_ids or cache is not None or more:
            return self.under.taps(request, batch, cache, **more)
        by_row = (self.under.taps(request, row) if row.row_ids != (BLANK,) else None for row in single_rows(batch))
        return gathered(request, batch, by_row, self.parts)


def row_lengths(batch: Batch) -> list[int]:
    """Tokens of each row up to its padding, which is on the right.

    Packed rows have no mask: their padding are documents of one token, at position 0.

    Raises:
        ValueError: if rows are padded elsewhere.
    """
    count = batch.input_ids.shape[1]
    if batch.attention_mask is not None:
        mask = batch.attention_mask.bool()
        lengths = mask.sum(1)
        if not torch.equal(mask, torch.arange(count, device=mask.device)[None] < lengths[:, None]):
            raise ValueError("rows of a data set are padded on the right")
        return [int(length) for length in lengths]
    if batch.position_ids is not None:
        inside = batch.position_ids > 0
        places = torch.arange(1, count + 1, device=inside.device)
        return [max(1, int(last)) for last in (inside * places).amax(1)]
    return [count] * len(batch.input_ids)


def single_rows(batch: Batch) -> list[Batch]:
    """The rows of a batch, each by itself and without padding; a mask is then not needed."""
    rows = []
    for number, length in enumerate(row_lengths(batch)):
        positions = batch.position_ids[number : number + 1, :length] if batch.position_ids is not None else None
        ids = batch.input_ids[number : number + 1, :length]
        rows.append(Batch(ids, None, None, positions, batch.row_ids[number : number + 1]))
    return rows


def some_rows(batch: Batch, numbers: list[int]) -> Batch:
    """A batch of some rows of another, no wider than they need."""
    width = max(length for number, length in enumerate(row_lengths(batch)) if number in numbers)
    cut = {
        name: value[numbers, :width] for name, value in vars(batch).items() if isinstance(value, Tensor)
    }  # fmt: skip
    return replace(batch, **cut, row_ids=tuple(batch.row_ids[number] for number in numbers))


def gathered(request: TapRequest, batch: Batch, by_row: Iterable[Taps | None], parts: Anatomy) -> Taps:
    """The taps of rows `[1, tokens of the row, d]` as those of their batch, zero where there is padding.

    Args:
        by_row: in the order of the batch, and let go one by one; None for a row that is all padding.
        parts: of the backbone, whose embeddings give rung 0 where the rows say that they can be looked up again.
    """
    depth = len(parts.layers)
    layers = request.layers | ({depth} if request.final else set())
    joined: dict[int, Tensor] = {}
    embed = partial(looked_up, parts.embeddings, batch.input_ids)
    lookup = True

    def place(number: int, layer: int, tap: Tensor) -> None:
        if layer not in joined:
            size = (*batch.input_ids.shape, tap.shape[-1])
            joined[layer] = torch.zeros(size, dtype=tap.dtype, device=batch.input_ids.device)
        joined[layer][number, : tap.shape[1]] = tap[0]

    for number, taps in enumerate(by_row):
        if taps is None:
            continue
        lookup = lookup and taps.embed is not None
        for layer in layers if lookup else {0, *layers}:
            tap = taps.final if layer == depth and request.final else taps.rungs[layer]
            assert tap is not None
            place(number, layer, tap)
    if not joined and layers:  # nothing but rows that fill up
        blank = torch.zeros(1, 1, parts.config.hidden_size, dtype=parts.dtype)
        for layer in layers:
            place(0, layer, blank)
    rungs = {0: embed() if lookup else joined[0]} | {layer: joined[layer] for layer in sorted(request.layers)}
    # As of one pass, the last rung and the final state are one tensor.
    return Taps(rungs, joined[depth] if request.final else None, embed if lookup else None)


@torch.no_grad()
def looked_up(embeddings: nn.Module, input_ids: Tensor) -> Tensor:
    """Rung 0 `[batch, tokens, d]`, where the first layer reads the embeddings as they are."""
    state: Tensor = embeddings(input_ids)
    return state
