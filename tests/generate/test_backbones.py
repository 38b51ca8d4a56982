"""One backbone for all runs of a model: loaded once, and every adapter gives what it gives on a backbone of its own."""

import json
import shutil
import sys
from collections import Counter
from itertools import permutations

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ladder_cli.config.compose import as_dict, composed
from ladder_cli.config.evaluation import DecodeConfig, EvaluateConfig
from ladder_cli.config.schema import HardwareConfig, ModelConfig, TrainConfig
from ladder_cli.console import make_console
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.evaluate.run import evaluate_models
from ladder_cli.generate import backbones
from ladder_cli.generate.backbones import Backbones
from ladder_cli.methods import lora as qlora
from ladder_cli.methods import registry
from ladder_cli.methods.registry import load_adapter
from ladder_cli.nn import adapter
from ladder_cli.nn.adapter import AdapterFolder
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.run import files
from ladder_cli.trunk import weights_identity
from tests.conftest import random_backbone

ARCHITECTURES = ("qwen2", "gpt2")  # (dropout in the side layers of the second)


def changed(model):
    """Weights that change something."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def ladder(pattern, **shape):
    return lambda backbone: LadderModel.on(backbone, connect(4, pattern), reduction=2, **shape)


def lora(rank, last_layers=None):
    return lambda backbone: qlora.attach(backbone, rank, 8, 0.1, False, last_layers)


KINDS = {
    "ladder": ladder("aligned"),
    "ladder of another seed": ladder("aligned"),
    "xladder": ladder("last", gate="vector"),
    "lora": lora(4),
    "lora of another seed": lora(4),
    "lora of another rank": lora(2),
    "suffix": lora(4, last_layers=2),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def adapters(request, tmp_path_factory):
    """Folders of adapters of one backbone, and the logits and greedy tokens that each gives loaded alone."""
    root, ids = tmp_path_factory.mktemp(request.param), torch.tensor([[5, 9, 2, 7, 30], [0, 0, 3, 8, 11]])
    expected = {}
    for seed, (name, attach) in enumerate(KINDS.items()):
        backbone = random_backbone(request.param)
        torch.manual_seed(seed)
        changed(attach(backbone)).save_pretrained(root / name)
        expected[name] = answers(load_adapter(root / name, random_backbone(request.param)), ids)
    assert len({logits.numpy().tobytes() for logits, _ in expected.values()}) == len(KINDS)
    return request.param, root, ids, expected


def answers(model, ids):
    mask = (ids != 0).long()
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask).logits
        tokens = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    return logits, tokens


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def shared(adapters, monkeypatch):
    """A shared backbone, and how often it has been loaded."""
    loads = Counter()

    def load(model, device):
        loads["loads"] += 1
        return random_backbone(adapters[0])

    monkeypatch.setattr(backbones, "load_backbone", load)
    return Backbones("cpu").of(ModelConfig()), loads


ORDERS = [
    *permutations(["ladder", "ladder of another seed", "xladder"]),
    *permutations(["lora", "lora of another seed", "lora of another rank"]),
    ("lora", "suffix", "lora of another seed", "suffix"),
]


@pytest.mark.parametrize("order", ORDERS, ids=" then ".join)
def test_adapters_of_a_kind_take_turns_on_one_load_and_give_what_each_gives_alone(order, adapters, shared):
    _, root, ids, expected = adapters
    backbone, loads = shared
    for name in order:
        assert same(answers(backbone.with_adapter(AdapterFolder.open(root / name)), ids), expected[name]), name
    assert loads["loads"] == 1


@pytest.mark.parametrize(
    ("order", "count"),
    [
        (("ladder", "lora", "xladder", "lora of another rank"), 4),
        (("ladder", "xladder", "lora", "suffix"), 2),
        (("suffix", "lora", "ladder", "ladder of another seed"), 2),
    ],
)
def test_with_the_kind_of_adapter_the_backbone_is_loaded_anew(order, count, adapters, shared):
    _, root, ids, expected = adapters
    backbone, loads = shared
    for name in order:
        assert same(answers(backbone.with_adapter(AdapterFolder.open(root / name)), ids), expected[name]), name
    assert loads["loads"] == count


def test_for_adapters_of_a_kind_that_nothing_is_known_of_the_backbone_is_loaded_each_time(
    adapters, shared, tmp_path, monkeypatch
):
    _, root, ids, expected = adapters
    backbone, loads = shared
    other = shutil.copytree(root / "xladder", tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"adapter_type": "other"}))
    with pytest.raises(UserError, match="of type other, and those that can be read are peft, ladder"):
        backbone.with_adapter(AdapterFolder.open(other))
    monkeypatch.setitem(
        registry.LOADERS, "other", lambda folder, trunk, _: LadderModel.from_pretrained(root / "xladder", trunk)
    )
    loads.clear()
    for folder, name in ((other, "xladder"), (other, "xladder"), (root / "ladder", "ladder"), (other, "xladder")):
        assert same(answers(backbone.with_adapter(AdapterFolder.open(folder)), ids), expected[name]), name
    assert loads["loads"] == 4


def test_an_adapter_that_is_on_already_is_not_read_again(adapters, shared, monkeypatch):
    _, root, ids, expected = adapters
    backbone, _ = shared
    folder = AdapterFolder.open(root / "ladder")
    first = backbone.with_adapter(folder)
    monkeypatch.setattr(adapter, "load_file", lambda _: pytest.fail("read again"))
    assert backbone.with_adapter(folder) is first
    assert same(answers(first, ids), expected["ladder"])


@pytest.mark.parametrize("kinds", [("ladder", "xladder"), ("lora", "lora of another seed"), ("lora", "suffix")])
@pytest.mark.parametrize("broken", ["not finite", "of another shape", "one missing"])
def test_an_adapter_that_fails_leaves_nothing_behind(kinds, broken, adapters, shared, tmp_path):
    _, root, ids, expected = adapters
    backbone, _ = shared
    before, after = kinds
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / adapter.CONFIG_FILE).write_text((root / after / adapter.CONFIG_FILE).read_text())
    weights = load_file(root / after / adapter.WEIGHTS_FILE)
    name = sorted(weights)[-1]
    if broken == "not finite":
        weights[name].view(-1)[-1] = float("nan")
    elif broken == "of another shape":
        weights[name] = torch.zeros(3, 3, 3)
    else:
        del weights[name]
    save_file(weights, wrong / adapter.WEIGHTS_FILE)
    assert same(answers(backbone.with_adapter(AdapterFolder.open(root / before)), ids), expected[before])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors"):
        backbone.with_adapter(AdapterFolder.open(wrong))
    assert same(answers(backbone.with_adapter(AdapterFolder.open(root / after)), ids), expected[after])
    assert same(answers(backbone.with_adapter(AdapterFolder.open(root / before)), ids), expected[before])


def test_one_backbone_at_a_time_is_in_memory(adapters, monkeypatch):
    _, root, _, _ = adapters
    monkeypatch.setattr(backbones, "load_backbone", lambda model, device: random_backbone(adapters[0]))
    known = Backbones("cpu")
    one, other = known.of(ModelConfig(path="a")), known.of(ModelConfig(path="b"))
    assert known.of(ModelConfig(path="a")) is one
    one.with_adapter(AdapterFolder.open(root / "ladder"))
    other.with_adapter(AdapterFolder.open(root / "ladder"))
    assert (one._ladder, one._model) == (None, None)


class Counts(Counter):
    """Calls and openings while `on`."""

    on = False


COUNTS = Counts()


def _opened(event, arguments):
    if COUNTS.on and event == "open" and str(arguments[0]).endswith(".safetensors"):
        COUNTS["opened adapter" if "adapter" in str(arguments[0]) else "opened backbone"] += 1


@pytest.fixture
def counts(monkeypatch, tmp_path):
    def wrap(module, name, counted):
        inner = getattr(module, name)

        def wrapped(*arguments, **options):
            COUNTS[counted] += 1
            return inner(*arguments, **options)

        monkeypatch.setattr(module, name, wrapped)

    wrap(backbones, "load_backbone", "loads")
    wrap(weights_identity, "_identity", "identified")
    wrap(weights_identity, "_read_digests", "backbone hashed")
    wrap(adapter, "load_file", "adapter tensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    COUNTS.clear()
    COUNTS.on = True
    yield COUNTS
    COUNTS.on = False


sys.addaudithook(_opened)


@pytest.fixture(params=[True, False], ids=["with checksums", "of another maker"])
def five_runs(request, tmp_path, tiny_backbone, tiny_tokenizer):
    config = as_dict(composed("train", TrainConfig, ["model=tiny", "hardware=cpu"]))
    prompt = PromptRenderer(tiny_tokenizer, "Answer.")
    for seed in range(5):
        torch.manual_seed(seed)
        run = tmp_path / "a" / f"ladder,seed={seed}"
        model = LadderModel.on(tiny_backbone, connect(tiny_backbone.config.num_hidden_layers, "aligned"), reduction=2)
        changed(model).save_pretrained(run / "adapter")
        (run / "adapter" / "prompt.json").write_text(json.dumps(prompt.as_dict()))
        if request.param:
            files.seal(run / "adapter")
        (run / "config.yaml").write_text(yaml.safe_dump(config | {"seed": seed, "output_dir": str(run)}))
    rows = [{"sentence": f"The book number {n} was read.", "label": n % 2} for n in range(4)]
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def evaluate(folder, output, runs="a/*"):
    options = EvaluateConfig(
        model=ModelConfig(), hardware=HardwareConfig(name="cpu", device="cpu"), run=f"{folder}/{runs}", limit=4,
        benchmarks=["cola"], data_dir=str(folder), decode=DecodeConfig(batch_size=4), output_dir=str(output),
    )  # fmt: skip
    evaluate_models(options, [], make_console())


def test_five_runs_of_one_model_load_and_identify_it_once_and_read_each_adapter_twice(five_runs, counts):
    evaluate(five_runs, five_runs / "out")
    assert dict(counts) == {
        "loads": 1,
        "identified": 1,
        "backbone hashed": 1,
        "opened backbone": 1,  # for the hash; Transformers reads it by itself
        "adapter tensors": 5,  # for each run once, beside the one reading for its digest
        "opened adapter": 5,
    }
    counts.clear()
    evaluate(five_runs, five_runs / "out")
    assert counts["loads"] == counts["adapter tensors"] == 0, "nothing was left to answer"
    assert counts["opened adapter"] == 5


def test_five_runs_together_have_the_samples_that_each_has_alone(five_runs):
    evaluate(five_runs, five_runs / "out")
    for run in sorted((five_runs / "a").iterdir()):
        evaluate(five_runs, five_runs / "alone" / run.name, f"a/{run.name}")
        together, alone = (
            (folder / "cola" / "samples.jsonl").read_text()
            for folder in (five_runs / "out" / run.name, five_runs / "alone" / run.name)
        )
        assert together == alone
