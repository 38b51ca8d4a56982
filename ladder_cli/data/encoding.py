"""From examples to tokens, kept on disk: labels cover the completion and its end token, and nothing else."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.examples import Example, fingerprint
from ladder_cli.errors import UserError

IGNORED_LABEL = -100
Row = dict[str, list[int]]
# Below this many rows tokenising is over before a bar could be read.
_WORTH_A_BAR = 5_000
_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "counted_from": datasets.Value("int32"),
        "length": datasets.Value("int32"),
        "whole_length": datasets.Value("int32"),
        "too_long": datasets.Value("bool"),
        "kept": datasets.Value("bool"),
    }
)


class EncodedSet(torch.utils.data.Dataset):
    """Tokenised rows, read from disk as they are needed, and what happened to those that were too long.

    A row is a dict of `input_ids` and `labels`, unpadded.

    Attributes:
        lengths: tokens of each row.
        too_long: rows longer than the limit.
        dropped: how many of those were left out; the others were cut.
        longest: tokens of the longest row before cutting.
        kept: for each row, the number of its example.
    """

    def __init__(self, table: datasets.Dataset) -> None:
        """`table`: what `encode` made, rows that are to be dropped included."""
        whole = np.asarray(table["whole_length"])
        self.kept: list[int] = np.flatnonzero(np.asarray(table["kept"])).tolist()
        self._table = table.select(self.kept)
        self._counted_from = np.asarray(self._table["counted_from"])
        self.lengths: list[int] = self._table["length"][:]
        self.too_long = int(np.sum(np.asarray(table["too_long"])))
        self.dropped = len(whole) - len(self._table)
        self.longest = int(whole.max())

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Row:
        ids, counted_from = self._table[int(index)]["input_ids"], int(self._counted_from[index])
        return {"input_ids": ids, "labels": [IGNORED_LABEL] * counted_from + ids[counted_from:]}

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    @property
    def tokens(self) -> int:
        """Tokens in all rows."""
        return sum(self.lengths)

    @property
    def counted_tokens(self) -> int:
        """Tokens that count for the loss in all rows."""
        return self.tokens - int(self._counted_from.sum())


def encode(
    examples: list[Example],
    renderer: PromptRenderer,
    max_length: int,
    truncation: str,
    cache: Path | None = None,
    workers: int = 0,
) -> EncodedSet:
    """Tokenise examples and apply the truncation policy.

    Args:
        max_length: tokens of prompt and completion together.
        truncation: `drop` leaves a longer row out, `left` keeps its last tokens, `error` refuses it.
        cache: folder for tokenised rows; a second call with the same examples, rendering and policy reads them there.
        workers: processes; 0 leaves it to the tokenizer's own threads.

    Raises:
        UserError: if a row is too long under `error`, if nothing of a row is left to learn, or if no row is left.
    """
    parts = [
        fingerprint(examples),
        renderer.fingerprint,
        renderer.tokenizer_fingerprint,
        max_length,
        truncation,
        str(_FEATURES),
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    file = None
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        file = str(cache / f"{key}.arrow")
    names = ("id", "question", "completion")
    columns: dict[str, list[Any]] = {name: [getattr(example, name) for example in examples] for name in names}
    columns["messages"] = [json.dumps(example.messages) for example in examples]
    quiet = len(examples) < _WORTH_A_BAR
    if quiet:
        datasets.disable_progress_bars()
    try:
        table = datasets.Dataset.from_dict(columns).map(
            _encode_rows,
            batched=True,
            batch_size=1000,
            num_proc=workers or None,
            remove_columns=list(columns),
            fn_kwargs={"renderer": renderer, "max_length": max_length, "truncation": truncation},
            features=_FEATURES,
            keep_in_memory=file is None,
            cache_file_name=file,
            new_fingerprint=key,
            desc="tokenising",
        )
    finally:
        if quiet:
            datasets.enable_progress_bars()
    if not any(table["kept"]):
        raise UserError(
            f"none of the {len(examples)} rows fits data.max_length={max_length} (the longest has "
            f"{max(table['whole_length'])} tokens): raise it, or set data.truncation=left."
        )
    return EncodedSet(table)


def _encode_rows(
    batch: dict[str, list[Any]], renderer: PromptRenderer, max_length: int, truncation: str
) -> dict[str, list[Any]]:
    chats = [tuple((role, text) for role, text in json.loads(messages)) for messages in batch["messages"]]
    rendered = renderer.render_all(list(zip(batch["question"], batch["completion"], chats, strict=True)))
    made: dict[str, list[Any]] = {
        name: [] for name in ("input_ids", "counted_from", "length", "whole_length", "too_long", "kept")
    }
    for name, example in zip(batch["id"], rendered, strict=True):
        ids, counted_from, whole = example.ids, example.prompt_length, len(example.ids)
        too_long = whole > max_length
        if too_long and truncation == "error":
            raise UserError(
                f"row '{name}' has {whole} tokens, more than data.max_length={max_length}: raise it, or set "
                "data.truncation to drop or left."
            )
        if too_long:
            counted_from = max(0, counted_from - (whole - max_length))
            ids = [] if truncation == "drop" else ids[-max_length:]
        values = (ids, counted_from, len(ids), whole, too_long, bool(ids))
        for column, value in zip(made.values(), values, strict=True):
            column.append(value)
    return made
