"""Bytes kept for the backward pass: counted on fake tensors as on real ones, and within the limits that we promise."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from ladder_cli.bench.backward_memory import predicted_activation_bytes, saved_activation_bytes
from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture
from tests.conftest import model_preset

SMALL = Qwen2Config(
    vocab_size=200, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
MODEL = ModelConfig(name="random", hub_id="nowhere/random")
LADDER = dict(name="ladder", kind="ladder", learning_rate=1e-3)
SETTINGS = {
    "ladder": LadderMethodConfig(reduction=2, recompute=False, **LADDER),
    "recomputed": LadderMethodConfig(reduction=2, recompute=True, **LADDER),
    "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3, rank=4),
}


def build(config, shape, dtype=torch.bfloat16):
    backbone = AutoModelForCausalLM.from_config(shape, dtype=dtype).requires_grad_(False)
    return method_for(config).shape(LiveTrunk(backbone))


@pytest.mark.parametrize("setting", SETTINGS)
def test_fake_tensors_count_what_real_ones_keep(setting):
    config = SETTINGS[setting]
    ids = torch.randint(0, 200, (2, 32))
    # The first token of a row is predicted by nothing; the fake count leaves it out as well.
    real = saved_activation_bytes(build(config, SMALL).train(), ids, ids)
    predicted = predicted_activation_bytes(lambda: build(config, SMALL), 2, 32)
    assert predicted == pytest.approx(real, rel=0.02)


def test_a_ladder_on_a_7b_backbone_keeps_little():
    aligned = LadderMethodConfig(reduction=16, **LADDER)
    four = LadderMethodConfig(reduction=16, layers=4, connections=[[1, 1], [2, 2]], **LADDER)
    shape = architecture(model_preset("qwen2.5-7b"))
    assert predicted_activation_bytes(lambda: build(aligned, shape), 1, 2048) < 0.5 * 2**30
    assert predicted_activation_bytes(lambda: build(four, shape), 1, 2048) < 0.1 * 2**30
