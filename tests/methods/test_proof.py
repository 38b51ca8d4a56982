"""The proof at attach: it holds where it should, finds each kind of fault, and disturbs nothing."""

from dataclasses import replace

import pytest
import torch

from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.methods import proof
from ladder_cli.methods.proof import prove
from ladder_cli.methods.registry import load_adapter, method_for
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import random_backbone

MODEL = ModelConfig(name="random", hub_id="nowhere/random")
LADDER = LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2, recompute=False)
QLORA = QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3, rank=4, alpha=8)


def ladder_on(architecture: str, dtype: torch.dtype = torch.float32) -> LadderModel:
    torch.manual_seed(1)
    return LadderModel.on(random_backbone(architecture).to(dtype), connect(4, "aligned"), reduction=2)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gemma3_text", "qwen3_moe", "gpt_oss"])
def test_it_holds_in_bfloat16(architecture):
    prove(ladder_on(architecture, torch.bfloat16), untrained=True)


def forget(monkeypatch, attention) -> None:
    """Let an attention see the tokens of one call alone, as if its cache were empty, and raise nothing."""
    plain = type(attention).forward

    def forgetful(*args, past_key_values=None, **kwargs):
        return plain(attention, *args, past_key_values=None, **kwargs | {"attention_mask": None})

    monkeypatch.setattr(attention, "forward", forgetful)


def test_a_side_cache_that_stays_empty_is_found():
    model = ladder_on("gpt_neox")
    model.side._cache_name = "past_key_values"  # what most layers call it, and what this one ignores
    with pytest.raises(UserError, match=r"GPTNeoXForCausalLM \(gpt_neox\) is not supported"):
        prove(model, untrained=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_side_layer_that_forgets_is_found_though_the_untrained_logits_do_not_show_it(monkeypatch, dtype):
    model = ladder_on("llama", dtype)
    forget(monkeypatch, model.side.layers[3].self_attn)
    with pytest.raises(UserError, match=r"LlamaForCausalLM \(llama\).*cache its side layers see something else"):
        prove(model, untrained=True)


def test_a_scale_of_the_logits_that_is_left_out_is_found():
    model = ladder_on("granite")
    model._anatomy = replace(model._anatomy, logit_divisor=None)
    with pytest.raises(UserError, match=r"granite.*an untrained method changes its logits \(by 7\)"):
        prove(model, untrained=True)


def test_a_backbone_whose_own_cache_is_wrong_is_found(monkeypatch):
    backbone = random_backbone("llama")
    forget(monkeypatch, backbone.model.layers[2].self_attn)
    with pytest.raises(UserError, match=r"LlamaForCausalLM \(llama\).*with the key-value cache it gives other logits"):
        prove(backbone, untrained=False)


def test_a_trained_weight_that_is_not_finite_is_named():
    model = ladder_on("llama")
    model.side.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"trained weight .*layers\.1\.mlp\.up_proj\.weight is not finite"):
        prove(model, untrained=True)


def test_a_trained_weight_that_no_gradient_reaches_is_named():
    model = ladder_on("llama")
    model.side.unused = torch.nn.Linear(3, 3)
    with pytest.raises(UserError, match=r"no gradient reaches its trained weight .*unused\.weight"):
        prove(model, untrained=True)


def test_a_backbone_whose_logits_are_not_finite_is_found():
    backbone = random_backbone("llama")
    backbone.lm_head.weight.data[5] = float("inf")
    with pytest.raises(UserError, match="its logits are not finite"):
        prove(backbone, untrained=False)


def test_what_raises_is_refused_by_name(monkeypatch):
    model = ladder_on("llama")
    monkeypatch.setattr(model.side, "_cache_name", "alibi")
    with pytest.raises(UserError, match="llama"):
        prove(model, untrained=True)


@pytest.mark.parametrize("config", [LADDER, QLORA], ids=["ladder", "qlora"])
@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_it_disturbs_nothing(config, architecture):
    def attached(proven: bool) -> tuple[torch.nn.Module, float]:
        torch.manual_seed(7)
        model = method_for(config).attach(LiveTrunk(random_backbone(architecture), MODEL.hub_id), proven=proven)
        return model, torch.rand(()).item()

    (with_proof, drawn), (without, expected) = attached(True), attached(False)
    assert drawn == expected
    assert [m.training for m in with_proof.modules()] == [m.training for m in without.modules()]
    assert all(parameter.grad is None for parameter in with_proof.parameters())
    for (name, value), (_, other) in zip(with_proof.named_parameters(), without.named_parameters(), strict=True):
        assert torch.equal(value, other), name


def test_attaching_and_loading_prove(monkeypatch, tmp_path):
    ladder_on("llama").save_pretrained(tmp_path)
    proofs = []
    for module in ("ladder", "registry"):
        path = f"ladder_cli.methods.{module}.prove"
        monkeypatch.setattr(path, lambda model, untrained: proofs.append(untrained))
    method_for(LADDER).attach(LiveTrunk(random_backbone("llama"), MODEL.hub_id))
    load_adapter(tmp_path, random_backbone("llama"))
    assert proofs == [True, False]


def test_4_bit_weights_that_the_cpu_packed_are_held_to_bfloat16(monkeypatch):
    # Packed at their first product, and multiplied in bfloat16 whatever the type of the states.
    model = ladder_on("llama")
    block = model.side.layers[3]
    plain = type(block).forward

    def rounded(hidden, *args, **kwargs):
        state = plain(block, hidden, *args, **kwargs)
        return state * 1.004 if hidden.shape[1] == 1 else state  # a step of bfloat16

    monkeypatch.setattr(block, "forward", rounded)
    with pytest.raises(UserError, match=r"its side layers see something else \(by 0.004\)"):
        prove(model, untrained=True)
    monkeypatch.setattr(proof, "is_packed", lambda module: True)
    prove(model, untrained=True)
    forget(monkeypatch, block.self_attn)
    with pytest.raises(UserError, match="its side layers see something else"):
        prove(model, untrained=True)
