"""From tokenised rows to batches: padding, packing, and the order of rows."""

import bisect
import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ladder_cli.data.encoding import IGNORED_LABEL, Row


class Indexed(Protocol):
    """Rows that are read by their number."""

    def __getitem__(self, index: int, /) -> Row:
        """One row."""
        ...


class PackedRows(Dataset):
    """Packs several examples into a row, up to a length.

    `position_ids` start again at 0 with each example; by that Transformers keeps examples from attending to each other.
    Examples are placed from long to short, each into the fullest row that still has room (best fit decreasing).
    """

    def __init__(self, rows: Indexed, lengths: Sequence[int], max_length: int) -> None:
        self._rows = rows
        self.members: list[list[int]] = []
        room: list[tuple[int, int]] = []  # (tokens left, row), ascending
        for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
            at = bisect.bisect_left(room, (lengths[index], -1))
            left, row = room.pop(at) if at < len(room) else (max_length, len(self.members))
            if row == len(self.members):
                self.members.append([])
            self.members[row].append(index)
            bisect.insort(room, (left - lengths[index], row))
        self.lengths = [sum(lengths[index] for index in members) for members in self.members]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Row:
        members = [self._rows[member] for member in self.members[index]]
        return {
            "input_ids": [token for row in members for token in row["input_ids"]],
            # A first token has nothing before it to be predicted from.
            "labels": [label for row in members for label in (IGNORED_LABEL, *row["labels"][1:])],
            "position_ids": [position for row in members for position in range(len(row["input_ids"]))],
        }


class PaddingCollator:
    """Pads a batch on the right to its longest row.

    Packed rows get `position_ids` instead of a mask; each padding token then is a document of its own.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[Any]) -> dict[str, Tensor]:
        """Return `input_ids`, `labels`, and `attention_mask` or `position_ids`, each `[batch, tokens]`."""
        width = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, filler: int) -> Tensor:
            return torch.tensor([[*row[name], *[filler] * (width - len(row[name]))] for row in rows])

        batch = {"input_ids": padded("input_ids", self.pad_id), "labels": padded("labels", IGNORED_LABEL)}
        if "position_ids" in rows[0]:
            return batch | {"position_ids": padded("position_ids", 0)}
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return batch | {"attention_mask": (torch.arange(width)[None] < lengths[:, None]).long()}


class StepOrder(Sampler[int]):
    """The rows of an epoch in the order of its steps: each takes rows at random, and puts those of a length together.

    Which rows a step takes follows from seed, epoch and the rows of a step alone, and not from what a machine holds at
    a time. So its gradient is that of rows at random (docs/decisions/0027-order-of-rows.md). Within a step the longest
    come first, so that its micro-batches pad little.
    """

    def __init__(self, lengths: Sequence[int], step_rows: int, seed: int) -> None:
        """`lengths`: tokens of each row; `step_rows`: of an optimizer step, over all processes."""
        self._lengths, self._step_rows, self._seed = lengths, step_rows, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rows = list(range(len(self._lengths)))
        random.Random(f"{self._seed}-{self._epoch}").shuffle(rows)
        for start in range(0, len(rows), self._step_rows):
            yield from sorted(rows[start : start + self._step_rows], key=lambda row: -self._lengths[row])
