"""Tokenises examples, cached on disk. Labels cover the assistant's words and end token, and nothing else."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
import torch

from ladder_cli.config.choices import Learn, Truncation
from ladder_cli.data.chat import Messages, PromptRenderer, RenderedExample
from ladder_cli.data.examples import Example, fingerprint
from ladder_cli.errors import UserError

IGNORED_LABEL = -100
Row = dict[str, list[int]]
# Below this many rows tokenising is over before a bar could be read.
_WORTH_A_BAR = 5_000
_VERSION = 2  # of what is made of a rendered row; cached rows of another are not read
_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "counted": datasets.List(datasets.Value("int32")),  # start, stop, start, stop ... of the tokens that count
        "length": datasets.Value("int32"),
        "whole_length": datasets.Value("int32"),
        "too_long": datasets.Value("bool"),
        "kept": datasets.Value("bool"),
    }
)


class EncodedSet(torch.utils.data.Dataset):
    """Tokenised rows, read from disk when needed, with a record of those that were too long.

    A row is a dict of `input_ids` and `labels`, unpadded. The rows of an example are side by side, and all or none of
    them are there.

    Attributes:
        rows_each: rows of an example.
        lengths: tokens of each row.
        too_long: examples with a row longer than the limit.
        dropped: how many of those were left out; the others were cut.
        longest: tokens of the longest row before cutting.
        largest_id: the largest token id of all rows.
        counted_tokens: tokens that count for the loss in all rows.
        kept: for each row, the number of its example.
    """

    def __init__(self, table: datasets.Dataset, rows_each: int = 1) -> None:
        """`table`: what `encode` made, rows that are to be dropped included."""
        self.rows_each = rows_each
        whole = np.asarray(table["whole_length"])
        kept = np.repeat(np.asarray(table["kept"]).reshape(-1, rows_each).all(1), rows_each)
        numbers = np.flatnonzero(kept)
        self._table = table.select(numbers.tolist())
        self.kept: list[int] = (numbers // rows_each).tolist()
        self.lengths: list[int] = self._table["length"][:]
        self.too_long = int(np.asarray(table["too_long"]).reshape(-1, rows_each).any(1).sum())
        self.dropped = (len(whole) - len(self._table)) // rows_each
        self.longest = int(whole.max())
        ids = pyarrow.compute.list_flatten(table.data.column("input_ids"))
        self.largest_id = int(pyarrow.compute.max(ids).as_py() or 0)
        bounds = pyarrow.compute.list_flatten(table.data.column("counted")).to_numpy()
        self.counted_tokens = int((bounds[1::2].astype(np.int64) - bounds[::2]).sum())

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Row:
        row = self._table[int(index)]
        ids, bounds = row["input_ids"], row["counted"]
        labels = [IGNORED_LABEL] * len(ids)
        for start, stop in zip(bounds[::2], bounds[1::2], strict=True):
            labels[start:stop] = ids[start:stop]
        return {"input_ids": ids, "labels": labels}

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    @property
    def examples(self) -> int:
        """Examples that the rows are of."""
        return len(self) // self.rows_each

    @property
    def tokens(self) -> int:
        """Tokens in all rows."""
        return sum(self.lengths)


def encode(
    examples: list[Example],
    renderer: PromptRenderer,
    max_length: int,
    truncation: Truncation,
    cache: Path | None = None,
    workers: int = 0,
    learn: Learn = Learn.LAST,
) -> EncodedSet:
    """Tokenise examples and apply the truncation policy.

    Args:
        examples: all preferences, or none.
        max_length: tokens of prompt and completion together.
        truncation: `drop` leaves a longer row out, `left` keeps its last tokens, `error` refuses it.
        cache: folder for tokenised rows; a second call with the same examples, rendering and policy reads them there.
        workers: processes; 0 leaves it to the tokenizer's own threads.
        learn: which of the assistant's turns of a chat count.

    Raises:
        UserError: if a row cannot be rendered, is too long under `error`, or if no row is left.
    """
    rows_each = len(examples[0].answers)
    examples = [answer for example in examples for answer in example.answers]
    parts = [
        fingerprint(examples),
        renderer.source_fingerprint,
        max_length,
        truncation,
        learn.value,
        str(_FEATURES),
        _VERSION,
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    file = None
    if cache is not None:
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
            fn_kwargs={"renderer": renderer, "max_length": max_length, "truncation": truncation, "learn": learn},
            features=_FEATURES,
            keep_in_memory=file is None,
            cache_file_name=file,
            new_fingerprint=key,
            desc="tokenising",
        )
    finally:
        if quiet:
            datasets.enable_progress_bars()
    encoded = EncodedSet(table, rows_each)
    if not len(encoded):
        raise UserError(
            f"none of the {len(examples) // rows_each} rows fits data.max_length={max_length} (the longest has "
            f"{encoded.longest} tokens): raise it, or set data.truncation=left."
        )
    return encoded


def writable_cache(folder: Path) -> tuple[Path | None, str]:
    """Return the folder if tokenised rows can be cached there, else None and a line that says why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder, ""
    except OSError as error:
        return None, (
            f"tokenised rows are not kept: {folder.absolute()} cannot be written ({error.strerror}); data.cache=false "
            "is this on purpose"
        )


def _dropped(name: str, ids: list[int], max_length: int) -> list[int]:
    return []


def _cut_left(name: str, ids: list[int], max_length: int) -> list[int]:
    return ids[-max_length:]


def _refused(name: str, ids: list[int], max_length: int) -> list[int]:
    raise UserError(
        f"row '{name}' has {len(ids)} tokens, more than data.max_length={max_length}: raise it, or set "
        "data.truncation to drop or left."
    )


_TRUNCATIONS: dict[Truncation, Callable[[str, list[int], int], list[int]]] = {
    Truncation.DROP: _dropped,
    Truncation.LEFT: _cut_left,
    Truncation.ERROR: _refused,
}


def _encode_rows(
    batch: dict[str, list[Any]], renderer: PromptRenderer, max_length: int, truncation: Truncation, learn: Learn
) -> dict[str, list[Any]]:
    chats = [tuple((role, text) for role, text in json.loads(messages)) for messages in batch["messages"]]
    examples = list(zip(batch["question"], batch["completion"], chats, strict=True))
    made: dict[str, list[Any]] = {name: [] for name in _FEATURES}
    for name, example in zip(batch["id"], _rendered(batch["id"], examples, renderer, learn), strict=True):
        ids, whole = example.ids, len(example.ids)
        too_long = whole > max_length
        cut = whole - max_length if too_long else 0
        if too_long:
            ids = _TRUNCATIONS[truncation](name, ids, max_length)
        # From 1: a first token has nothing before it to be predicted from, and no method could count it.
        spans = [(max(1, start - cut), stop - cut) for start, stop in example.spans]
        counted = [bound for start, stop in spans if ids and stop > start for bound in (start, stop)]
        values = (ids, counted, len(ids), whole, too_long, bool(ids))
        for column, value in zip(made.values(), values, strict=True):
            column.append(value)
    return made


def _rendered(
    names: list[str], examples: list[tuple[str, str, Messages]], renderer: PromptRenderer, learn: Learn
) -> list[RenderedExample]:
    """Render all rows at once; if that fails, one by one, to name the faulty row."""
    try:
        return renderer.render_all(examples, learn)
    except UserError:
        for name, example in zip(names, examples, strict=True):
            try:
                renderer.render(*example, learn)
            except UserError as error:
                raise UserError(f"row '{name}': {error}") from error
        raise
