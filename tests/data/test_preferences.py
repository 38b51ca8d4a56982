"""Preferences: what of a row is read, and that the two answers stay side by side."""

import hashlib
import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.encoding import encode
from ladder_cli.data.examples import Example, fingerprint
from ladder_cli.data.passes import Loading, TrainingBatches, ValidationBatches
from ladder_cli.data.preferences import preference
from ladder_cli.data.registry import load_examples
from ladder_cli.errors import UserError
from ladder_cli.trunk.base import BLANK
from tests.data.sets import described
from tests.data.test_passes import Rows

DATA = described("jsonl", path="f", format="preference")


def says(role, text):
    return {"role": role, "content": text}


ASKED = [says("system", "Be brief."), says("user", "2+2?")]
TURNS = (("system", "Be brief."), ("user", "2+2?"))


def read(row, **values):
    return preference(row, described("jsonl", path="f", format="preference", **values), "1", "f, row 1")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED, "chosen": [says("assistant", "4")], "rejected": [says("assistant", "5")]},
        {"prompt": ASKED, "chosen": "4", "rejected": "5"},
        {"chosen": [*ASKED, says("assistant", "4")], "rejected": [*ASKED, says("assistant", "5")]},
        {"prompt": ASKED, "chosen": [*ASKED, says("assistant", "4")], "rejected": [*ASKED, says("assistant", "5")]},
    ],
    ids=["chats", "a chat and texts", "the prompt before the answers", "and beside them"],
)
def test_the_forms_of_a_chat_are_one_example(row):
    assert read(row) == Example("1", "2+2?", "4", TURNS, rejected="5")


def test_texts_are_a_question_and_its_answers():
    expected = Example("1", "2+2?", "4", rejected="5")
    assert read({"prompt": "2+2?", "chosen": "4", "rejected": "5"}) == expected
    assert read({"q": "2+2?", "a": "4", "b": "5"}, prompt="q", chosen="a", rejected="b") == expected
    assert read({"x": "2", "chosen": "4", "rejected": "5"}, prompt="{x}+{x}?") == expected
    # UltraFeedback's: the question as a text, and chats that repeat it.
    chats = {
        name: [says("user", "2+2?"), says("assistant", text)] for name, text in (("chosen", "4"), ("rejected", "5"))
    }
    assert read({"prompt": "2+2?", **chats}) == expected


GOOD = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "2+2? 4", "rejected": "2+2? 5"}, "has no prompt: give it in a column 'prompt'"),
        ({"prompt": "2+2?", "chosen": "4"}, "no column 'rejected'"),
        (GOOD | {"chosen": " "}, "column 'chosen' holds no text"),
        (GOOD | {"rejected": None}, "column 'rejected' holds neither a text nor a list"),
        (GOOD | {"prompt": ""}, "column 'prompt' holds no text"),
        (GOOD | {"prompt": []}, "column 'prompt' holds neither"),
        (GOOD | {"prompt": [says("system", "x")]}, "no user's message before the answers"),
        (GOOD | {"prompt": [*ASKED, says("assistant", "x")]}, "ends with a message of the assistant's"),
        (GOOD | {"prompt": [says("usr", "x")]}, "column 'prompt', message 1: a message needs a role"),
        (GOOD | {"chosen": [says("user", "4")]}, "the last message must be the assistant's"),
        (GOOD | {"chosen": [*ASKED, says("assistant", "4")]}, "'chosen' and 'rejected' answer different prompts"),
        (
            {"prompt": "3+3?"}
            | {name: [says("user", "2+2?"), says("assistant", name)] for name in ("chosen", "rejected")},
            "are not those of its prompt",
        ),
        (GOOD | {"chosen": [says("assistant", "4") | {"tool_calls": [{}]}]}, "has 'tool_calls', which is not read"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row, message):
    with pytest.raises(UserError, match=message) as refused:
        read(row)
    assert str(refused.value).startswith("f, row 1")


