"""From examples to padded batches whose labels cover the completion and its end token, and nothing else."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.examples import Example
from ladder_cli.errors import UserError

IGNORED_LABEL = -100


@dataclass(frozen=True)
class EncodedSet:
    """Tokenised rows, and what happened to those that were too long.

    Attributes:
        rows: `input_ids` and `labels` of each row, unpadded.
        too_long: rows longer than the limit.
        dropped: how many of those were left out; the others were cut.
        longest: tokens of the longest row before cutting.
    """

    rows: list[dict[str, list[int]]]
    too_long: int
    dropped: int
    longest: int

    @property
    def tokens(self) -> int:
        """Tokens in all rows."""
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def counted_tokens(self) -> int:
        """Tokens that count for the loss in all rows."""
        return sum(label != IGNORED_LABEL for row in self.rows for label in row["labels"])


def encode(examples: list[Example], renderer: PromptRenderer, max_length: int, truncation: str) -> EncodedSet:
    """Tokenise examples and apply the truncation policy.

    Args:
        max_length: tokens of prompt and completion together.
        truncation: `drop` leaves a longer row out, `left` keeps its last tokens, `error` refuses it.

    Raises:
        UserError: if a row is too long under `error`, or if nothing is left.
    """
    rows, too_long, dropped, longest = [], 0, 0, 0
    for example in examples:
        rendered = renderer.render(example.question, example.completion)
        ids, counted_from = rendered.ids, rendered.prompt_length
        longest = max(longest, len(ids))
        if len(ids) > max_length:
            too_long += 1
            if truncation == "error":
                raise UserError(
                    f"row '{example.id}' has {len(ids)} tokens, more than data.max_length={max_length}: raise it, or "
                    "set data.truncation to drop or left."
                )
            if truncation == "drop":
                dropped += 1
                continue
            counted_from = max(0, counted_from - (len(ids) - max_length))
            ids = ids[-max_length:]
        rows.append({"input_ids": ids, "labels": [IGNORED_LABEL] * counted_from + ids[counted_from:]})
    if not rows:
        raise UserError(
            f"none of the {len(examples)} rows fits data.max_length={max_length} (the longest has {longest} tokens): "
            "raise it, or set data.truncation=left."
        )
    return EncodedSet(rows, too_long, dropped, longest)


class PaddingCollator:
    """Pads a batch on the right to its longest row."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels`, each `[batch, tokens]`."""
        width = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, filler: int) -> Tensor:
            return torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in rows])

        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return {
            "input_ids": padded("input_ids", self.pad_id),
            "attention_mask": (torch.arange(width)[None] < lengths[:, None]).long(),
            "labels": padded("labels", IGNORED_LABEL),
        }


class LengthGroupedSampler(Sampler[int]):
    """An order in which neighbours have similar lengths, so that little is padded, yet batches come in random order.

    Rows are shuffled, sorted by length within pools of many batches, cut into batches, and the batches shuffled. (A
    pool that is walked from long to short, as Transformers does it, is a curriculum: the loss swings with it.) The
    order depends on seed and epoch alone.
    """

    POOL_BATCHES = 50

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        """`lengths`: tokens of each row."""
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the trainer calls it before each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}-{self._epoch}")
        rows = list(range(len(self._lengths)))
        rng.shuffle(rows)
        pool = self._batch_size * self.POOL_BATCHES
        batches: list[list[int]] = []
        for start in range(0, len(rows), pool):
            ordered = sorted(rows[start : start + pool], key=lambda row: -self._lengths[row])
            batches += [ordered[at : at + self._batch_size] for at in range(0, len(ordered), self._batch_size)]
        # The one batch that may be short comes last: anywhere else it would shift all that follow it.
        short = batches.pop() if len(batches[-1]) < self._batch_size else []
        rng.shuffle(batches)
        for batch in [*batches, short]:
            yield from batch
