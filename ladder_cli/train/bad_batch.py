"""Which rows a step was made of, kept so that a loss or gradient that is not finite can be traced to them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ladder_cli.data.passes import BLANK, blank_row
from ladder_cli.errors import RunFailed
from ladder_cli.run.directory import write_json

ROW = "row_number"


class NumberedRows(Dataset):
    """The same rows, each with its number."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.lengths: Sequence[int] = (
            rows.lengths if hasattr(rows, "lengths") else [len(row["input_ids"]) for row in rows]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == BLANK:
            return {**blank_row(self._rows[0]), ROW: BLANK}
        return {**self._rows[index], ROW: index}


def with_row_numbers(collate: Callable[[list[Any]], dict[str, Tensor]]) -> Callable[[list[Any]], dict[str, Tensor]]:
    """A collator that also hands on the numbers of rows that have one."""

    def numbered(rows: list[Any]) -> dict[str, Tensor]:
        batch = collate(rows)
        return batch | {ROW: torch.tensor([row[ROW] for row in rows])} if ROW in rows[0] else batch

    return numbered


class BadBatch:
    """The rows of the step at hand, and the end of a run that met a value that is not finite."""

    def __init__(self, path: Path | None, ids: Callable[[int], list[str]]) -> None:
        """`path`: where to write them; `ids`: of the examples in a numbered row."""
        self._path, self._ids = path, ids
        self._step, self._rows = -1, []  # type: tuple[int, list[int]]

    def seen(self, step: int, rows: list[int]) -> None:
        """Note a micro-batch of the step after `step`."""
        if step != self._step:
            self._step, self._rows = step, []
        self._rows.extend(row for row in rows if row != BLANK)

    def refuse(self, what: str, value: float, rows: list[int] | None = None) -> NoReturn:
        """Write the rows down and end the run.

        Args:
            rows: the micro-batch that is to blame; None: any of the step.

        Raises:
            RunFailed: always.
        """
        rows, step = self._rows if rows is None else rows, self._step + 1
        where = ""
        if self._path is not None:
            named = [{"row": row, "ids": self._ids(row)} for row in rows if row != BLANK]
            write_json(self._path, {"step": step, "what": what, "value": repr(value), "rows": named})
            where = f" The rows of its batch are in {self._path}."
        raise RunFailed(
            f"the {what} became {value} at step {step}; that step was not taken.{where} Lower train.learning_rate or "
            "raise train.warmup_ratio, and start again with resume=false."
        )
