"""The shapes in conf/model are those of the published models."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from ladder_cli.config.catalogue import choices
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.trunk.loading import architecture, parameter_count
from tests.conftest import model_preset

# Parameters as counted in the published checkpoints, tied weights once.
PUBLISHED = {
    "smollm2-135m": 134_515_008,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-math-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-math-7b": 7_615_616_512,
    "opt-1.3b": 1_315_758_080,
    "opt-2.7b": 2_651_596_800,
    "opt-6.7b": 6_658_473_984,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-70b": 70_553_706_496,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.1-8b-instruct": 8_030_261_248,
    "smollm3-3b": 3_075_098_624,
    "gemma-3-1b-it": 999_885_952,
    "gemma-3-4b-it": 3_880_263_168,
    "phi-4-mini-instruct": 3_836_021_760,
    "pythia-160m": 162_322_944,
    "pythia-1.4b": 1_414_647_808,
    "olmo-2-1b-instruct": 1_484_916_736,
    "granite-3.1-2b-instruct": 2_533_531_648,
    "mistral-7b-instruct-v0.3": 7_248_023_552,
    "mixtral-8x7b-instruct-v0.1": 46_702_792_704,
    "qwen3-30b-a3b": 30_532_122_624,
    "gpt-oss-20b": 20_914_757_184,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        assert parameter_count(AutoModelForCausalLM.from_config(architecture(model_preset(name)))) == PUBLISHED[name]


def test_every_model_that_has_to_be_downloaded_brings_its_shape():
    # An instruct checkpoint has the shape of its base, where that has a file too (tests/config/test_experiments.py).
    offered = set(choices("model"))
    paired = {name for name in offered if name.endswith("-instruct") and name.removesuffix("-instruct") in offered}
    assert set(PUBLISHED) | {"tiny"} == offered - paired


def test_a_folder_that_is_given_overrules_the_shape(tiny_config):
    shape = model_preset("qwen2.5-7b").shape
    assert architecture(ModelConfig(name="mine", path=tiny_config.path, shape=shape)).hidden_size == 192


def test_an_unknown_architecture_is_named():
    with pytest.raises(UserError, match=r"model\.shape of mine"):
        architecture(ModelConfig(name="mine", hub_id="nowhere/mine", shape={"model_type": "qwen9"}))
