import statistics
import unicodedata

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladder_cli.data.batching import PaddingCollator, StepOrder
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
@given(count=st.integers(1, 400), step=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 3))
def test_an_epoch_is_every_row_once_in_an_order_that_seed_and_epoch_decide(count, step, seed, epoch):
    lengths = [(7 * row) % 50 + 1 for row in range(count)]

    def order():
        sampler = StepOrder(lengths, step, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order()) == list(range(count))
    assert order() == order()


def test_a_step_takes_rows_of_all_lengths_at_random_and_puts_the_longest_first():
    short, long = 6, 31
    lengths = [short, short, short, long, long] * 1000
    order = StepOrder(lengths, 16, seed=0)
    rows = list(order)
    steps = [[lengths[row] for row in rows[at : at + 16]] for at in range(0, 4992, 16)]
    assert all(step == sorted(step, reverse=True) for step in steps)
    # As if each row were drawn by itself: 6.4 long ones of 16, with a variance of 16 x 0.4 x 0.6.
    long_ones = [step.count(long) for step in steps]
    assert abs(statistics.fmean(long_ones) - 6.4) < 0.1
    assert 3.0 < statistics.pvariance(long_ones) < 4.7
    order.set_epoch(1)
    assert list(order) != rows


def test_a_step_that_weighs_its_tokens_alike_weighs_those_of_short_and_long_rows_alike():
    """What a token counts, over the steps of an epoch: 1 / the tokens of its step."""
    lengths = [6, 6, 6, 31, 31] * 1000
    rows = list(StepOrder(lengths, 16, seed=0))
    weight = {6: 0.0, 31: 0.0}
    for at in range(0, 5000, 16):
        step = [lengths[row] for row in rows[at : at + 16]]
        for length in step:
            weight[length] += length / sum(step)
    of_a_token = [weight[length] / (length * lengths.count(length)) for length in weight]
    # Steps with many long rows have more tokens, so that a little is left; it was 5 to 1 with steps of one length.
    assert of_a_token[0] / of_a_token[1] < 1.12


def test_tokenised_rows_are_read_from_disk_the_second_time(renderer, tmp_path, monkeypatch):
    first = encode(EXAMPLES, renderer, 40, "left", cache=tmp_path)
    monkeypatch.setattr(PromptRenderer, "render_all", lambda *_: pytest.fail("tokenised again"))
    assert list(encode(EXAMPLES, renderer, 40, "left", cache=tmp_path)) == list(first)
    with pytest.raises(pytest.fail.Exception, match="tokenised again"):
        encode(EXAMPLES, renderer, 39, "left", cache=tmp_path)


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
