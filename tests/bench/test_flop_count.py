"""FLOPs of a ladder and of QLoRA against sums done by hand."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ladder_cli.bench.flop_count import FlopCount
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from tests.conftest import INNER, random_backbone

WIDTH, HEADS, KV_HEADS, HEAD, LAYERS, VOCABULARY = 64, 4, 2, 16, 4, 97


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
