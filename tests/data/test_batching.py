import unicodedata
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladder_cli.data.batching import LengthGroupedSampler, PaddingCollator
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.encoding import IGNORED_LABEL, encode, writable_cache
from ladder_cli.data.examples import Example
from ladder_cli.errors import UserError

TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer):
    return PromptRenderer(tiny_tokenizer, "Think.")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=TEXT, completion=TEXT)
def test_labels_cover_the_completion_and_its_end_token_and_nothing_else(renderer, question, completion):
    (row,) = encode([Example("1", question, completion)], renderer, 10_000, "error")
    counted = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED_LABEL]
    assert [label for label in row["labels"] if label != IGNORED_LABEL] == counted
    assert counted[-1] == renderer.end_id
    # Qwen2's tokenizer brings text into the composed form (NFC) first.
    assert renderer.tokenizer.decode(counted[:-1]) == unicodedata.normalize("NFC", completion)
    assert row["input_ids"][: -len(counted)] == renderer.prompt_ids(question)


EXAMPLES = [Example("short", "Q", "yes"), Example("long", "Q", "no " * 60)]


def test_drop_leaves_the_long_row_out_and_counts_it(renderer):
    encoded = encode(EXAMPLES, renderer, 40, "drop")
    assert (len(encoded), encoded.too_long, encoded.dropped) == (1, 1, 1)
    assert encoded.longest > 40


def test_left_keeps_the_end_of_the_row(renderer):
    encoded = encode(EXAMPLES, renderer, 40, "left")
    assert (len(encoded), encoded.too_long, encoded.dropped) == (2, 1, 0)
    long = encoded[1]
    assert len(long["input_ids"]) == 40
    assert long["input_ids"][-1] == renderer.end_id
    # A first token has nothing before it to be predicted from: no method could count it.
    assert long["labels"] == [IGNORED_LABEL, *long["input_ids"][1:]]
    assert encoded.counted_tokens == sum(label != IGNORED_LABEL for row in encoded for label in row["labels"])


def test_left_never_counts_the_prompt(renderer):
    (whole,) = encode(EXAMPLES[1:], renderer, 10_000, "error")
    prompt = whole["labels"].count(IGNORED_LABEL)
    (cut,) = encode(EXAMPLES[1:], renderer, len(whole["input_ids"]) - 3, "left")
    assert cut["labels"].count(IGNORED_LABEL) == prompt - 3


def test_error_names_the_row(renderer):
    with pytest.raises(UserError, match="row 'long' has"):
        encode(EXAMPLES, renderer, 40, "error")


def test_nothing_left_is_an_error(renderer):
    with pytest.raises(UserError, match="none of the 1 rows fits"):
        encode(EXAMPLES[1:], renderer, 20, "drop")


def test_padding_is_masked_and_never_counts():
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = PaddingCollator(pad_id=0)(rows)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, 7], [8, 0, 0]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[-100, 6, 7], [8, -100, -100]]))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 400), batch=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 3))
def test_an_epoch_is_every_row_once_in_an_order_that_seed_and_epoch_decide(count, batch, seed, epoch):
    lengths = [(7 * row) % 50 + 1 for row in range(count)]

    def order():
        sampler = LengthGroupedSampler(lengths, batch, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order()) == list(range(count))
    assert order() == order()


def test_batches_hold_similar_lengths_and_come_in_random_order():
    lengths = [(37 * row) % 101 + 1 for row in range(1600)]
    sampler = LengthGroupedSampler(lengths, 8, seed=0)
    order = list(sampler)
    batches = [[lengths[row] for row in order[at : at + 8]] for at in range(0, 1600, 8)]
    padding = sum(max(batch) * 8 - sum(batch) for batch in batches) / sum(lengths)
    assert padding < 0.05
    means = [sum(batch) / 8 for batch in batches]
    falling = sum(later < earlier for earlier, later in pairwise(means)) / len(means)
    assert 0.3 < falling < 0.7
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_tokenised_rows_are_read_from_disk_the_second_time(renderer, tmp_path, monkeypatch):
    first = encode(EXAMPLES, renderer, 40, "left", cache=tmp_path)
    monkeypatch.setattr(PromptRenderer, "render_all", lambda *_: pytest.fail("tokenised again"))
    assert list(encode(EXAMPLES, renderer, 40, "left", cache=tmp_path)) == list(first)
    with pytest.raises(pytest.fail.Exception, match="tokenised again"):
        encode(EXAMPLES, renderer, 39, "left", cache=tmp_path)


def test_lengths_that_hardly_differ_are_not_grouped():
    lengths = [50, 54] * 400
    order = list(LengthGroupedSampler(lengths, 8, seed=0))
    assert sorted(order) == list(range(800))
    batches = [order[at : at + 8] for at in range(0, 800, 8)]
    mixed = sum(len({lengths[row] for row in batch}) == 2 for batch in batches)
    assert mixed > 90, "batches of one length are batches of one kind of row"


def test_a_first_thousand_rows_that_are_all_too_long_are_dropped_like_any_others(renderer):
    examples = [Example(f"long {n}", "Q", "no " * 60) for n in range(1001)] + [Example("short", "Q", "yes")]
    encoded = encode(examples, renderer, 40, "drop")
    assert (len(encoded), encoded.dropped) == (1, 1001)


def test_a_cache_that_cannot_be_written_is_done_without_and_said(tmp_path):
    assert writable_cache(tmp_path / "outputs" / "tokens") == (tmp_path / "outputs" / "tokens", "")
    (tmp_path / "file").write_text("")
    folder, note = writable_cache(tmp_path / "file" / "tokens")
    assert folder is None
    assert note.startswith(f"tokenised rows are not kept: {tmp_path}/file/tokens cannot be written")
    assert "data.cache=false" in note
