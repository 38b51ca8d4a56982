"""An answer that is shown as it grows is the answer that a batch gets; it can be stopped between two tokens."""

import pytest
import torch

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.generate.batching import render_prompt
from ladder_cli.generate.decoding import Decoding, limits_of
from ladder_cli.generate.streaming import GrowingText, stream
from ladder_cli.generate.transformers_engine import generate


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer):
    return PromptRenderer(tiny_tokenizer, "")


def streamed(model, renderer, prompt, decode, stopped=lambda: False, seed=0):
    pieces = []
    decoding = Decoding.of(decode, renderer, limits_of(model))
    done = stream(model, renderer, prompt, decoding, seed, pieces.append, stopped)
    return done, pieces


@pytest.mark.parametrize(
    "options",
    [{}, {"stop": ["answer"]}, {"stop": ["\n"]}, {"max_new_tokens": 5}, {"temperature": 1.5, "top_p": 0.9}],
    ids=str,
)
def test_the_pieces_are_the_completion_of_a_batch_of_one(tiny_backbone, renderer, options):
    decode = DecodeConfig(**{"max_new_tokens": 40, "batch_size": 1} | options)
    for number in range(4):
        prompt = render_prompt(f"problem {number}", f"Compute {number}+{3 * number}*2 from left to right.", renderer)
        ((expected,),) = generate(tiny_backbone, renderer, [[prompt]], decode, seed=0)
        done, pieces = streamed(tiny_backbone, renderer, prompt, decode)
        assert done == expected
        assert "".join(pieces) == expected.text
        assert all(pieces)


def test_an_answer_comes_in_pieces_and_ends_where_it_is_stopped(tiny_backbone, renderer):
    prompt = render_prompt("problem", "Compute 17+4*2-5 from left to right.", renderer)
    decode = DecodeConfig(max_new_tokens=40)
    whole, pieces = streamed(tiny_backbone, renderer, prompt, decode)
    assert len(pieces) > 5
    shown = []
    decoding = Decoding.of(decode, renderer, limits_of(tiny_backbone))
    done = stream(tiny_backbone, renderer, prompt, decoding, 0, shown.append, lambda: len(shown) >= 3)
    assert done.stop_reason is None
    assert "".join(shown) == done.text
    assert whole.text.startswith(done.text)
    assert 3 <= done.tokens < whole.tokens


def test_a_character_of_several_tokens_and_a_beginning_stop_string_are_kept_back(renderer):
    text = GrowingText(renderer, ends=[renderer.end_id], stop=["STOP"])
    tokens = renderer.tokenizer("a\U0001f600b STO c STOP d", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 12
    pieces = [text.add(token) for token in tokens]
    assert "".join(pieces) == "a\U0001f600b STO c "
    assert not any("\ufffd" in piece for piece in pieces)
    assert text.add(renderer.end_id) == ""


def test_random_numbers_follow_the_seed_and_the_question(tiny_backbone, renderer):
    prompt = render_prompt("problem", "Compute 17+4 from left to right.", renderer)
    decode = DecodeConfig(max_new_tokens=30, temperature=5.0)
    torch.manual_seed(1)
    first, _ = streamed(tiny_backbone, renderer, prompt, decode, seed=3)
    torch.manual_seed(2)
    again, _ = streamed(tiny_backbone, renderer, prompt, decode, seed=3)
    other, _ = streamed(tiny_backbone, renderer, prompt, decode, seed=4)
    assert first == again
    assert first != other
