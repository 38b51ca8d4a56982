"""Compiled layers compute what the layers compute, at every batch and length, from few graphs."""

import pytest
import torch
from torch._dynamo.utils import counters

from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.trunk.compilation import compile_layers
from ladder_cli.trunk.live import LiveTrunk
from tests.conftest import random_backbone

CPU = torch.device("cpu")
METHODS = {
    "ladder": LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2, recompute=True),
    "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3, gradient_checkpointing=True),
}
# Rows and tokens of each batch, and whether the first row is padded.
BATCHES = [(2, 12, False), (3, 9, True)]


def curve(method: str, compiled: bool) -> list[float]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = method_for(METHODS[method]).attach(LiveTrunk(random_backbone("qwen2"))).train()
    if compiled:
        compile_layers(model, CPU)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for rows, tokens, padded in BATCHES:
        ids = torch.randint(2, 90, (rows, tokens), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 1 - padded
        loss = model(input_ids=ids, attention_mask=mask if padded else None, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_a_compiled_model_learns_as_the_model_does(method):
    plain = curve(method, compiled=False)
    counters.clear()
    compiled = curve(method, compiled=True)
    assert compiled == pytest.approx(plain, abs=1e-5)
    assert plain[0] != pytest.approx(plain[-1], abs=1e-3)
    # Four backbone layers (and four side layers) at two shapes: far fewer graphs than layers times shapes.
    assert 0 < counters["stats"]["unique_graphs"] < 10


def test_where_nothing_can_be_compiled_one_line_says_so(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiler(function, backend=broken))
    with pytest.raises(UserError, match=r"train\.compile=true, but torch\.compile does not work here"):
        compile_layers(torch.nn.Linear(2, 2), CPU)
