"""Every config file composes and passes the strict check."""

import pytest
from omegaconf import OmegaConf

from ladder_cli.config import compose
from ladder_cli.config.catalogue import choices, groups
from ladder_cli.config.compose import as_dict, parse
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.explaining import explain
from ladder_cli.config.methods import METHOD_KINDS
from ladder_cli.config.optimization import OptimizationConfig
from ladder_cli.config.options import option_names
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.benchmarks import benchmark_config
from ladder_cli.data.formats import refuse_unread
from ladder_cli.errors import UserError


def composed(*overrides: str) -> TrainConfig:
    return compose.composed("train", TrainConfig, list(overrides))


GROUPS_OF_TRAINING = [group for group in groups() if group not in ("benchmark", "decode")]


@pytest.mark.parametrize("override", [f"{group}={choice}" for group in GROUPS_OF_TRAINING for choice in choices(group)])
def test_every_choice_of_every_group_composes(override):
    config = composed(override)
    group, _, choice = override.partition("=")
    if group != "experiment":
        assert getattr(config, group).name == choice


@pytest.mark.parametrize(("choice", "temperature"), [("greedy", 0.0), ("sampling", 0.6)])
def test_every_way_of_decoding_composes(choice, temperature):
    config = compose.composed("evaluate", EvaluateConfig, [f"decode={choice}"])
    assert config.decode.temperature == temperature
    assert config.decode.max_new_tokens == 2048


@pytest.mark.parametrize("name", choices("benchmark"))
def test_every_benchmark_file_is_valid_and_named_after_itself(name):
    assert benchmark_config(name).name == name


def test_the_groups_are_those_of_the_contract():
    assert groups() == [
        "benchmark",
        "data",
        "decode",
        "experiment",
        "hardware",
        "method",
        "model",
        "objective",
        "tracking",
    ]
    assert {"qlora", "ladder", "xladder"} <= set(choices("method"))


def test_the_method_brings_its_learning_rate_and_the_command_line_overrules_it():
    assert composed("method=branch", "model=qwen2.5-7b").peak_learning_rate == 3e-4
    assert composed("method=branch", "model=tiny").peak_learning_rate == pytest.approx(2.4e-3)
    assert composed("train.learning_rate=0.5").peak_learning_rate == 0.5


@pytest.mark.parametrize(("model", "rate"), [("qwen2.5-7b", 5e-4), ("smollm2-135m", 1.5e-3), ("tiny", 4e-3)])
def test_what_is_compared_begins_at_the_rate_that_each_was_found_to_take(model, rate):
    """A baseline at a fifth of its best rate is no baseline (docs/decisions/0025-rates.md)."""
    for method in ("ladder", "xladder", "suffix", "ladder-suffix", "qlora"):
        assert composed(f"method={method}", f"model={model}").peak_learning_rate == pytest.approx(rate), method


@pytest.mark.parametrize("objective", ["dpo", "grpo"])
def test_preferences_and_rewards_begin_at_a_tenth_of_the_rate(objective):
    words = ("method=suffix", "model=qwen2.5-7b", f"objective={objective}")
    assert composed(*words).peak_learning_rate == pytest.approx(5e-5)
    assert composed(*words, "objective.learning_rate_scale=2").peak_learning_rate == pytest.approx(1e-3)
    assert composed(*words, "train.learning_rate=0.5").peak_learning_rate == 0.5


@pytest.mark.parametrize("method", ["suffix", "ladder-suffix"])
def test_a_suffix_is_recomputed_where_the_model_is_wide(method):
    for model, wide in (("qwen2.5-7b", True), ("qwen2.5-math-1.5b", True), ("tiny", False), ("smollm2-135m", False)):
        assert composed(f"method={method}", f"model={model}").method.gradient_checkpointing is wide, model
    assert not composed(
        f"method={method}", "model=qwen2.5-7b", "model.side_recompute=false"
    ).method.gradient_checkpointing


@pytest.mark.parametrize("name", choices("model"))
def test_embeddings_stay_on_the_host_where_they_are_large_and_the_head_has_its_own(name):
    model = composed(f"model={name}").model
    shape = model.shape.get("text_config", model.shape)
    size = 2 * shape.get("vocab_size", 0) * shape.get("hidden_size", 0)
    assert model.embeddings_on_cpu is (size > 1e9 and not shape["tie_word_embeddings"])


def test_a_method_has_the_schema_of_its_kind():
    assert type(composed("method=xladder").method) is METHOD_KINDS["ladder"]
    assert type(composed("method=qlora").method) is METHOD_KINDS["qlora"]


def test_accumulation_follows_from_the_global_batch():
    assert OptimizationConfig(global_batch_size=24, micro_batch_size=4).accumulation(2) == 3
    assert OptimizationConfig(global_batch_size=24, micro_batch_size=4, gradient_accumulation=5).accumulation(2) == 5
    with pytest.raises(UserError, match="not a multiple"):
        OptimizationConfig(global_batch_size=24, micro_batch_size=5).accumulation(1)


def test_option_names_reach_into_the_groups():
    names = option_names(TrainConfig)
    assert {"seed", "model.path", "train.max_steps", "data.max_length"} <= set(names)


def test_an_unknown_error_is_still_one_line():
    assert "\n" not in explain(ValueError("first\nsecond"), TrainConfig)


def test_the_config_of_an_older_run_whose_set_has_no_targets_is_read():
    """Such a run recorded `target: solution` for every set."""
    config = as_dict(composed())
    config["data"]["target"] = "solution"
    assert parse(OmegaConf.create(config), TrainConfig).data.name == "arithmetic"
    given = composed("data.target=solution")
    with pytest.raises(UserError, match=r"does not read data\.target"):
        refuse_unread(given.data, ["target"])
