"""What a set is follows from its description, never from its name; and each format reads what it says it reads."""

import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from ladder_cli.config.choices import RowFormat
from ladder_cli.config.schema import DataConfig
from ladder_cli.data.arithmetic import LARGEST_SET
from ladder_cli.data.benchmarks import benchmark_config, load_problems
from ladder_cli.data.formats import fields_read, format_of, refuse_unread
from ladder_cli.data.registry import LOADERS, load_examples
from ladder_cli.errors import UserError
from tests.data.sets import described
from tests.data.test_sets import mirror, own_file

PAIRS = [{"q": f"{n}?", "a": "Yes.", "group": n} for n in range(8)]
CHATS = [{"m": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]} for n in range(8)]


def sets(tmp_path):
    """A set of every format, and where its rows lie."""
    path = own_file(tmp_path, PAIRS)
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, CHATS)))
    folder = mirror(tmp_path, "cola", [{"sentence": f"Sentence {n}.", "label": n % 2} for n in range(8)])
    mirror(tmp_path, "critic", [{"question": f"{n}?", "completion": "Yes.", "label": n % 2} for n in range(8)])
    mirror(tmp_path, "s1k", [{"question": f"{n}?", "solution": "Yes."} for n in range(8)])
    return {
        "own pairs": (described("jsonl", path=path, prompt="q", completion="a"), None),
        "own chats": (described("jsonl", path=str(tmp_path / "chats.jsonl"), messages="m"), None),
        "labels": (described("cola"), folder),
        "labels in groups": (described("critic"), folder),
        "targets": (described("s1k"), folder),
        "generated": (described("arithmetic", train_samples=8), None),
    }


NAMES = ["own pairs", "own chats", "labels", "labels in groups", "targets", "generated"]


@pytest.mark.parametrize("name", NAMES)
def test_a_format_reads_no_field_but_those_it_declares(tmp_path, name, monkeypatch):
    data, folder = sets(tmp_path)[name]
    asked = set()
    plain = object.__getattribute__

    def recorded(self, field):
        asked.add(field)
        return plain(self, field)

    declared = fields_read(data)
    monkeypatch.setattr(DataConfig, "__getattribute__", recorded)
    load_examples(data, folder, 0)
    monkeypatch.undo()
    asked &= {field.name for field in fields(DataConfig)}
    # Which format it is, and which of two sources, has to be asked of fields that the other one reads.
    assert asked - declared <= {"messages", "prompt", "completion", "path", "hub_id", "targets"}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_set_decides_nothing(tmp_path, name):
    data, folder = sets(tmp_path)[name]
    expected = load_examples(data, folder, 0)
    if folder is not None:
        (tmp_path / "mine").symlink_to(tmp_path / data.name)
    mine = load_examples(replace(data, name="mine"), folder, 0)
    assert (mine.train, mine.validation) == (expected.train, expected.validation)


def test_every_format_has_a_loader():
    assert set(LOADERS) == set(RowFormat)


@pytest.mark.parametrize(
    ("name", "values", "given", "message"),
    [
        (
            "arithmetic",
            {},
            "path",
            "does not read data.path: its rows come from this package; .* data=jsonl data.path=",
        ),
        ("s1k", {}, "path", "its rows come from simplescaling/s1K-1.1; a file of your own is data=jsonl"),
        ("s1k", {}, "completion", "data=s1k .format pairs. does not read data.completion"),
        ("arithmetic", {}, "messages", "rows of format chat read it"),
        (
            "jsonl",
            {"path": "f", "messages": "m"},
            "instruction",
            "rows of format generated and pairs and label and preference read",
        ),
        ("jsonl", {"path": "f", "prompt": "q", "completion": "a"}, "learn", "rows of format chat read it"),
        ("jsonl", {"path": "f", "prompt": "q", "completion": "a"}, "split", "does not read data.split"),
        ("cola", {}, "completion", "rows of format pairs read it"),
    ],
)
def test_a_field_that_is_not_read_is_refused_with_what_reads_it(name, values, given, message):
    data = described(name, **values)
    assert given not in fields_read(data)
    with pytest.raises(UserError, match=message):
        refuse_unread(data, ["max_length", given])


def test_what_is_read_may_be_given():
    refuse_unread(described("jsonl", path="f", prompt="q", completion="a"), ["path", "prompt", "completion", "date"])
    refuse_unread(described("s1k"), ["target", "hub_id", "train_samples", "instruction"])
    refuse_unread(described("critic"), ["path", "group", "labels"])


def test_columns_of_chats_and_of_pairs_together_are_refused():
    with pytest.raises(UserError, match=r"data\.messages names a column of chats, and data\.prompt that of pairs"):
        format_of(described("jsonl", path="f", prompt="q", messages="m"))


def test_which_fields_are_read_is_known_without_torch():
    code = (
        "import sys; from ladder_cli.config.schema import DataConfig; from ladder_cli.data.formats import fields_read; "
        "fields_read(DataConfig(name='x', instruction='')); "
        "sys.exit(str({'torch', 'transformers', 'datasets'} & set(sys.modules)) if 'torch' in sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


@pytest.mark.parametrize("name", ["cola", "critic"])
def test_the_benchmark_asks_as_training_does(tmp_path, name):
    row = {"sentence": "Fine.", "question": "1+1?", "completion": "2", "label": 1}
    split = benchmark_config(name).split
    folder = mirror(tmp_path, name, [row, row])
    mirror(tmp_path, name, [row, row], split)
    (problem, _) = load_problems(replace(benchmark_config(name), rows=None), folder)
    data = described(name, group=None)
    from ladder_cli.data.classification import LabelTask

    example = LabelTask.of(data).example(row, "1", "row 1")
    assert (problem.question, problem.gold) == (example.question, "Yes")


def test_a_label_set_of_ones_own_needs_no_code(tmp_path):
    rows = [{"text": f"Film {n}", "stars": n % 3} for n in range(9)]
    data = described(
        "jsonl", format="label", path=own_file(tmp_path, rows), prompt="How good is {text}?", label="stars",
        labels=["bad", "fair", "good"],
    )  # fmt: skip
    splits = load_examples(data, None, 0)
    for example in [*splits.train, *splits.validation]:
        number = int(example.question.removesuffix("?").split()[-1])
        assert example.completion == ("bad", "fair", "good")[number % 3]
    with pytest.raises(UserError, match=r"needs data\.prompt='TEMPLATE', data\.label=COLUMN"):
        load_examples(replace(data, labels=[]), None, 0)


@pytest.mark.parametrize("name", ["train_samples", "validation_samples"])
def test_more_problems_than_can_be_drawn_are_refused_at_once(name):
    with pytest.raises(UserError, match=f"data.{name}=999999999 is more than .* at most 1,000,000"):
        load_examples(described("arithmetic", **{name: 999_999_999}), None, 0)
    assert LARGEST_SET == 1_000_000


def test_ones_own_rows_get_no_instruction():
    from ladder_cli.config.compose import composed
    from ladder_cli.config.schema import TrainConfig

    assert composed("train", TrainConfig, ["data=jsonl"]).data.instruction == ""
