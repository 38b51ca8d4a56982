"""What acts on a completion: against a plain argmax loop, on model folders whose generation config says much else."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.generate.batching import batches, check_positions, render_prompt
from ladder_cli.generate.decoding import Decoding, ModelLimits, limits_of, read_limits
from ladder_cli.generate.engine import LENGTH, STOP, Prompt
from ladder_cli.generate.transformers_engine import completion_of, generate, left_padded, score_labels
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.trunk.loading import load_backbone

NEW_TOKENS = 24
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer):
    return PromptRenderer(tiny_tokenizer, "Answer within \\boxed{}.")


@pytest.fixture(scope="module")
def prompts(renderer):
    return [render_prompt(str(n), f"Compute {n} + {'3 + ' * n}1.", renderer) for n in range(1, 5)]


def argmax_loop(model, prompt, ends, new_tokens=NEW_TOKENS):
    """The reference: the whole sequence through the model for every token, no cache, no batch, no library."""
    ids = list(prompt.ids)
    for _ in range(new_tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
        ids.append(int(logits.argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt.ids) :]


@pytest.fixture(scope="module")
def greedy(tiny_backbone, renderer, prompts):
    return {prompt.id: argmax_loop(tiny_backbone, prompt, renderer.stop_ids) for prompt in prompts}


@pytest.fixture
def folder_with(tiny_config, tmp_path):
    """The embedded model in a folder of its own, with further settings in its generation config."""

    def make(**own) -> ModelConfig:
        folder = shutil.copytree(tiny_config.location, tmp_path / "model")
        path = folder / "generation_config.json"
        kept = json.loads(path.read_text())
        del kept["_from_model_config"]
        path.write_text(json.dumps(kept | own))
        return ModelConfig(name="own", path=str(folder), dtype="float32")

    return make


def completed(model, renderer, prompts, **decode):
    settings = DecodeConfig(**{"max_new_tokens": NEW_TOKENS} | decode)
    todo = batches(prompts, set(), 3)
    return {c.prompt.id: c for batch in generate(model, renderer, todo, settings, 0) for c in batch}


def text_of(renderer, tokens):
    kept = tokens[:-1] if tokens[-1] in renderer.stop_ids else tokens
    return renderer.tokenizer.decode(kept, skip_special_tokens=True)


OWN_SETTINGS = {
    "num_beams": dict(num_beams=4),
    "beams that are many": dict(num_beams=3, num_return_sequences=3, length_penalty=3.0, early_stopping=True),
    "no_repeat_ngram_size": dict(no_repeat_ngram_size=1),
    "min_new_tokens": dict(min_new_tokens=NEW_TOKENS),
    "min_length": dict(min_length=500),
    "max_length": dict(max_length=3),
    "max_new_tokens": dict(max_new_tokens=2),
    "max_time": dict(max_time=1e-9),
    "suppress_tokens": dict(suppress_tokens="what greedy gives"),
    "begin_suppress_tokens": dict(begin_suppress_tokens="what greedy gives"),
    "bad_words_ids": dict(bad_words_ids="what greedy gives"),
    "min_p and sampling": dict(do_sample=True, min_p=0.01, temperature=9.0),
    "temperature": dict(do_sample=True, temperature=9.0, top_k=0),
    "repetition_penalty": dict(repetition_penalty=4.0),
    "encoder_repetition_penalty": dict(encoder_repetition_penalty=4.0),
    "forced_bos_token_id": dict(forced_bos_token_id=7),
    "forced_eos_token_id": dict(forced_eos_token_id=7),
    "exponential_decay_length_penalty": dict(exponential_decay_length_penalty=[1, 9.0]),
    "guidance_scale": dict(guidance_scale=3.0),
    "stop_strings": dict(stop_strings=["1", "2"]),
    "prompt_lookup_num_tokens": dict(prompt_lookup_num_tokens=3),
    "return_dict_in_generate": dict(return_dict_in_generate=True, output_scores=True),
    "watermarking_config": dict(watermarking_config={"bias": 9.0, "context_width": 1, "seeding_scheme": "lefthash"}),
    "use_cache": dict(use_cache=False),
    "cache_implementation": dict(cache_implementation="static"),
    "token_healing": dict(token_healing=True),
}


@pytest.mark.parametrize("name", OWN_SETTINGS)
@pytest.mark.parametrize("trained", [False, True], ids=["backbone", "ladder"])
def test_greedy_is_the_largest_logit_at_every_step_whatever_the_model_folder_says(
    name, trained, folder_with, greedy, renderer, prompts
):
    own = dict(OWN_SETTINGS[name])
    used = sorted({token for tokens in greedy.values() for token in tokens})
    for key, value in own.items():
        if value == "what greedy gives":
            own[key] = [[token] for token in used] if key == "bad_words_ids" else used
    model = load_backbone(folder_with(**own), CPU)
    if trained:
        model = LadderModel.on(model, connect(model.config.num_hidden_layers, "aligned"), reduction=2)
    before = model.generation_config.to_dict()
    for name, completion in completed(model, renderer, prompts).items():
        assert completion.text == text_of(renderer, greedy[name])
        assert completion.tokens == len(greedy[name])
    assert model.generation_config.to_dict() == before, "what was taken away is given back"


def test_every_end_token_of_the_model_folder_ends_a_completion(folder_with, greedy, renderer, prompts):
    # A second end token, as Qwen has one: some token that greedy decoding comes to.
    second = greedy["1"][3]
    model = folder_with(eos_token_id=[1, second])
    assert set(read_limits(model).end_tokens) == {1, second}
    loaded = load_backbone(model, CPU)
    assert limits_of(loaded) == read_limits(model)
    done = completed(loaded, renderer, prompts)
    ends = {second, *renderer.stop_ids}
    for prompt in prompts:
        expected = argmax_loop(loaded, prompt, ends)
        assert done[prompt.id].tokens == len(expected)
        assert done[prompt.id].stop_reason == (STOP if expected[-1] in ends else LENGTH)
    assert done["1"].stop_reason == STOP
    assert done["1"].tokens <= 4


def test_the_template_s_end_of_turn_and_the_tokenizer_s_end_of_text_end_too(renderer):
    decoding = Decoding.of(DecodeConfig(), renderer, read_limits(ModelConfig(name="tiny", path="builtin:tiny")))
    assert {renderer.end_id, renderer.tokenizer.eos_token_id} <= set(decoding.end_tokens)
    assert decoding.record()["end_tokens"] == list(decoding.end_tokens)


def test_a_model_without_a_generation_config_has_the_end_tokens_of_its_config(folder_with):
    model = folder_with()
    own = Path(model.path) / "generation_config.json"
    own.unlink()
    assert read_limits(model).end_tokens == (json.loads((own.parent / "config.json").read_text())["eos_token_id"],)
    own.write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json"):
        read_limits(model)


def test_a_completion_that_ends_at_the_very_limit_has_stopped(tiny_backbone, renderer, prompts):
    ended = next(c for c in completed(tiny_backbone, renderer, prompts, max_new_tokens=200).values()
                 if c.stop_reason == STOP)  # fmt: skip
    (prompt,) = [prompt for prompt in prompts if prompt.id == ended.prompt.id]
    at_the_limit = completed(tiny_backbone, renderer, [prompt], max_new_tokens=ended.tokens)[prompt.id]
    assert (at_the_limit.stop_reason, at_the_limit.tokens, at_the_limit.text) == (STOP, ended.tokens, ended.text)
    one_less = completed(tiny_backbone, renderer, [prompt], max_new_tokens=ended.tokens - 1)[prompt.id]
    assert (one_less.stop_reason, one_less.tokens) == (LENGTH, ended.tokens - 1)


def test_a_stop_string_that_is_a_special_token_ends_a_completion_and_is_cut_off(renderer, tiny_tokenizer):
    special = next(
        (number, str(token)) for number, token in tiny_tokenizer.added_tokens_decoder.items()
        if token.special and number not in renderer.stop_ids and number != tiny_tokenizer.pad_token_id
    )  # fmt: skip
    decoding = Decoding.of(DecodeConfig(stop=[special[1]]), renderer, ModelLimits((), None))
    words = tiny_tokenizer("7 + 1", add_special_tokens=False)["input_ids"]
    row = [*words, special[0], *[tiny_tokenizer.pad_token_id] * 4]
    completion = completion_of(Prompt("1", "", []), row, renderer, decoding)
    assert completion.text == tiny_tokenizer.decode(words)
    assert (completion.tokens, completion.stop_reason) == (len(words) + 1, STOP)


def test_sampling_takes_our_temperature_and_nothing_of_the_folder_s(folder_with, tiny_backbone, renderer, prompts):
    own = folder_with(do_sample=True, top_k=1, min_p=0.9, repetition_penalty=5.0, num_beams=2)
    plain = completed(tiny_backbone, renderer, prompts, temperature=1.5, top_p=0.9)
    other = completed(load_backbone(own, CPU), renderer, prompts, temperature=1.5, top_p=0.9)
    assert {name: c.text for name, c in other.items()} == {name: c.text for name, c in plain.items()}


@pytest.fixture
def breaks_at(tiny_backbone, monkeypatch):
    """Let one row of the batch have NaN logits from a forward pass on."""
    forward = tiny_backbone.forward

    def arrange(row, step, value=float("nan")):
        count = iter(range(10**6))

        def broken(*args, **kwargs):
            output = forward(*args, **kwargs)
            if next(count) >= step:
                output.logits[row] = value
            return output

        monkeypatch.setattr(tiny_backbone, "forward", broken)
        return tiny_backbone

    return arrange


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("step", [0, 3])
def test_logits_that_are_not_finite_end_the_generation_and_name_model_and_prompt(
    step, value, temperature, breaks_at, renderer, prompts
):
    todo = batches(prompts, set(), 4)
    model = breaks_at(row=1, step=step, value=value)
    settings = DecodeConfig(max_new_tokens=6, temperature=temperature)
    with pytest.raises(RunFailed, match=f"broken-model has logits .*'{todo[0][1].id}', at token {step + 1} "):
        list(generate(model, renderer, todo, settings, 0, name="broken-model"))


def test_what_is_computed_for_a_row_that_has_ended_does_not_count(breaks_at, tiny_backbone, renderer, prompts):
    whole = completed(tiny_backbone, renderer, prompts, max_new_tokens=200)
    shortest = min(whole.values(), key=lambda completion: completion.tokens)
    assert shortest.stop_reason == STOP
    todo = batches(prompts, set(), 4)
    row = [prompt.id for prompt in todo[0]].index(shortest.prompt.id)
    model = breaks_at(row=row, step=shortest.tokens)
    settings = DecodeConfig(max_new_tokens=200)
    done = [c for batch in generate(model, renderer, todo, settings, 0) for c in batch]
    assert {c.prompt.id: c.text for c in done} == {name: c.text for name, c in whole.items()}


def test_logits_of_labels_that_are_not_finite_end_the_evaluation(breaks_at, renderer, prompts):
    with pytest.raises(RunFailed, match=f"broken-model has logits .*'{prompts[2].id}', at the label words"):
        list(score_labels(breaks_at(row=2, step=0), renderer, [prompts], ("17", "23"), "broken-model"))


@pytest.mark.parametrize(
    ("new_tokens", "positions", "message"),
    [
        (10, 59, r"leaves 9 and not decode\.max_new_tokens=10: give decode\.max_new_tokens=9 or less"),
        (10, 50, "leave that problem out"),
        (0, 49, "leave that problem out"),
    ],
)
def test_what_goes_beyond_the_model_s_positions_is_refused_with_the_prompt_and_the_room(new_tokens, positions, message):
    prompts = [Prompt("short", "", [5] * 8), Prompt("long", "", [5] * 50)]
    with pytest.raises(UserError, match=message) as raised:
        check_positions(prompts, new_tokens, positions, "tiny")
    assert "'long' has 50 tokens" in str(raised.value)


def test_what_fits_the_positions_is_not_refused():
    prompts = [Prompt("long", "", [5] * 50)]
    check_positions(prompts, 10, 60, "tiny")
    check_positions(prompts, 0, 50, "tiny")
    check_positions(prompts, 10**6, None, "tiny")


def test_stretched_positions_count_as_stretched(folder_with):
    model = folder_with()
    path = Path(model.path) / "config.json"
    config = json.loads(path.read_text())
    assert read_limits(model).positions == config["max_position_embeddings"] == 4096
    config["rope_parameters"] = {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "rope_theta": 10000.0
    }  # fmt: skip
    path.write_text(json.dumps(config))
    assert read_limits(model).positions == 4 * 4096


def test_left_padding_changes_no_position(tiny_backbone, renderer, prompts):
    """What the argmax loop rests on: a batch is decoded as each of its prompts alone."""
    ids, mask = left_padded(prompts, 0, CPU)
    assert ids.shape == mask.shape
    assert mask.sum(1).tolist() == [len(prompt.ids) for prompt in prompts]
    alone = {prompt.id: completed(tiny_backbone, renderer, [prompt])[prompt.id].text for prompt in prompts}
    assert {name: c.text for name, c in completed(tiny_backbone, renderer, prompts).items()} == alone
