import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.generate.batching import batches, render_prompt
from ladder_cli.generate.engine import LENGTH, STOP, Prompt
from ladder_cli.generate.transformers_engine import fitting_batch_size, generate
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel

NEW_TOKENS = 12


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer):
    return PromptRenderer(tiny_tokenizer, "")


@pytest.fixture(scope="module")
def prompts(renderer):
    return [render_prompt(str(n), "Compute " + "7+" * n + "1.", renderer) for n in range(1, 12)]


def completed(model, renderer, todo, seed=0, **decode):
    settings = DecodeConfig(**{"max_new_tokens": NEW_TOKENS} | decode)
    return [completion for batch in generate(model, renderer, todo, settings, seed) for completion in batch]


def texts(completions):
    return {completion.prompt.id: completion.text for completion in completions}


@pytest.fixture
def small_memory(tiny_backbone, monkeypatch):
    """A model whose forward pass runs out of memory above three rows, and how many rows each `generate` had."""
    asked, inner, forward = [], tiny_backbone.generate, tiny_backbone.forward

    def limited_forward(*args, **kwargs):
        rows = kwargs["input_ids"].shape[0]
        if rows > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **kwargs)

    def counted_generate(**kwargs):
        asked.append(len(kwargs["input_ids"]))
        return inner(**kwargs)

    monkeypatch.setattr(tiny_backbone, "forward", limited_forward)
    monkeypatch.setattr(tiny_backbone, "generate", counted_generate)
    return tiny_backbone, asked


def test_where_memory_ends_batches_are_halved_and_nothing_is_lost_or_done_twice(small_memory, renderer, prompts):
    model, asked = small_memory
    done = completed(model, renderer, batches(prompts, set(), 11))
    assert sorted(completion.prompt.id for completion in done) == sorted(prompt.id for prompt in prompts)
    assert asked[:3] == [11, 5, 2], "halved until it fits"
    assert max(asked[2:]) == 2, "and never tried larger again"


def test_completions_are_the_same_after_memory_ended(small_memory, renderer, prompts, monkeypatch):
    model, _ = small_memory
    halved = texts(completed(model, renderer, batches(prompts, set(), 11)))
    monkeypatch.undo()
    assert halved == texts(completed(model, renderer, batches(prompts, set(), 11)))


