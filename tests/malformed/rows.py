"""Files of rows, completions and samples that are broken, cut, foreign or hostile."""

import gzip
import io
import json
from pathlib import Path

from tests.malformed import Case

_GOOD = json.dumps({"id": "1", "q": "Compute 1+1.", "a": "1+1=2", "gold": "2", "completion": "\\boxed{2}"}).encode()
_TWO = _GOOD + b"\n" + _GOOD.replace(b"1+1", b"2+2")
_DEEP = b"[" * 100_000


def _parquet_without_rows() -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    sink = io.BytesIO()
    write_table(pyarrow.table({"q": pyarrow.array([], "string"), "a": pyarrow.array([], "string")}), sink)
    return sink.getvalue()


_NO_ROWS = _parquet_without_rows()
# Whole files that hold no rows, whatever columns are asked for.
_FILES = {
    "empty": b"",
    "blank lines": b"\n\n \n",
    "null bytes": b"\x00" * 64,
    "not utf-8": b'{"q": "\xff\xfe"}',
    "utf-16": _GOOD.decode().encode("utf-16"),
    "half a row": _GOOD[:20],
    "whole row, then half": _GOOD + b"\n" + _GOOD[:30],
    "a list": b"[1, 2, 3]",
    "a number": b"7",
    "a string": b'"row"',
    "null": b"null",
    "NaN": b"NaN",
    "two rows on a line": _GOOD + _GOOD,
    "csv": b"q,a\n1,2\n",
    "python dict": b"{'q': 'x', 'a': 'y'}",
    "trailing comma": b'{"q": "x",}',
    "deep nesting": _DEEP,
    "deep object": b'{"a":' * 50_000,
    "zip": b"PK\x03\x04" + b"\x00" * 60,
    "half a character": _GOOD.replace(b"Compute", b"\\ud83d"),
    "a name twice": b'{"q": "x", "q": "y", "a": "z"}',
    "an object over several lines": b'{\n"q": "x",\n"a": "y"\n}',
    "an array with a number": b'[{"q": "x", "a": "y"}, 7]',
    "an empty array": b"[]",
    "utf-16 without a mark": _GOOD.decode().encode("utf-16-le"),
    "half of a utf-16 character": b'\xff\xfe{\x00"',
    "half of a gzip file": gzip.compress(_GOOD, mtime=0)[:-6],
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.",
    "huge integer": b'{"q": ' + b"9" * 5000 + b"}",
}
_ROWS: dict[str, dict] = {
    "no question": {"a": "x"},
    "no answer": {"q": "x"},
    "null question": {"q": None, "a": "x"},
    "null answer": {"q": "x", "a": None},
    "number as question": {"q": 7, "a": "x"},
    "list as answer": {"q": "x", "a": ["x"]},
    "object as answer": {"q": "x", "a": {"x": 1}},
    "empty answer": {"q": "x", "a": ""},
    "blank answer": {"q": "x", "a": " \n\t"},
    "empty row": {},
}
_CHATS: dict[str, object] = {
    "no list": "hello",
    "empty list": [],
    "texts": ["hello", "you"],
    "no role": [{"content": "x"}],
    "unknown role": [{"role": "root", "content": "x"}, {"role": "assistant", "content": "y"}],
    "number as content": [{"role": "user", "content": 5}, {"role": "assistant", "content": "y"}],
    "ends with the user": [{"role": "user", "content": "x"}],
    "assistant alone": [{"role": "assistant", "content": "x"}],
    "empty reply": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}],
    "tool calls": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]},
    ],
    "an image": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "y"}],
    "two parts": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 2}],
    "unknown speaker": [{"from": "bot", "value": "x"}, {"from": "gpt", "value": "y"}],
    "two ways to say who": [{"from": "human", "role": "system", "value": "x"}, {"from": "gpt", "value": "y"}],
    "an empty turn of the assistant": [
        {"role": role, "content": text}
        for role, text in (("user", "x"), ("assistant", ""), ("user", "x"), ("assistant", "y"))
    ],
}
_CSV = {
    "a field too few": b"q,a\n1,2\n3\n",
    "a field too many": b"q,a\n1,2,3\n",
    "an open quote": b'q,a\n1,"2\n',
    "null bytes": b"q,a\n1,\x002\n",
    "a column twice": b"q,a,a\n1,2,3\n",
    "a column without a name": b"q,a,\n1,2,3\n",
    "no rows": b"q,a\n",
    "semicolons": b"q;a\n1;2\n3;4\n",
    "one column": b"q\n1\n2\n",
    "not utf-8": b"q,a\n1,\xe9\n",
}
_TEMPLATES = {
    "an attribute": "{q.__class__}",
    "an index": "{q[0]}",
    "a format": "{q:>10}",
    "a conversion": "{q!r}",
    "an open brace": "{q",
    "no name": "{}",
    "no column": "{{q}}",
    "a misspelt column": "{qq}",
    "a misspelt optional column": "{q} {qq?}",
}
_COMPLETIONS: dict[str, list[dict]] = {
    "no completion": [{"id": 1, "gold": "2"}],
    "completion is a number": [{"id": 1, "gold": "2", "completion": 7}],
    "completion is null": [{"id": 1, "gold": "2", "completion": None}],
    "no gold": [{"id": 1, "completion": "x"}],
    "blank gold": [{"id": 1, "gold": " ", "completion": "x"}],
    "an id with two golds": [{"id": 1, "gold": "2", "completion": "x"}, {"id": "1", "gold": "3", "completion": "y"}],
}
_SAMPLES = {
    "a list": b"[]\n",
    "a number": b"3\n",
    "not JSON": b"sample\n",
    "no id": b'{"verdict": "correct"}\n',
    "id alone": b'{"id": "1"}\n',
    "list as id": b'{"id": [1], "verdict": "correct"}\n',
    "null bytes": b"\x00\x00\x00\n",
    "not utf-8": b'{"id": "\xff"}\n',
    "deep nesting": _DEEP + b"\n",
}


