import json

import pytest

from ladder_cli.data.examples import Example, hold_out
from ladder_cli.data.registry import load_examples
from ladder_cli.data.sources import load_rows, read_jsonl
from ladder_cli.errors import UserError
from tests.data.sets import described


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_mirror_gives_its_rows_and_skips_empty_lines(tmp_path):
    write(tmp_path / "s1k" / "train.jsonl", [{"a": 1}, "", {"a": 2}])
    assert load_rows("s1k", "train", None, None, str(tmp_path)) == [{"a": 1}, {"a": 2}]


def test_a_parquet_mirror_gives_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "s1k").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2]}), tmp_path / "s1k" / "train.parquet")
    assert load_rows("s1k", "train", None, None, str(tmp_path)) == [{"a": 1}, {"a": 2}]


def test_a_missing_set_names_those_that_are_there(tmp_path):
    write(tmp_path / "gsm8k" / "train.jsonl", [{"a": 1}])
    with pytest.raises(UserError, match="Sets with a split 'train' there: gsm8k"):
        load_rows("s1k", "train", None, None, str(tmp_path))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"a": 1}', '{"a": '], "line 2: not valid JSON"),
        (['{"a": 1}', "", "[1, 2]"], "line 3: a row must be a JSON object, not list"),
        (["", ""], "holds no rows"),
    ],
)
def test_a_broken_line_is_named(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read_jsonl(write(tmp_path / "rows.jsonl", lines))


def test_bytes_that_are_no_text_are_named_by_line(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n\xff\xfe\n')
    with pytest.raises(UserError, match="line 2: not valid UTF-8"):
        read_jsonl(tmp_path / "rows.jsonl")


def test_the_hub_is_named_where_it_cannot_be_reached():
    with pytest.raises(UserError, match=r"'nobody/nothing'.* is not in the cache of this machine.*data_dir=DIR"):
        load_rows("s1k", "train", "nobody/nothing", None, None)


ROW = {"question": "Q?", "solution": "S", "deepseek_attempt": "A", "deepseek_thinking_trajectory": "T"}


@pytest.mark.parametrize(("target", "completion"), [("solution", "S"), ("attempt", "A"), ("trace", "T\n\nA")])
def test_s1k_takes_the_completion_that_the_target_names(tmp_path, target, completion):
    write(tmp_path / "s1k" / "train.jsonl", [ROW, {**ROW, "question": "R?"}])
    splits = load_examples(described("s1k", target=target), str(tmp_path), seed=0)
    assert splits.train[0].completion == completion


def test_an_unknown_target_names_those_that_there_are():
    with pytest.raises(UserError, match=r"data.target=traces is not a choice. Did you mean 'trace'"):
        described("s1k", target="traces")


def test_a_missing_column_names_the_row_and_what_is_there(tmp_path):
    write(tmp_path / "s1k" / "train.jsonl", [{"question": "Q?", "answer": "A"}])
    with pytest.raises(UserError, match="s1k, row 1 has no column 'solution'; it has: question, answer"):
        load_examples(described("s1k"), str(tmp_path), seed=0)


def test_held_out_questions_are_never_trained_on_and_subsets_nest():
    examples = [Example(str(n), f"question {n % 90}", "c") for n in range(100)]
    small, large = hold_out(examples, 20, 30), hold_out(examples, 20, 60)
    assert small.validation == large.validation
    assert small.train == large.train[:30]
    assert not {e.question for e in large.train} & {e.question for e in large.validation}
    assert len(small.train) == 30


def test_the_fingerprint_follows_the_rows():
    examples = [Example(str(n), f"question {n}", "c") for n in range(10)]
    changed = [*examples[:-1], Example("9", "question 9", "d")]
    assert hold_out(examples, 2, None).fingerprint == hold_out(examples, 2, None).fingerprint
    assert hold_out(examples, 2, None).fingerprint != hold_out(changed, 2, None).fingerprint


def test_shared_s1k_has_a_thousand_rows_with_solutions(shared):
    splits = load_examples(described("s1k", validation_samples=50), str(shared / "data"), seed=0)
    assert len(splits.train) + len(splits.validation) == 1000
    with pytest.raises(UserError, match="deepseek_attempt"):
        load_examples(described("s1k", target="attempt"), str(shared / "data"), seed=0)
