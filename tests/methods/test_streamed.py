"""What is trained over layers that come and go is, bit for bit, what is trained over layers that stay."""

from collections.abc import Iterator

import pytest
import torch

from ladder_cli.config.choices import Residency
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.parts import keep_differentiable
from ladder_cli.trunk.streamed import SOURCES, open_streamed
from tests.trunk.copier import ring_in_memory, staged_in_memory
from tests.trunk.test_layer_folder import FORMS

CPU = torch.device("cpu")
LAYERS = 6
# Layers that gradients pass through, or that are copied, and layers that stay then.
METHODS = {
    "suffix": (["method=suffix", "method.layers=2"], {5, 6}),
    "suffix, checkpointed": (["method=suffix", "method.layers=3", "method.gradient_checkpointing=true"], {4, 5, 6}),
    "suffixed": (
        ["method=ladder-suffix", "method.layers=2", "method.suffix_layers=2", "method.gradient_checkpointing=true"],
        {5, 6},
    ),
    "branch": (["method=branch", "method.layers=2"], set()),
    "ladder": (["method=ladder"], set()),
}


def curve(trunk, options: list[str]) -> Iterator[tuple[float, dict[str, torch.Tensor]]]:
    """Three steps: of each the loss, and the gradients of what is trained."""
    torch.manual_seed(0)
    model = method_for(composed("train", TrainConfig, options).method).attach(trunk).train()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    ids = torch.randint(5, 400, (2, 17), generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        yield loss.item(), {name: weight.grad.clone() for name, weight in trained.items() if weight.grad is not None}
        optimizer.step()
        optimizer.zero_grad()


CASES = [
    *((method, form, "mapped") for method in METHODS for form in FORMS),
    *((method, ("nf4", "bfloat16"), source) for method in ("suffix", "branch") for source in ("pinned", "staged")),
    ("suffix", ("int8", "bfloat16"), "pinned"),
]
RINGS = {"pinned": ring_in_memory, "staged": staged_in_memory}


@pytest.mark.parametrize(("method", "form", "source"), CASES)
def test_losses_and_gradients_are_those_of_resident_layers(method, form, source, tmp_path_factory, monkeypatch):
    monkeypatch.setitem(SOURCES, ("cpu", Residency.DISK), RINGS.get(source, SOURCES["cpu", Residency.DISK]))
    quantization, dtype = form
    options, stays = METHODS[method]
    model = ModelConfig(name="tiny", path="builtin:tiny", dtype=dtype, quantization=quantization)
    files = tmp_path_factory.getbasetemp() / "layers-of-tiny"  # made once for each form
    trunk = open_streamed(model, CPU, Residency.DISK, 2, files)
    streamed = list(curve(trunk, options))
    assert trunk.streamed == set(range(1, LAYERS + 1)) - stays
    backbone = load_backbone(model, CPU)
    keep_differentiable(backbone)
    resident = list(curve(LiveTrunk(backbone), options))
    assert [loss for loss, _ in streamed] == [loss for loss, _ in resident]
    assert len({loss for loss, _ in streamed}) == 3
    for (_, ours), (_, theirs) in zip(streamed, resident, strict=True):
        assert ours.keys() == theirs.keys() != set()
        assert any(bool(gradient.any()) for gradient in ours.values())
        for name, gradient in theirs.items():
            assert torch.equal(ours[name], gradient), name
