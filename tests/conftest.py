"""Tiny models with real tensors, shared by all tests. No network, no ../shared."""

import os
from importlib.resources import files
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# As the commands set them before they import Transformers, for tests that run a command in this process.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest
import torch
from hypothesis import settings
from omegaconf import OmegaConf
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.loading import load_backbone, load_tokenizer

# CI must not fail on a draw that nobody has seen before; everywhere else new examples are welcome.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

SHARED = Path(__file__).resolve().parents[2] / "shared"
VOCABULARY = 97
INNER = 104  # width inside the feed-forward layers, and of nothing else
_SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=INNER,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=1,
)
_SHAPE_WITHOUT_KV = {name: value for name, value in _SHAPE.items() if name != "num_key_value_heads"}
_OPT = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    ffn_dim=INNER,
    num_hidden_layers=4,
    num_attention_heads=4,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=1,
)


# What each architecture has that the others lack is in brackets.
ARCHITECTURES = {
    "qwen2": lambda: Qwen2Config(**_SHAPE, tie_word_embeddings=True),  # (biases on q, k, v)
    "qwen3": lambda: Qwen3Config(**_SHAPE, head_dim=24, tie_word_embeddings=True),  # (norms on q and k)
    "llama": lambda: LlamaConfig(**_SHAPE, tie_word_embeddings=False),
    "mistral": lambda: MistralConfig(**_SHAPE, sliding_window=8),
    "gemma": lambda: GemmaConfig(**_SHAPE, head_dim=32),  # (embeddings scaled, norms around one)
    "gemma2": lambda: Gemma2Config(  # (soft caps, every other layer windowed, four norms)
        **_SHAPE, head_dim=16, query_pre_attn_scalar=16, sliding_window=8, final_logit_softcapping=5.0
    ),
    "phi": lambda: PhiConfig(**_SHAPE, partial_rotary_factor=0.5),  # (attention beside the feed-forward layer)
    "gpt2": lambda: GPT2Config(  # (learned positions, q, k and v in one matrix stored the other way round)
        vocab_size=VOCABULARY, n_embd=64, n_inner=INNER, n_layer=4, n_head=4, n_positions=128,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    ),
    "opt": lambda: OPTConfig(**_OPT, word_embed_proj_dim=64),  # (positions from the mask)
    "opt-350m": lambda: OPTConfig(  # (narrow embeddings, norms after, no final norm)
        **_OPT, word_embed_proj_dim=32, do_layer_norm_before=False
    ),
}  # fmt: skip


# Families that came later, or are larger than what the paper used; the contract runs them with fewer methods.
LATER = {
    "gpt_neox": lambda: GPTNeoXConfig(  # (the cache under another name, attention beside the feed-forward layer)
        **_SHAPE_WITHOUT_KV, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    ),
    "smollm3": lambda: SmolLM3Config(**_SHAPE, no_rope_layer_interval=2),  # (every other layer without positions)
    "phi3-longrope": lambda: Phi3Config(  # (fused projections, a factor for each rotary frequency)
        **_SHAPE, original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64,
            "short_factor": [1.0 + n / 8 for n in range(8)], "long_factor": [2.0 + n for n in range(8)],
        },
    ),
    "gemma3_text": lambda: Gemma3TextConfig(  # (other rotary positions in windowed layers)
        **_SHAPE, head_dim=16, query_pre_attn_scalar=16, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "olmo2": lambda: Olmo2Config(**_SHAPE),  # (norms behind, and over all heads)
    "olmo3": lambda: Olmo3Config(  # (the same, and other rotary positions in windowed layers)
        **_SHAPE, sliding_window=8, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "granite": lambda: GraniteConfig(  # (everything is multiplied by something)
        **_SHAPE, embedding_multiplier=12.0, attention_multiplier=0.0625, residual_multiplier=0.22, logits_scaling=8.0
    ),
    "cohere": lambda: CohereConfig(**_SHAPE, logit_scale=0.25),  # (scaled logits)
    "mixtral": lambda: MixtralConfig(**_SHAPE, num_local_experts=4, num_experts_per_tok=2),  # (experts)
    "qwen3_moe": lambda: Qwen3MoeConfig(  # (experts of a width of their own)
        **_SHAPE, head_dim=24, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
    ),
    "gpt_oss": lambda: GptOssConfig(  # (experts with biases, attention sinks, no SDPA)
        **_SHAPE, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
}  # fmt: skip
EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")


def random_backbone(architecture: str) -> PreTrainedModel:
    """An untrained decoder of four layers, always the same for the same name."""
    torch.manual_seed(0)
    config = (ARCHITECTURES | LATER)[architecture]()
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def model_preset(name: str) -> ModelConfig:
    """The file of that name in conf/model."""
    return ModelConfig(**OmegaConf.to_container(OmegaConf.load(files("ladder_cli.conf") / "model" / f"{name}.yaml")))


def loss_curve(model, optimizer, ids, labels, steps) -> list[float]:
    """The losses of a training that sees one batch again and again."""
    losses = []
    for _ in range(steps):
        loss = model.train()(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.fixture(params=list(ARCHITECTURES))
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


@pytest.fixture
def without_compiler(monkeypatch, tmp_path):
    """An environment, for processes that are started, in which torch finds no C++ compiler and nothing compiled."""
    monkeypatch.setenv("CXX", "/bin/false")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
