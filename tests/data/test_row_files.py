"""Files of rows: every format gives the same rows, and what is broken is named by file and line or row."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.data.sources import read_file, read_mirror
from ladder_cli.errors import UserError

ROWS = [{"q": "What is 1 + 1?", "a": 'It is "2",\nof course.'}, {"q": "é\u2028漢", "a": "line\u0085end"}]


def as_csv(rows, delimiter=","):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows):
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def as_lines(rows, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


FORMATS = {
    "rows.jsonl": as_lines,
    "rows.txt": as_lines,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "array.jsonl": lambda rows: json.dumps(rows).encode(),
    "rows.csv": as_csv,
    "rows.tsv": lambda rows: as_csv(rows, "\t"),
    "rows.parquet": as_parquet,
    "crlf.jsonl": lambda rows: as_lines(rows, "\r\n"),
    "bom.jsonl": lambda rows: b"\xef\xbb\xbf" + as_lines(rows),
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows),
    "utf16.jsonl": lambda rows: as_lines(rows).decode().encode("utf-16"),
    "utf32.csv": lambda rows: as_csv(rows).decode().encode("utf-32"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name, packed):
    content = FORMATS[name](ROWS)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    assert read_file(path) == ROWS


def test_gzip_is_told_by_its_content(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(gzip.compress(as_lines(ROWS), mtime=0))
    assert read_file(tmp_path / "rows.jsonl") == ROWS
    (tmp_path / "rows.jsonl.gz").write_bytes(as_lines(ROWS))
    with pytest.raises(UserError, match=r"named \.gz and is not compressed"):
        read_file(tmp_path / "rows.jsonl.gz")


def test_a_field_longer_than_the_csv_module_takes_is_read(tmp_path):
    (tmp_path / "rows.csv").write_text("a\n" + "x" * 300_000 + "\n")
    assert read_file(tmp_path / "rows.csv") == [{"a": "x" * 300_000}]
    assert csv.field_size_limit() < 300_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.fixed_dictionaries({"q": st.text(min_size=1), "a": st.text(min_size=1)}), min_size=1, max_size=5))
def test_any_text_survives_as_json_lines_and_as_csv(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    valid = all("\x00" not in text for row in rows for text in row.values())
    for name in ("rows.jsonl", "rows.csv"):
        if name == "rows.jsonl" or valid:
            (folder / name).write_bytes(FORMATS[name](rows))
            assert read_file(folder / name) == rows


PAIR = b'{"a": "x"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.jsonl", PAIR + b'{"a": "\\ud83d"}', "line 2: holds half a character"),
        ("f.jsonl", PAIR + b'{"\\udc00": 1}', "line 2: holds half a character"),
        ("f.json", b'[{"a": "x"}, {"a": ["\\ud83d"]}]', "holds half a character"),
        ("f.jsonl", PAIR + b'{"a": ' + b"9" * 5000 + b"}", "line 2: holds a whole number of more than 4,300 digits"),
        ("f.jsonl", PAIR + b'{"a": 1, "a": 2}', "line 2: names 'a' twice"),
        ("f.jsonl", PAIR + b'{"a":' * 50_000, "line 2: not valid JSON .nested too deeply"),
        ("f.json", b"[" * 100_000, "not valid JSON .nested too deeply"),
        ("f.jsonl", PAIR + b"\x00\x00", "line 2: not valid JSON .it holds NUL bytes"),
        ("f.jsonl", PAIR.decode().encode("utf-16-le"), "line 1: not valid JSON .it holds NUL bytes"),
        ("f.jsonl", PAIR + b'{"a": "\xe9"}', "line 2: not valid UTF-8"),
        ("f.jsonl", b'\xff\xfe{\x00"', "not valid UTF-16"),
        ("f.json", b'[{"a": 1}, 7]', "row 2: a row must be a JSON object, not int"),
        ("f.json", b'[{"a": 1},\n{"a": }]', "not valid JSON .Expecting value at line 2"),
        ("f.json", b'{\n "a": 1\n}', "an object over several lines"),
        ("f.jsonl", b"q,a\n1,2\n", r"line 1: not valid JSON .*read are JSONL, a JSON array, \.csv"),
        ("f.csv", b"q,a\n1,2\n3\n", "row 2 .up to line 3.: has 1 fields, but the header has 2"),
        ("f.csv", b"q,a\n1,2,3\n", "row 1 .up to line 2.: has 3 fields, but the header has 2"),
        ("f.csv", b'q,a\n1,"2\n', "line 2: not valid CSV"),
        ("f.csv", b"q,a\n1,\x002\n", "holds NUL bytes .line 2"),
        ("f.csv", b"q,q\n1,2\n", "names column 'q' twice"),
        ("f.csv", b"q,\n1,2\n", "a column of the header has no name"),
        ("f.csv", b"q,a\n", "holds no rows"),
        ("f.csv", b"", "holds no rows"),
        ("f.json", b"[]", "holds no rows"),
        ("f.parquet", as_parquet(ROWS)[:-9], "cannot be read"),
        ("f.jsonl.gz", gzip.compress(PAIR, mtime=0)[:-4], "broken gzip file"),
        ("f.jsonl.gz", gzip.compress(b"", mtime=0), "holds no rows"),
    ],
)
def test_what_is_broken_is_named_by_line_or_row(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_file(tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_parquet_file_without_rows_is_said_to_hold_none(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], "string")}), tmp_path / "f.parquet")
    with pytest.raises(UserError, match="holds no rows"):
        read_file(tmp_path / "f.parquet")


def test_a_character_of_two_escapes_is_whole(tmp_path):
    (tmp_path / "f.jsonl").write_bytes(b'{"a": "\\ud83d\\ude00"}')
    assert read_file(tmp_path / "f.jsonl") == [{"a": "\U0001f600"}]


@pytest.mark.parametrize("suffix", ["jsonl.gz", "csv", "json", "parquet"])
def test_a_mirror_may_hold_any_format(tmp_path, suffix):
    (tmp_path / "own").mkdir()
    content = {"jsonl.gz": lambda rows: gzip.compress(as_lines(rows), mtime=0), "csv": as_csv, "parquet": as_parquet}
    content["json"] = FORMATS["rows.json"]
    (tmp_path / "own" / f"train.{suffix}").write_bytes(content[suffix](ROWS))
    assert read_mirror(tmp_path, "own", "train") == ROWS
    (tmp_path / "own" / "train.jsonl").write_bytes(PAIR)
    with pytest.raises(UserError, match="keep the one that counts"):
        read_mirror(tmp_path, "own", "train")
