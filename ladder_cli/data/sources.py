"""Rows of a data set, from the hub or from a local mirror laid out `DIR/<name>/<split>.jsonl`."""

import json
from pathlib import Path
from typing import Any

from ladder_cli import hub
from ladder_cli.errors import NotReachable, UserError

Row = dict[str, Any]


def load_rows(name: str, split: str, hub_id: str | None, hub_config: str | None, data_dir: str | None) -> list[Row]:
    """All rows of one split.

    Args:
        name: the data set's name in `conf/`, which is also its folder in a mirror.
        split: split on the hub, file name in a mirror.
        hub_id, hub_config: repository and named subset on the hub.
        data_dir: the mirror; None takes the hub.

    Raises:
        UserError: if the set is not in the mirror, or a row is broken (with file and line); `NotReachable` if there
            is no mirror and the hub does not answer or does not have it.
    """
    if data_dir is not None:
        return read_mirror(Path(data_dir).expanduser(), name, split)
    if hub_id is None:
        raise NotReachable(f"data set '{name}' has no home on the hub: give a local mirror as data_dir=DIR.")
    hub.settle_offline()
    from datasets import load_dataset

    try:
        return list(load_dataset(hub_id, hub_config, split=split))
    except Exception as error:  # datasets raises whatever its many backends raise
        if hub.offline():
            raise NotReachable(hub.missing_set(name, hub_id, split)) from error
        reason = " ".join(str(error).split())[:200]
        raise NotReachable(f"cannot load '{hub_id}' (split {split}) from the hub: {reason}.") from error


def read_mirror(folder: Path, name: str, split: str) -> list[Row]:
    """Rows of `folder/<name>/<split>.jsonl` or `.parquet`.

    Raises:
        UserError: if neither file exists, or a row is broken.
    """
    if not folder.is_dir():
        raise UserError(f"data_dir={folder} is not a folder.")
    jsonl = folder / name / f"{split}.jsonl"
    if jsonl.is_file():
        return read_jsonl(jsonl)
    parquet = jsonl.with_suffix(".parquet")
    if parquet.is_file():
        return read_file(parquet)
    there = sorted(path.parent.name for path in folder.glob(f"*/{split}.*"))
    raise UserError(
        f"no data set '{name}' in data_dir={folder}: {jsonl} is missing. "
        f"Sets with a split '{split}' there: {', '.join(there) or 'none'}."
    )


def read_file(path: Path) -> list[Row]:
    """Rows of a `.parquet` file, or of any other as JSONL.

    Raises:
        UserError: if the file is missing or broken.
    """
    if path.suffix != ".parquet":
        return read_jsonl(path)
    import pyarrow
    from pyarrow.parquet import read_table

    try:
        return read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}.") from error


def read_jsonl(path: Path) -> list[Row]:
    """Rows of a JSONL file, one JSON object a line; empty lines are skipped.

    Raises:
        UserError: with file and line, if a line is no JSON object; or if the file holds no row at all.
    """
    rows: list[Row] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:
                    reason = getattr(error, "msg", None) or "not UTF-8"
                    raise UserError(f"{path}, line {number}: not valid JSON ({reason}): mend or delete it.") from error
                if not isinstance(row, dict):
                    raise UserError(f"{path}, line {number}: a row must be a JSON object, not {type(row).__name__}.")
                rows.append(row)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if not rows:
        raise UserError(f"{path} holds no rows.")
    return rows


def text_column(row: Row, column: str, where: str) -> str:
    """A non-empty text value of a row.

    Raises:
        UserError: if the column is missing, no text, or empty.
    """
    if column not in row:
        raise UserError(f"{where} has no column '{column}'; it has: {', '.join(map(str, row))}.")
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: column '{column}' holds no text.")
    return value
