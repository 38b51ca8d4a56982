"""Which rows a step was made of, so that a loss or gradient that is not finite can be traced to them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ladder_cli.errors import RunFailed
from ladder_cli.run.directory import write_json
from ladder_cli.trunk.base import BLANK


class BadBatch:
    """The rows of the step at hand, and the end of a run that met a value that is not finite."""

    def __init__(self, path: Path | None, ids: Callable[[int], list[str]]) -> None:
        """`path`: where to write them; `ids`: of the examples in a numbered row."""
        self._path, self._ids = path, ids
        self._step, self._rows = -1, []  # type: tuple[int, list[int]]

    def seen(self, step: int, rows: Sequence[int]) -> None:
        """Note a micro-batch of the step after `step`."""
        if step != self._step:
            self._step, self._rows = step, []
        self._rows.extend(row for row in rows if row != BLANK)

    def refuse(self, what: str, value: float, rows: Sequence[int] | None = None) -> NoReturn:
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
