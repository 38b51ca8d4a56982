"""FLOPs against sums done by hand; saved bytes the same on fake tensors as on real ones, and within what we promise."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Qwen2Config

from ladder_cli.bench.counts import FlopCount, predicted_activation_bytes, saved_activation_bytes
from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture
from tests.conftest import INNER, model_preset, random_backbone

WIDTH, HEADS, KV_HEADS, HEAD, LAYERS, VOCABULARY = 64, 4, 2, 16, 4, 97
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


def test_a_product_is_two_for_each_multiply_add_forward_and_backward():
    weight, rows = torch.randn(5, 7, requires_grad=True), torch.randn(3, 7, requires_grad=True)
    with FlopCount() as count:
        (rows @ weight.T).sum().backward()
    assert count.total == 3 * (2 * 3 * 5 * 7)


def test_attention_counts_on_a_cpu_too():
    query = torch.randn(2, 4, 9, 16, requires_grad=True)
    with FlopCount() as forward:
        out = scaled_dot_product_attention(query, query, query)
    assert forward.total == 2 * (2 * 2 * 4 * 9 * 9 * 16)
    with FlopCount() as backward:
        out.sum().backward()
    assert backward.total == pytest.approx(2.5 * forward.total)


def test_a_ladders_step_is_the_backbone_once_and_its_own_part_three_times():
    backbone = random_backbone("qwen2")
    config = backbone.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (WIDTH, LAYERS, VOCABULARY)
    model = LadderModel.on(backbone, connect(LAYERS, "last", layers=4), reduction=2)
    ids = torch.randint(2, 90, (2, 9))
    with FlopCount() as backbone_pass, torch.no_grad():
        backbone.get_decoder()(input_ids=ids)
    with FlopCount() as step:
        model(input_ids=ids, labels=ids).loss.backward()
    linear = sum(p.numel() for p in backbone.model.layers.parameters() if p.dim() == 2)
    attention = LAYERS * 2 * 2 * 2 * HEADS * 9 * 9 * HEAD
    assert linear > INNER * WIDTH * 3 * LAYERS
    assert backbone_pass.total == 2 * 18 * linear + attention
    head = 2 * (2 * 16 * VOCABULARY * WIDTH)  # forward, and backward to its input alone, at the counted positions
    own = sum(p.numel() for p in model.side.parameters() if p.dim() == 2)
    taps = sum(p.numel() for p in model.side.down.parameters())  # no gradient goes on to the backbone
    shape = model.config.side_shape
    side_attention = 4 * (1 + 2.5) * 2 * 2 * 2 * shape["heads"] * 9 * 9 * shape["head_size"]
    assert step.total == backbone_pass.total + head + 2 * 18 * (3 * own - taps) + side_attention
