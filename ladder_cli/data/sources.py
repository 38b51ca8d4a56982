"""Reads rows of a data set from the hub, or from a local mirror laid out as `DIR/<name>/<split>.jsonl`."""

from pathlib import Path

from ladder_cli import hub
from ladder_cli.config.validation import suggest
from ladder_cli.data.row_files import Row, read_file, read_jsonl
from ladder_cli.errors import NotReachable, UserError

__all__ = ["Row", "load_rows", "read_file", "read_jsonl", "read_mirror", "text_column"]
_SUFFIXES = tuple(f".{kind}{packed}" for kind in ("jsonl", "parquet", "json", "csv") for packed in ("", ".gz"))


def load_rows(name: str, split: str, hub_id: str | None, hub_config: str | None, data_dir: str | None) -> list[Row]:
    """Read all rows of one split.

    Args:
        name: the data set's name in `conf/`, which is also its folder in a mirror.
        split: split on the hub, file name in a mirror.
        hub_id, hub_config: repository and named subset on the hub.
        data_dir: the mirror; None reads from the hub.

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
    """Read `folder/<name>/<split>`, in any of the file formats that `read_file` knows.

    Raises:
        UserError: if there is no such file, if there are several, or if a row is broken.
    """
    if not folder.is_dir():
        raise UserError(f"data_dir={folder} is not a folder.")
    found = [file for suffix in _SUFFIXES if (file := folder / name / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        raise UserError(f"{folder / name} holds {' and '.join(file.name for file in found)}: keep the one that counts.")
    if found:
        return read_file(found[0])
    there = sorted({path.parent.name for path in folder.glob(f"*/{split}.*")})
    raise UserError(
        f"no data set '{name}' in data_dir={folder}: {folder / name / split}.jsonl is missing. "
        f"Sets with a split '{split}' there: {', '.join(there) or 'none'}."
    )


def text_column(row: Row, column: str, where: str) -> str:
    """Return the text in a column of a row, which must not be empty.

    Raises:
        UserError: if the column is missing, no text, or empty.
    """
    value = column_of(row, column, where)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: column '{column}' holds no text.")
    return value


def column_of(row: Row, column: str, where: str) -> object:
    """Return the value in a column of a row, of any type.

    Raises:
        UserError: if the column is missing; the message names the nearest one.
    """
    if column not in row:
        names = [str(name) for name in row]
        raise UserError(f"{where} has no column '{column}'; it has: {', '.join(names)}.{suggest(column, names)}")
    return row[column]