def _training(name: str, content: bytes, suffix: str = "jsonl", columns: tuple[str, ...] = ()) -> Case:
    def arguments(folder: Path, runs: Path) -> list[str]:
        file = folder / f"rows.{suffix}"
        file.write_bytes(content)
        asked = columns or ("data.prompt=q", "data.completion=a")
        return ["data=jsonl", f"data.path={file}", *asked, "dry_run=true", f"output_dir={folder / 'out'}"]

    return Case(f"rows, {name}", "train", arguments)


def _mirror(name: str, content: bytes) -> Case:
    def arguments(folder: Path, runs: Path) -> list[str]:
        (folder / "math500").mkdir()
        (folder / "math500" / "test.jsonl").write_bytes(content)
        return ["benchmarks=[math500]", f"data_dir={folder}", f"output_dir={folder / 'out'}"]

    return Case(f"mirror, {name}", "evaluate", arguments)


def _graded(name: str, content: bytes, samples: bytes | None = None) -> Case:
    def arguments(folder: Path, runs: Path) -> list[str]:
        file = folder / "answers.jsonl"
        file.write_bytes(content)
        if samples is not None:
            (folder / "out").mkdir()
            (folder / "out" / "samples.jsonl").write_bytes(samples)
        return [f"completions={file}", f"output_dir={folder / 'out'}"]

    return Case(f"{'completions' if samples is None else 'samples'}, {name}", "evaluate", arguments)


CASES = [
    *(_training(name, content) for name, content in _FILES.items()),
    _training("one row alone", _GOOD),
    *(_training(name, _GOOD + b"\n" + json.dumps(row).encode()) for name, row in _ROWS.items()),
    *(
        _training(f"chat, {name}", json.dumps({"m": chat}).encode(), columns=("data.messages=m",))
        for name, chat in _CHATS.items()
    ),
    *(_training(f"csv, {name}", content, "csv") for name, content in _CSV.items()),
    *(
        _training(f"prompt with {name}", _TWO, columns=(f"data.prompt='{template}'", "data.completion=a"))
        for name, template in _TEMPLATES.items()
    ),
    _training("all the same", b"\n".join([_GOOD] * 9)),
    _training("chats and pairs", _TWO, columns=("data.prompt=q", "data.messages=m")),
    _training("an end token alone", _TWO.replace(b'"1+1=2"', b'"<|end|>"')),
    _training("no such day", _TWO, columns=("data.prompt=q", "data.completion=a", "data.date=yesterday")),
    _training("parquet, no rows", _NO_ROWS, "parquet"),
    _training("gz that is none", _GOOD, "jsonl.gz"),
    *(_training(f"parquet, {name}", _FILES[name], "parquet") for name in ("empty", "null bytes", "zip", "csv")),
    *(_mirror(name, _FILES[name]) for name in ("empty", "half a row", "a list", "deep nesting", "pickle")),
    _mirror("other rows", _GOOD),
    *(_graded(name, _FILES[name]) for name in ("empty", "not utf-8", "a number", "deep nesting", "pickle", "csv")),
    *(_graded(name, "\n".join(map(json.dumps, rows)).encode()) for name, rows in _COMPLETIONS.items()),
    *(_graded(name, _GOOD, samples) for name, samples in _SAMPLES.items()),
]
