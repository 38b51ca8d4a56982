"""Reads files of rows: JSON lines, a JSON array, CSV (also by tabs) or parquet, each also compressed by gzip.

The format is recognised by the content (gzip, parquet, UTF-16, an array or lines); only CSV is recognised by the name.
Every error is one line that names the file and the line or row.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ladder_cli.errors import UserError

Row = dict[str, Any]
_READ = "read are JSONL, a JSON array, .csv, .tsv and .parquet, each also as .gz"
# The longer mark first: that of UTF-32 begins with that of UTF-16.
_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_file(path: Path) -> list[Row]:
    """Read the rows of a file in any of the formats above.

    Raises:
        UserError: if the file is missing or broken, or holds no rows; the line names file, line or row, and reason.
    """
    content = _bytes(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if content.startswith(b"PAR1") or suffix == ".parquet":
        rows = _parquet(path, content)
    elif suffix in _DELIMITERS:
        rows = _csv(path, _text(path, content), _DELIMITERS[suffix])
    else:
        text = _text(path, content)
        rows = _json_array(path, text) if text.lstrip()[:1] == "[" else _json_lines(path, text)
    if not rows:
        raise UserError(f"{path} holds no rows.")
    return rows


def read_jsonl(path: Path) -> list[Row]:
    """Read a JSONL file, one JSON object a line; empty lines are skipped.

    Raises:
        UserError: with file and line, if a line is no JSON object; or if the file holds no row at all.
    """
    rows = _json_lines(path, _text(path, _bytes(path)))
    if not rows:
        raise UserError(f"{path} holds no rows.")
    return rows


def _bytes(path: Path) -> bytes:
    """Read the file, decompressed if it is gzip."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if not content.startswith(b"\x1f\x8b"):
        if path.suffix == ".gz":
            raise UserError(f"{path} is named .gz and is not compressed by gzip: rename or compress it.")
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a broken gzip file ({_reason(error)}): it may be cut; copy it again.") from error


def _text(path: Path, content: bytes) -> str:
    """Decode the file as UTF-8, or by its byte order mark."""
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        if content.startswith(b"PK"):
            _refuse(path, "is a zip archive", f"unpack it; {_READ}")
        name = encoding.removesuffix("-sig").upper()
        raise UserError(
            f"{path}, line {line}: not valid {name} ({error.reason}): save the file as UTF-8 (iconv -f latin1 -t "
            f"utf-8, if that is what it is); {_READ}."
        ) from error


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    # Not splitlines: U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(_row(_parse(line, f"{path}, line {number}"), f"{path}, line {number}"))
    return rows


def _json_array(path: Path, text: str) -> list[Row]:
    """Read an array of objects. A file of lines that begins with a list is refused: its first row is no object."""
    try:
        values = _parse(text, str(path))
    except UserError:
        first = text.lstrip().split("\n", 1)[0]
        if first.rstrip().endswith("]"):
            return _json_lines(path, text)
        raise
    return [_row(value, f"{path}, row {number}") for number, value in enumerate(values, start=1)]


def _parse(text: str, where: str) -> Any:
    """JSON, without what Python would pass over: names given twice, and text that is none."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f" at line {error.lineno}, column {error.colno}" if error.lineno > 1 else ""
        if "\x00" in text:
            reason, advice = "it holds NUL bytes", "the file is cut, binary, or UTF-16 without a byte order mark"
        elif text.strip() == "{":
            reason, advice = "an object over several lines", "write one object a line, or all of them as an array"
        else:
            reason, advice = f"{error.msg}{place}", f"mend or delete it; {_READ}"
        raise UserError(f"{where}: not valid JSON ({reason}): {advice}.") from error
    except RecursionError as error:
        raise UserError(f"{where}: not valid JSON (nested too deeply): mend or delete it.") from error
    except _Twice as error:
        raise UserError(f"{where}: names '{error}' twice in one object: which one counts? Leave one out.") from error
    except ValueError as error:  # Python's limit of digits
        limit = sys.get_int_max_str_digits()
        raise UserError(
            f"{where}: holds a whole number of more than {limit:,} digits: write it as text, in quotes."
        ) from error
    # `\ud83d` without its other half is valid JSON and no text: no file, tokenizer or console takes it.
    if "\\u" in text and _has_lone_surrogate(value):
        raise UserError(f"{where}: holds half a character (a lone surrogate, \\ud800 to \\udfff): mend or delete it.")
    return value


class _Twice(Exception):
    """A name that stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return row


def _has_lone_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(_has_lone_surrogate(part) for item in value.items() for part in item)
    return isinstance(value, list) and any(map(_has_lone_surrogate, value))


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a row must be a JSON object, not {type(value).__name__}.")
    return value


def _csv(path: Path, text: str, delimiter: str) -> list[Row]:
    """A table with a header; every row has as many fields."""
    records = _records(path, text, delimiter)
    header = next(records, (0, []))[1]
    for column in header:
        if not column.strip():
            raise UserError(f"{path}: a column of the header has no name: {', '.join(header)}.")
        if header.count(column) > 1:
            raise UserError(f"{path}: the header names column '{column}' twice: rename one.")
    rows = []
    for number, (line, record) in enumerate(records, start=1):
        if len(record) != len(header):
            raise UserError(
                f"{path}, row {number} (up to line {line}): has {len(record)} fields, but the header has "
                f"{len(header)}: quote values that hold a comma, a quote or a line break."
            )
        rows.append(dict(zip(header, record, strict=True)))
    return rows


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(last line, fields) of each record that is not blank."""
    if "\x00" in text:
        line = text[: text.index("\x00")].count("\n") + 1
        _refuse(path, f"holds NUL bytes (line {line})", "the file is cut, binary, or UTF-16 without a byte order mark")
    before = csv.field_size_limit(sys.maxsize)  # reasoning traces are longer than the module's limit
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if record:
                yield reader.line_num, record
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV ({error}): mend the quotes.") from error
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, content: bytes) -> list[Row]:
    import pyarrow
    from pyarrow.parquet import read_table

    try:
        table = read_table(pyarrow.BufferReader(content))
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        if twice:
            raise UserError(f"{path}: column '{twice[0]}' is there twice: rename one.")
        return list(table.to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise UserError(f"{path} cannot be read: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _refuse(path: Path, what: str, advice: str) -> NoReturn:
    raise UserError(f"{path} {what}: {advice}.")
