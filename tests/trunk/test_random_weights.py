"""Backbones of a published shape with random weights, for measuring."""

import pytest
import torch

from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.loading import parameter_count
from ladder_cli.trunk.random_weights import random_weights
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
