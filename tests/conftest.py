"""Tiny models with real tensors, shared by all tests. No network, no ../shared."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from ladder_cli.config import ModelConfig
from ladder_cli.models.backbone import load_backbone, load_tokenizer

# CI must not fail on a draw that nobody has seen before; everywhere else new examples are welcome.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

SHARED = Path(__file__).resolve().parents[2] / "shared"
VOCABULARY = 97
_SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=1,
)


def random_backbone(architecture: str) -> PreTrainedModel:
    """An untrained decoder of four layers, always the same for the same name."""
    torch.manual_seed(0)
    if architecture == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**_SHAPE, tie_word_embeddings=True)).eval().requires_grad_(False)
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**_SHAPE, tie_word_embeddings=False)).eval().requires_grad_(False)
    raise ValueError(architecture)


@pytest.fixture(params=["qwen2", "llama"])
def architecture(request) -> str:
    return request.param


@pytest.fixture
def token_ids() -> torch.Tensor:
    """`[3, 17]` tokens without padding and end tokens."""
    return torch.randint(2, VOCABULARY, (3, 17), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", side_reduction=2)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_config):
    return load_tokenizer(tiny_config)


@pytest.fixture(scope="session")
def tiny_backbone(tiny_config):
    return load_backbone(tiny_config, torch.device("cpu"))


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the data of the folder shared/ beside this checkout")
    return SHARED
