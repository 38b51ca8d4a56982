"""A branch: the copy of the backbone's last layers that takes their place."""

import pytest
import torch

from ladder_cli.config.methods import LadderMethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.cloning import put_in_place
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder_config import LadderConfig
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.parts import anatomy_of
from tests.conftest import ARCHITECTURES, EXPERTS, LATER, random_backbone

MODEL = ModelConfig(name="random", hub_id="nowhere/random")
BRANCH = dict(
    name="branch", kind="ladder", learning_rate=1e-3, connections="branch", layers=2, reduction=1, gate="tap",
    combine="replace", projection="none", init="cloned", recompute=False,
)  # fmt: skip


def attach(backbone, **changes):
    return method_for(LadderMethodConfig(**{**BRANCH, **changes})).attach(LiveTrunk(backbone, MODEL.hub_id))


def test_it_trains_as_the_last_layers_themselves_would_be_trained():
    ids = torch.randint(2, 90, (3, 17))
    model = attach(random_backbone("llama")).train()
    whole = random_backbone("llama")
    last = whole.model.layers[2:]
    last.requires_grad_(True)
    for _ in range(3):
        losses = []
        for parameters, loss in (
            (list(model.side.layers.parameters()), model(input_ids=ids, labels=ids).loss),
            (list(last.parameters()), whole(input_ids=ids, labels=ids).loss),
        ):
            loss.backward()
            losses.append(loss.item())
            with torch.no_grad():
                for parameter in parameters:
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for ours, theirs in zip(model.side.layers.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_backbones_own_last_layers_do_not_run():
    backbone = random_backbone("qwen2")
    model = attach(backbone)
    ran = []
    for number, layer in enumerate(backbone.model.layers, start=1):
        layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    model(input_ids=torch.randint(2, 90, (2, 7)))
    assert ran == [1, 2]


def test_a_copy_of_a_quantised_backbone_starts_near_it():
    config = ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", quantization="nf4")
    ids = torch.randint(5, 400, (2, 20))
    model = (
        method_for(LadderMethodConfig(**BRANCH)).attach(LiveTrunk(load_backbone(config, torch.device("cpu")))).eval()
    )
    expected = load_backbone(config, torch.device("cpu"))(ids).logits
    assert (model(input_ids=ids).logits - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES | LATER if name not in EXPERTS])
def test_its_layers_put_in_place_make_an_ordinary_model_that_says_the_same(architecture):
    backbone = random_backbone(architecture)
    model = attach(backbone).eval()
    ids = torch.randint(2, 90, (2, 24))
    with torch.no_grad():
        for parameter in model.side.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        expected, before = model(input_ids=ids).logits, backbone(ids).logits
        assert model.config.takes_place_of() == [3, 4]
        with pytest.raises(UserError, match="format=merged"):
            model.merge_and_unload()
        put_in_place(model.side, list(anatomy_of(backbone).layers[2:]))
        assert not torch.allclose(before, expected, atol=1e-3)
        torch.testing.assert_close(backbone(ids).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "replaced"),
    [
        ({}, [3, 4]),
        ({"layers": 1}, [4]),
        ({"connections": [[2, 1]]}, []),  # layer 4 has no copy
        ({"connections": [[2, 1], [3, 2]]}, []),  # its second layer begins from the backbone's third
        ({"gate": "sum"}, []),
        ({"combine": "residual"}, []),
        ({"projection": "full"}, []),
        ({"tap_norm": "rms"}, []),
        ({"init": "uniform"}, []),
        ({"attention": "backbone"}, []),  # fewer heads than the layers have that it would replace
        ({"reduction": 2, "projection": "full", "init": "uniform"}, []),
    ],
)
def test_only_whole_layers_up_to_the_last_take_the_backbones_place(changes, replaced):
    values = {**BRANCH, **changes}
    if values["connections"] == [[2, 1]]:
        values["layers"] = 1
    shape = {name: values[name] for name in ("reduction", "gate", "combine", "projection", "init")}
    config = LadderConfig(
        backbone=random_backbone("qwen2").config.to_dict(),
        pairs=connect(4, values["connections"], values["layers"]).pairs,
        side_layers=values["layers"],
        **shape,
        **{name: changes[name] for name in ("tap_norm", "attention") if name in changes},
    )
    assert config.takes_place_of() == replaced


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reduction": 2}, r"method\.projection=none needs method\.reduction=1"),
        ({"layers": 4}, "leaves no backbone layer to branch off from"),
        ({"block": "attention"}, "is not in the backbone|needs method.block=full"),
        ({"connections": "last", "layers": 3, "delta": 1}, "would copy backbone layer 5"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        attach(random_backbone("llama"), **changes)