def test_rows_that_prefer_nothing_are_left_out_and_told(tmp_path):
    rows = [GOOD | {"prompt": f"{n}+{n}?", "rejected": "4" if n % 3 == 0 else "5"} for n in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = described("jsonl", path=str(tmp_path / "rows.jsonl"), format="preference", validation_samples=2)
    splits = load_examples(data, None, 0)
    assert (len(splits.train), len(splits.validation)) == (4, 2)
    assert splits.notes == ("3 rows prefer nothing ('chosen' and 'rejected' are the same) and are left out",)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(GOOD | {"rejected": "4"}) for _ in range(3)))
    with pytest.raises(UserError, match=r"in every row .* are the same"):
        load_examples(data, None, 0)


def test_a_set_without_preferences_has_the_fingerprint_that_it_had():
    example = Example("1", "2+2?", "4")
    values = asdict(example)
    del values["rejected"], values["gold"]
    assert fingerprint([example]) == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
    assert len({fingerprint([Example("1", "2+2?", "4", rejected=other)]) for other in (None, "5", "6")}) == 3


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer):
    return PromptRenderer(tiny_tokenizer, "Think.")


def example(number, chosen=" 4", rejected=" 5"):
    return Example(str(number), f"{number}+{number}?", chosen, rejected=rejected)


def test_the_rows_of_a_preference_are_its_prompt_with_either_answer(renderer):
    encoded = encode([example(2), example(3)], renderer, 100, "error")
    assert (len(encoded), encoded.examples, encoded.rows_each) == (4, 2, 2)
    assert encoded.kept == [0, 0, 1, 1]
    for number, (chosen, rejected) in ((2, (0, 1)), (3, (2, 3))):
        prompt = renderer.prompt_ids(f"{number}+{number}?")
        for row, answer in ((chosen, " 4"), (rejected, " 5")):
            ids, labels = encoded[row]["input_ids"], encoded[row]["labels"]
            assert ids[: len(prompt)] == prompt
            assert labels == [-100] * len(prompt) + ids[len(prompt) :]
            assert renderer.tokenizer.decode(ids[len(prompt) : -1]) == answer
            assert ids[-1] == renderer.end_id


def test_a_pair_is_left_out_whole(renderer):
    long = " 4, or so I have been told by everybody that I asked about it"
    examples = [example(2), example(3, rejected=long), example(4, chosen=long), example(5)]
    limit = max(encode([examples[0], examples[3]], renderer, 1000, "error").lengths)
    encoded = encode(examples, renderer, limit, "drop")
    assert encoded.kept == [0, 0, 3, 3]
    assert (encoded.too_long, encoded.dropped, encoded.examples) == (2, 2, 2)
    cut = encode(examples, renderer, limit, "left")
    assert (cut.too_long, cut.dropped, cut.examples) == (2, 0, 4)
    with pytest.raises(UserError, match="none of the 2 rows fits"):
        encode(examples[1:3], renderer, limit, "drop")


@settings(deadline=None, max_examples=30)
@given(pairs=st.integers(1, 15), processes=st.integers(1, 3), accumulation=st.integers(1, 3), micro=st.integers(1, 3))
def test_both_rows_of_a_pair_are_in_one_micro_batch_and_every_pair_is_passed_once(
    pairs, processes, accumulation, micro
):
    rows = Rows(2 * pairs)
    steps = -(-pairs // (micro * processes * accumulation))
    seen, checked = [], []
    for process in range(processes):
        loading = Loading(PaddingCollator(0), 2 * micro, process, processes, rows_each=2)
        batches = TrainingBatches(rows, loading, accumulation, seed=3)
        assert batches.steps_in_epoch == steps
        assert batches.examples_after(steps) == pairs
        taken = batches.steps()
        for batch in (batch for _ in range(steps) for batch in next(taken)):
            first, second = batch.row_ids[::2], batch.row_ids[1::2]
            assert all(a == b == BLANK or (a % 2 == 0 and b == a + 1) for a, b in zip(first, second, strict=True))
            seen += [row for row in batch.row_ids if row != BLANK]
        for batch, counts in ValidationBatches(rows, loading):
            assert all(a % 2 == 0 and b == a + 1 for a, b in zip(batch.row_ids[::2], batch.row_ids[1::2], strict=True))
            checked += list(batch.row_ids) if counts else []
    assert sorted(seen) == sorted(checked) == list(range(2 * pairs))
