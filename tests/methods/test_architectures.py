"""Every causal language model of Transformers that can be built small: proven, or refused in one line."""

import warnings

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from ladder_cli.config.methods import LadderMethodConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.live import LiveTrunk

LADDER = LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2, recompute=False)
# Sizes under all the names that configs have for them; each takes those that it knows.
SMALL = dict(
    vocab_size=97, hidden_size=64, intermediate_size=104, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=128, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    sliding_window=8, num_experts=4, num_local_experts=4, n_routed_experts=4, num_experts_per_tok=2,
    moe_intermediate_size=32, shared_expert_intermediate_size=32, n_group=1, topk_group=1,
    n_embd=64, n_head=4, n_layer=4, n_inner=104, n_positions=128, rotary_dim=8, d_model=64, n_heads=4, n_layers=4,
    num_layers=4, num_heads=4, ffn_dim=104, word_embed_proj_dim=64, decoder_layers=2, encoder_layers=2,
    decoder_attention_heads=4, encoder_attention_heads=4, decoder_ffn_dim=64, encoder_ffn_dim=64,
    q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16,
)  # fmt: skip
MOST_PARAMETERS = 2_000_000
# What docs/models.md says: these are proven on random weights, and these are refused.
SUPPORTED = (
    "llama", "mistral", "ministral3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "opt",
    "gpt_neox", "gpt_bigcode", "gptj", "smollm3", "olmo", "olmo2", "olmo3", "granite", "cohere", "cohere2", "mixtral",
    "qwen2_moe", "qwen3_moe", "gpt_oss", "stablelm", "starcoder2", "nemotron", "glm", "glm4", "helium", "exaone4",
    "ernie4_5", "seed_oss", "hunyuan_v1_dense", "arcee", "apertus", "persimmon", "phimoe",
)  # fmt: skip
REFUSED = {
    "bloom": "alibi", "falcon": "alibi", "mpt": "its layers or output head", "mamba": "final norm",
    "bert": "its layers or output head", "bart": "final norm", "minimax": "linear_attention",
    "llama4_text": "its layers or output head", "granitemoe": "experts are not of a known form",
}  # fmt: skip


def small_model(kind: str) -> PreTrainedModel:
    """A model of that kind with random weights.

    Raises:
        LookupError: where these sizes do not suit it, or not all of them are its own.
    """
    try:
        known = AutoConfig.for_model(kind)
        names = {*vars(known), *type(known).attribute_map}
        config = AutoConfig.for_model(kind, **{name: value for name, value in SMALL.items() if name in names})
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            raise LookupError(f"{size:,} parameters")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            model(torch.arange(2, 10)[None])
    except Exception as error:
        raise LookupError(f"{type(error).__name__}: {error}") from error
    return model


def attached(kind: str) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models that nobody has looked at
        model = small_model(kind)
        return method_for(LADDER).attach(LiveTrunk(model))


@pytest.mark.parametrize("kind", SUPPORTED)
def test_what_is_said_to_be_supported_is_proven(kind):
    # Muon takes what has two dimensions for a linear map.
    for module in attached(kind).modules():
        for name, parameter in module.named_parameters(recurse=False):
            linear = isinstance(module, (torch.nn.Linear, Conv1D)) and name == "weight"
            assert not parameter.requires_grad or (parameter.ndim == 2) is linear


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_said_to_be_refused_is_refused_by_name(kind):
    with pytest.raises(UserError, match=f"(?s){kind}.*{REFUSED[kind]}|{REFUSED[kind]}.*{kind}") as refusal:
        attached(kind)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - {*SUPPORTED, *REFUSED}))
def test_any_other_is_proven_or_refused_in_one_line(kind):
    refusal = ""
    try:
        attached(kind)
    except LookupError as error:
        pytest.skip(f"cannot be built small: {str(error)[:80]}")
    except UserError as error:
        refusal = str(error)
    assert not refusal or ("\n" not in refusal and kind in refusal)
