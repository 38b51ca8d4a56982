"""Ladder and QLoRA on quantised backbones: losses fall, and an evaluation in between does no harm."""

import pytest
import torch

from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.methods.registry import load_adapter, method_for
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone, parameter_count

METHODS = {
    "ladder": LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2),
    "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3, rank=4, alpha=8),
}


def quantised(quantization: str, dtype: str = "float32") -> ModelConfig:
    return ModelConfig(name="tiny", path="builtin:tiny", dtype=dtype, quantization=quantization, side_reduction=2)


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("name", METHODS)
def test_training_lowers_the_loss_and_the_adapter_survives_a_reload(name, quantization, tmp_path):
    torch.manual_seed(0)
    config = quantised(quantization)
    method = method_for(METHODS[name])
    model = method.attach(LiveTrunk(load_backbone(config, torch.device("cpu"))))
    ids = torch.randint(5, 400, (2, 24))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(8):
        # An evaluation between the steps, as the trainer does it: it must not change what training computes.
        model.eval()
        with torch.no_grad():
            model(input_ids=ids)
        model.train()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    model.save_pretrained(tmp_path)
    model.eval()
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        loaded = load_adapter(tmp_path, load_backbone(config, torch.device("cpu")))
        assert torch.equal(loaded(input_ids=ids).logits, expected)


def test_gradients_through_nf4_are_the_same_after_an_evaluation():
    """bitsandbytes packs 4-bit weights in place on some CPUs, and that product has no right gradient."""
    config = quantised("nf4", dtype="bfloat16")
    method = method_for(METHODS["qlora"])
    torch.manual_seed(0)
    model = method.attach(LiveTrunk(load_backbone(config, torch.device("cpu"))))
    ids = torch.randint(5, 400, (2, 24))

    def gradients():
        model.zero_grad()
        model.train()
        model(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    after = gradients()
    assert before.abs().max() > 0
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_packed_weights_count_as_what_they_stand_for(quantization):
    assert parameter_count(load_backbone(quantised(quantization), torch.device("cpu"))) == 2_474_304
