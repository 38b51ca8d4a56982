"""What every engine must do, over the dictionary of engines; over vLLM where it is installed."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.generate.batching import render_prompt
from ladder_cli.generate.decoding import limits_of
from ladder_cli.generate.engine import LENGTH, STOP, Completion
from ladder_cli.generate.registry import ENGINES, READY, TRANSFORMERS, VLLM
from ladder_cli.serve.temporary import served_backbone

# vLLM leaves the contexts of its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function Context.__del__:pytest.PytestUnraisableExceptionWarning"
)
DECODE = DecodeConfig(max_new_tokens=6, batch_size=3)
WITHOUT_LOGITS = {READY}
HERE = [name for name in ENGINES if name is not VLLM or find_spec("vllm") is not None]


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer):
    return PromptRenderer(tiny_tokenizer, "")


@pytest.fixture(scope="module")
def prompts(renderer):
    return [render_prompt(f"problem {n}", "Compute " + "7+" * n + "1.", renderer) for n in range(1, 9)]


@pytest.fixture(scope="module")
def makers(tiny_backbone, tiny_config, renderer, prompts):
    """For each engine, what makes one that can answer the prompts; an argument tells two apart."""
    texts = {prompt.id: Completion(prompt, f"{prompt.id}: 7", 3, STOP) for prompt in prompts}
    # As tiny_backbone: in half precision the order of a batch's additions decides between close tokens.
    served = replace(served_backbone(tiny_config, torch.device("cpu")), dtype=tiny_backbone.dtype)
    limits = limits_of(tiny_backbone)
    made = {
        VLLM: lambda: ENGINES[VLLM](lambda: served, renderer, limits, "tiny"),
        TRANSFORMERS: lambda: ENGINES[TRANSFORMERS](lambda: tiny_backbone, renderer, limits_of(tiny_backbone), "tiny"),
        READY: lambda: ENGINES[READY](texts, "0123456789abcdef"),
    }
    assert made.keys() == ENGINES.keys()
    return {name: made[name] for name in HERE}


@pytest.fixture(params=HERE)
def engine(request, makers):
    return makers[request.param]()


def completed(engine, prompts, **options):
    return [each for batch in engine.complete(prompts, DECODE, 0, **options) for each in batch]


def test_every_engine_says_what_it_is(makers):
    identities = [make().identity for make in makers.values()]
    assert len(set(identities)) == len(identities)
    assert all(identities)


def test_every_prompt_gets_one_completion(engine, prompts):
    done = completed(engine, prompts)
    assert sorted(each.prompt.id for each in done) == sorted(prompt.id for prompt in prompts)
    assert {each.prompt.id: each.prompt for each in done} == {prompt.id: prompt for prompt in prompts}
    for each in done:
        assert isinstance(each.text, str)
        assert each.tokens is None or each.tokens >= 0
        assert each.stop_reason in (STOP, LENGTH, None)


def test_the_same_is_answered_to_the_same(engine, prompts):
    first, second = ({each.prompt.id: each for each in completed(engine, prompts)} for _ in range(2))
    assert first == second


def test_what_is_finished_is_not_answered_again_and_changes_no_other_answer(engine, prompts):
    whole = {each.prompt.id: each for each in completed(engine, prompts)}
    finished = {prompts[n].id for n in (0, 3, 4)}
    rest = {each.prompt.id: each for each in completed(engine, prompts, finished=finished)}
    assert rest == {name: each for name, each in whole.items() if name not in finished}
    assert completed(engine, prompts, finished=set(whole)) == []
    assert completed(engine, []) == []


def test_a_repeat_answers_the_same_prompts(engine, prompts):
    assert {each.prompt.id for each in completed(engine, prompts, repeat=1)} == {prompt.id for prompt in prompts}


def test_several_processes_share_the_answers_of_one(engine, prompts, monkeypatch):
    whole = {each.prompt.id: each.text for each in completed(engine, prompts)}
    monkeypatch.setattr("ladder_cli.generate.transformers_engine.decided_by_main", lambda value: value)
    shares = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        shares.append({each.prompt.id: each.text for each in completed(engine, prompts)})
    assert not shares[0].keys() & shares[1].keys()
    assert shares[0] | shares[1] == whole


def test_settings_are_json_and_tell_two_ways_of_decoding_apart_where_they_act(engine):
    settings = engine.settings(DECODE)
    assert engine.settings(DECODE) == settings
    if settings:
        assert engine.settings(DecodeConfig(max_new_tokens=7)) != settings


def test_label_words_are_scored_or_refused_in_a_line(engine, request, prompts):
    labels = ("17", "23")
    if request.node.callspec.params["engine"] in WITHOUT_LOGITS:
        with pytest.raises(UserError, match="no logits"):
            engine.label_scores(prompts, labels)
        return
    scored = [each for batch in engine.label_scores(prompts, labels, batch_size=3) for each in batch]
    assert sorted(each.prompt.id for each in scored) == sorted(prompt.id for prompt in prompts)
    for each in scored:
        assert list(each.logits) == list(labels)
        assert each.logits[each.label] == max(each.logits.values())
    finished = {prompts[0].id}
    rest = [each for batch in engine.label_scores(prompts, labels, batch_size=3, finished=finished) for each in batch]
    # vLLM groups by itself, and other neighbours are another order of additions.
    close = 1e-3 if request.node.callspec.params["engine"] is VLLM else 0.0
    expected = {each.prompt.id: each.logits for each in scored if each.prompt.id not in finished}
    assert {each.prompt.id for each in rest} == expected.keys()
    for each in rest:
        assert each.logits == pytest.approx(expected[each.prompt.id], rel=0, abs=close)


def test_sampling_follows_its_seed(engine, request, prompts):
    if request.node.callspec.params["engine"] in WITHOUT_LOGITS:
        return
    decode = DecodeConfig(max_new_tokens=8, batch_size=3, temperature=1.5, top_p=0.9)

    def drawn(seed):
        return {each.prompt.id: each.text for batch in engine.complete(prompts, decode, seed) for each in batch}

    first = drawn(0)
    assert drawn(0) == first
    assert drawn(1) != first
    # Prompts do not share their draws.
    alike = [replace(prompts[0], id=f"again {n}") for n in range(6)]
    assert len({each.text for batch in engine.complete(alike, decode, 0) for each in batch}) > 1


@pytest.mark.skipif(VLLM not in HERE, reason="needs vLLM in this environment")
def test_vllm_scores_label_words_as_transformers_does(makers, prompts):
    labels = ("17", "23", "5")
    one, other = (
        {each.prompt.id: each.logits for batch in makers[name]().label_scores(prompts, labels) for each in batch}
        for name in (TRANSFORMERS, VLLM)
    )
    assert one.keys() == other.keys()
    for name, logits in one.items():
        assert other[name] == pytest.approx(logits, abs=1e-3), name


def test_a_prompt_that_an_engine_does_not_know_or_that_does_not_fit_is_refused(makers, renderer, prompts):
    stranger = render_prompt("stranger", "7+" * 4000, renderer)
    for make in makers.values():
        with pytest.raises(UserError, match="'stranger'"):
            completed(make(), [*prompts, stranger])


def test_transformers_loads_nothing_where_nothing_is_to_be_answered(renderer, prompts, tiny_backbone):
    def load():
        raise AssertionError("a model was loaded")

    engine = ENGINES[TRANSFORMERS](load, renderer, limits_of(tiny_backbone), "tiny")
    assert completed(engine, prompts, finished={prompt.id for prompt in prompts}) == []
    assert list(engine.label_scores(prompts, ("17", "23"), finished={prompt.id for prompt in prompts})) == []


def test_label_scores_come_in_smaller_batches_where_memory_ends(renderer, prompts, tiny_backbone, monkeypatch):
    import torch

    engine = ENGINES[TRANSFORMERS](lambda: tiny_backbone, renderer, limits_of(tiny_backbone), "tiny")
    whole = [len(batch) for batch in engine.label_scores(prompts, ("17", "23"), batch_size=8)]
    forward = tiny_backbone.forward

    def limited(*args, **kwargs):
        if kwargs["input_ids"].shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny_backbone, "forward", limited)
    assert whole == [8]
    assert [len(batch) for batch in engine.label_scores(prompts, ("17", "23"), batch_size=8)] == [2, 2, 2, 2]
