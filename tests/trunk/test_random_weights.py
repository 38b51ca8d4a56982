"""Backbones of a published shape with random weights, for measuring."""

import pytest
import torch

from ladder_cli.config.choices import Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.base import Batch, TapRequest
from ladder_cli.trunk.loading import parameter_count
from ladder_cli.trunk.random_weights import random_streamed, random_weights
from tests.conftest import ARCHITECTURES

SHAPE = {"model_type": "qwen2", **{k: v for k, v in ARCHITECTURES["qwen2"]().to_dict().items() if k in (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "tie_word_embeddings",
)}}  # fmt: skip


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_they_have_the_shape_and_run(quantization):
    config = ModelConfig(
        name="random", hub_id="nowhere/random", dtype="float32", quantization=quantization, shape=dict(SHAPE)
    )
    model = random_weights(config, torch.device("cpu"))
    plain = random_weights(ModelConfig(**{**vars(config), "quantization": "none"}), torch.device("cpu"))
    assert parameter_count(model) == parameter_count(plain)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    logits = model(torch.randint(2, 90, (2, 9))).logits
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


def test_a_streamed_backbone_of_random_weights_has_all_its_layers():
    shape = {**SHAPE, "num_hidden_layers": 5}
    small = ModelConfig(name="random", hub_id="nowhere/random", dtype="bfloat16", quantization="nf4", shape=shape)
    trunk = random_streamed(small, torch.device("cpu"), Residency.DISK, 2)
    assert len(trunk.parts.layers) == 5
    assert [layer.self_attn.layer_idx for layer in trunk.parts.layers] == list(range(5))
    taps = trunk.taps(TapRequest(frozenset({1, 5})), Batch(torch.tensor([[5, 6, 7]])))
    assert taps.rungs[5].isfinite().all()
    assert not torch.equal(taps.rungs[1], taps.rungs[5])
    generated = trunk.whole().generate(torch.tensor([[5, 6]]), max_new_tokens=3, eos_token_id=None)
    assert generated.shape == (1, 5)