def test_memory_that_does_not_hold_one_completion_is_told_in_a_line(tiny_backbone, renderer, prompts, monkeypatch):
    def never(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny_backbone, "forward", never)
    with pytest.raises(UserError, match=r"lower decode\.max_new_tokens"):
        completed(tiny_backbone, renderer, batches(prompts, set(), 4))


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_backbone, renderer, prompts, monkeypatch):
    def wrong(*args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(tiny_backbone, "forward", wrong)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        completed(tiny_backbone, renderer, batches(prompts, set(), 4))


def test_a_fitting_batch_is_what_free_memory_holds_of_the_cache(tiny_backbone, renderer, prompts, monkeypatch):
    config = tiny_backbone.config
    longest = max(len(prompt.ids) for prompt in prompts) + 1000
    per_token = (
        2
        * config.num_hidden_layers
        * config.num_key_value_heads
        * (config.hidden_size // config.num_attention_heads)
        * 4
    )
    row = per_token * longest + 16 * config.vocab_size
    free = "ladder_cli.generate.transformers_engine._free_bytes"
    for rows in (1, 5, 9):
        monkeypatch.setattr(free, lambda device, rows=rows: (rows + 0.5) * row / 0.8)
        assert fitting_batch_size(tiny_backbone, prompts, 1000, most=32) == rows
    monkeypatch.setattr(free, lambda device: 0)
    assert fitting_batch_size(tiny_backbone, prompts, 1000, most=32) == 1
    monkeypatch.setattr(free, lambda device: 1e15)
    assert fitting_batch_size(tiny_backbone, prompts, 1000, most=8) == 8
    # A ladder's own cache counts too.
    ladder = LadderModel.on(copy.deepcopy(tiny_backbone), connect(config.num_hidden_layers, "aligned"), reduction=2)
    monkeypatch.setattr(free, lambda device: 9.5 * row / 0.8)
    assert fitting_batch_size(ladder, prompts, 1000, most=32) < 9
    # A branch's stands in place of the layers that it replaces.
    branch = LadderModel.on(
        copy.deepcopy(tiny_backbone), connect(config.num_hidden_layers, "branch"), reduction=1,
        gate="tap", combine="replace", projection="none", init="cloned",
    )  # fmt: skip
    assert fitting_batch_size(branch, prompts, 1000, most=32) == 9


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
    st.integers(1, 9),
    st.sets(st.integers(0, 39)),
    st.integers(0, 3),
)
def test_batches_hold_what_is_missing_once_and_no_batch_that_is_finished(lengths, size, finished, repeat):
    prompts = [Prompt(str(n), "", [5] * length) for n, length in enumerate(lengths)]
    done = {str(n) for n in finished}
    todo = batches(prompts, done, size, repeat)
    assert max(map(len, todo), default=0) <= size
    made = [p.id for batch in todo for p in batch]
    assert len(made) == len(set(made))
    assert {p.id for p in prompts} - done <= set(made)
    assert all({p.id for p in batch} - done for batch in todo)


def test_an_evaluation_that_continues_has_the_batches_it_would_have_had(prompts):
    whole = batches(prompts, set(), 4)
    finished = {prompt.id for prompt in whole[0]}
    assert batches(prompts, finished, 4) == whole[1:]


def test_a_greedy_repeat_has_other_batches_of_the_same_problems(prompts):
    first, second, third = (batches(prompts, set(), 4, repeat) for repeat in range(3))
    assert first != second != third != first
    assert {p.id for batch in second for p in batch} == {p.id for p in prompts}


def test_a_stop_string_ends_a_completion_and_is_cut_off(tiny_backbone, renderer, prompts):
    whole = completed(tiny_backbone, renderer, batches(prompts, set(), 4), max_new_tokens=30)
    mark = next(c for c in whole if len(c.text) > 6).text[3:5]
    stopped = {c.prompt.id: c for c in completed(tiny_backbone, renderer, batches(prompts, set(), 4),
                                                  max_new_tokens=30, stop=[mark])}  # fmt: skip
    assert any(mark in completion.text for completion in whole)
    for before in whole:
        after = stopped[before.prompt.id]
        assert after.text == before.text.partition(mark)[0]
        if mark in before.text:
            assert after.stop_reason == STOP
            assert after.tokens <= before.tokens
        else:
            assert (after.tokens, after.stop_reason) == (before.tokens, before.stop_reason)


def test_greedy_is_greedy_whatever_the_models_own_generation_config_says(tiny_backbone, renderer, prompts, monkeypatch):
    plain = texts(completed(tiny_backbone, renderer, batches(prompts, set(), 4)))
    own = copy.deepcopy(tiny_backbone.generation_config)
    own.repetition_penalty = 5.0
    monkeypatch.setattr(tiny_backbone, "generation_config", own)
    assert texts(completed(tiny_backbone, renderer, batches(prompts, set(), 4))) == plain


def test_sampling_repeats_with_its_seed_and_differs_with_another(tiny_backbone, renderer, prompts):
    def sampled(seed):
        return texts(completed(tiny_backbone, renderer, batches(prompts, set(), 4), seed, temperature=2.0))

    assert sampled(0) == sampled(0)
    assert sampled(0) != sampled(1)


def test_a_completion_says_whether_it_was_cut_off(tiny_backbone, renderer, prompts):
    for completion in completed(tiny_backbone, renderer, batches(prompts, set(), 4), max_new_tokens=2):
        assert completion.stop_reason == (LENGTH if completion.tokens == 2 and completion.text else STOP)
        assert completion.tokens <= 2
