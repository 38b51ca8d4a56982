"""What travels from a training to vLLM, and that nothing is answered by other weights. Needs no vLLM: its part is
played by a recorder here; tests/serve/test_vllm_training.py has the real one.
"""

import importlib.metadata
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import RunFailed
from ladder_cli.generate.decoding import limits_of
from ladder_cli.methods.lora import attach
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.run.directory import RunDir
from ladder_cli.serve import live
from ladder_cli.serve.ladder_folder import read_ladder_folder
from ladder_cli.serve.vllm_updates import digest_of
from ladder_cli.trunk.loading import load_backbone

CPU = torch.device("cpu")


class Workers:
    """As many as are asked for, which take weights as vLLM's do, and keep them."""

    def __init__(self, count=2):
        self.count, self.taken, self.emptied, self.adapters = count, [], 0, []
        self.llm_engine = SimpleNamespace(add_lora=self.add_lora)
        self.misread = self.full = self.forgets = False
        self.left = []

    def collective_rpc(self, method, args=()):
        if method == "list_loras":
            held = set() if self.forgets else {adapter.lora_int_id for adapter in self.adapters[-1:]}
            return [held] * self.count
        assert method == "take_weights"
        weights = load_file(args[0])
        self.taken.append(weights)
        answers = [(digest_of(weights), self.left)] * self.count
        return [*answers[1:], ("another", [])] if self.misread else answers

    def reset_prefix_cache(self):
        self.emptied += 1
        return not self.full

    def add_lora(self, adapter):
        path = Path(adapter.lora_path)
        self.taken.append(load_file(path / "adapter_model.safetensors"))
        self.config = json.loads((path / "adapter_config.json").read_text())
        self.adapters.append(adapter)
        return True


@pytest.fixture
def policy_of(tiny_config, tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.32.1")
    request = ModuleType("vllm.lora.request")
    request.LoRARequest = lambda name, number, path: SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=path)
    for name in ("vllm", "vllm.lora"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", request)

    def policy(model):
        return live.Policy(
            model, tiny_config, RunDir(tmp_path / "run"), PromptRenderer(tiny_tokenizer, ""), limits_of(model), CPU,
            "cpu", 80, 0.3, nullcontext,
        )  # fmt: skip

    return policy


def ladder(config, **options):
    backbone = load_backbone(config, CPU)
    layers = len(backbone.model.layers)
    connections = connect(layers, "aligned", suffix_layers=options.get("suffix_layers", 0))
    return moved(LadderModel.on(backbone, connections, reduction=2, **options).eval())


def moved(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


SHAPES = {"plain": {}, "suffix": dict(suffix_layers=2, rank=4, alpha=8)}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_folder_says_what_learns_and_what_is_sent_afterwards_makes_it_what_has_been_learned(
    shape, tiny_config, policy_of
):
    model = ladder(tiny_config, **SHAPES[shape])
    following, workers = live._Ladder(policy_of(model)), Workers()
    served = following.served()
    read = read_ladder_folder(served.folder)
    ids = torch.randint(5, 400, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(read(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
        moved(model, seed=1)
        assert not torch.allclose(read(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-2)
        assert following.bring(workers) is None
        (sent,) = workers.taken
        # By the names of the folder, as vLLM's model takes them: side network, and merged matrices of the layers above.
        side = {name.removeprefix("side."): each for name, each in sent.items() if name.startswith("side.")}
        read.side.load_state_dict(side)
        above = {name: each for name, each in sent.items() if not name.startswith("side.")}
        backbone = dict(read.backbone.named_parameters())
        for name, each in above.items():
            backbone[name].copy_(each)
        torch.testing.assert_close(read(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    layers = {name.split(".")[2] for name in above}
    assert len(layers) == SHAPES[shape].get("suffix_layers", 0), "nothing of the layers that are only read"
    assert workers.emptied == 1


def test_weights_travel_when_they_have_changed_or_vllm_is_another_and_not_else(tiny_config, policy_of):
    model, workers = ladder(tiny_config), Workers()
    following = live._Ladder(policy_of(model))
    for _ in range(3):
        following.bring(workers)
    assert (len(workers.taken), workers.emptied) == (1, 1)
    moved(model, seed=1)
    following.bring(workers)
    assert len(workers.taken) == 2
    again = Workers()
    following.bring(again)
    assert len(again.taken) == 1
    assert list(Path(following._home.path).iterdir()) == []


@pytest.mark.parametrize("fault", ["misread", "full", "left"])
def test_what_vllm_does_not_show_that_it_has_it_is_not_asked_by(fault, tiny_config, policy_of):
    following, workers = live._Ladder(policy_of(ladder(tiny_config))), Workers()
    setattr(workers, fault, ["side.gate"] if fault == "left" else True)
    for _ in range(2):  # nor is it taken for sent the next time
        with pytest.raises(RunFailed, match="vLLM does not have the weights"):
            following.bring(workers)
    assert len(workers.taken) == 2
    setattr(workers, fault, [] if fault == "left" else False)
    following.bring(workers)
    assert len(workers.taken) == 3


def test_low_rank_adapters_travel_as_they_are_each_by_a_number_of_its_own(tiny_config, policy_of):
    model = attach(load_backbone(tiny_config, CPU), 4, 8, 0.0, gradient_checkpointing=False, last_layers=2)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)  # as in training
    moved(model)
    following, workers = live._LowRank(policy_of(model)), Workers()
    assert (following.options["enable_lora"], following.options["max_lora_rank"]) == (True, 8)
    assert following.served().folder.endswith("tiny")
    first = following.bring(workers)
    assert following.bring(workers) is first
    moved(model, seed=1)
    second = following.bring(workers)
    assert (first.lora_int_id, second.lora_int_id) == (1, 2)
    assert first.lora_name != second.lora_name
    assert len(workers.taken) == 2
    trained = [weight for _, weight in sorted(model.named_parameters()) if weight.requires_grad]
    sent = [weight for _, weight in sorted(workers.taken[-1].items())]
    assert len(sent) == len(trained) > 0
    assert all(torch.equal(one, other) for one, other in zip(sent, trained, strict=True))
    assert workers.config["exclude_modules"] is None
    assert [path.name for path in Path(following._home.path).iterdir()] == ["2"]
    workers.forgets = True
    moved(model, seed=2)
    with pytest.raises(RunFailed, match="a worker does not have the adapter"):
        following.bring(workers)


def test_a_digest_is_of_names_types_shapes_and_values():
    weights = {"a": torch.arange(6.0), "b": torch.ones(2)}
    others = [
        {"a": torch.arange(6.0), "c": torch.ones(2)},
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)},
        {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.bfloat16)},
        {"a": torch.arange(6.0) + 1e-6, "b": torch.ones(2)},
    ]
    assert len({digest_of(each) for each in (weights, *others)}) == 5
    assert digest_of(dict(reversed(weights.items()))) == digest_of(weights)
