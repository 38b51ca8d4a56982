"""Devices beside NVIDIA's: what nobody has seen to work there is refused in one line, before anything is loaded."""

import pytest

from ladder_cli.config.choices import Device, Optimizer
from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.using import ChatConfig
from ladder_cli.errors import UserError
from ladder_cli.trunk.loading import planned_device, resolve_device


@pytest.mark.parametrize("device", ["mps", "xpu"])
@pytest.mark.parametrize(
    ("words", "mends"),
    [
        (["model.quantization=nf4"], "model.quantization=none"),
        (["model.head_quantization=int8"], "model.head_quantization=none"),
        (["trunk.residency=disk"], "trunk.residency=resident"),
        (["train.optimizer=adamw_8bit"], "train.optimizer=adamw"),
        (["hardware.shard_backbone=true"], "hardware.shard_backbone=false"),
    ],
)
def test_what_is_of_cuda_alone_is_refused_with_what_works(device, words, mends):
    with pytest.raises(UserError, match=f"not known to work on hardware.device={device}") as raised:
        composed("train", TrainConfig, [f"hardware.device={device}", *words])
    assert mends in str(raised.value)
    composed("train", TrainConfig, ["hardware.device=cuda", *words])


@pytest.mark.parametrize(("command", "schema"), [("evaluate", EvaluateConfig), ("chat", ChatConfig)])
def test_other_commands_refuse_it_too(command, schema):
    with pytest.raises(UserError, match="not known to work"):
        composed(command, schema, ["hardware.device=mps", "model.quantization=nf4"])


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_a_plan_needs_no_such_machine_and_a_run_does(device):
    config = composed("train", TrainConfig, [f"hardware.device={device}"])
    assert planned_device(config.hardware.device).type == device
    assert Optimizer.AUTO.on(device) is Optimizer.ADAMW
    with pytest.raises(UserError, match=f"hardware.device={device}, but torch finds no"):
        resolve_device(Device(device))
