"""What is exported says what was trained: merged, for peft, for vLLM, for llama.cpp; and never over anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ladder_cli import UserError, finetune
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import ModelConfig
from ladder_cli.config.using import ExportConfig
from ladder_cli.errors import RunFailed
from ladder_cli.methods.registry import load_adapter
from ladder_cli.nn.connections import connect
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.run.directory import RunDir
from ladder_cli.serve import dense as dense_module
from ladder_cli.serve import export as export_module
from ladder_cli.serve.dense import densify, dequantise
from ladder_cli.serve.export import export_run
from ladder_cli.serve.ladder_folder import read_ladder_folder, refuse_unserved
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.parts import keep_differentiable
from tests.conftest import random_backbone

QUICK = (
    "hardware=cpu", "data.train_samples=32", "data.validation_samples=8", "train.max_steps=3", "data.cache=false",
    "train.learning_rate=0.01",
)  # fmt: skip
TRAINED = {
    "ladder": ["method=ladder"],
    "qlora": ["method=qlora"],
    "suffix-nf4": ["method=suffix", "model.quantization=nf4", "model.head_quantization=nf4"],
    "qlora-int8": ["method=qlora", "model.quantization=int8"],
    "ladder-suffix": ["method=ladder-suffix", "method.suffix_layers=3", "method.layers=3"],
    "ladder-suffix-nf4": ["method=ladder-suffix", "method.suffix_layers=2", "model.quantization=nf4"],
    "branch": ["method=branch"],
    "branch-nf4": ["method=branch", "model.quantization=nf4"],
    "ladder-nf4": ["method=xladder", "model.quantization=nf4"],
}
IDS = torch.arange(3, 99).view(2, 48)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run directories by name, trained when they are first asked for."""
    home, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            made[name] = finetune(*TRAINED[name], *QUICK, f"output_dir={home / name}").path
        return made[name]

    return run


def export(run, form, output, *options):
    words = [f"run={run}", f"format={form}", f"output={output}", "hardware=cpu", *options]
    return export_run(RunDir(run), composed("export", ExportConfig, words), words)


def adapter_model(run, **model):
    backbone = load_backbone(
        ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", **model), torch.device("cpu")
    )
    keep_differentiable(backbone)
    return load_adapter(run / "adapter", backbone)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits.float()


QUANTISED = {
    "qlora": {},
    "suffix-nf4": {"quantization": "nf4", "head_quantization": "nf4"},
    "qlora-int8": {"quantization": "int8"},
    "branch": {},
    "branch-nf4": {"quantization": "nf4"},
}


@pytest.mark.parametrize("name", QUANTISED)
def test_a_merged_model_is_the_adapter_for_plain_transformers(runs, name, tmp_path):
    found = export(runs(name), "merged", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    model = adapter_model(runs(name), **QUANTISED[name])
    expected = logits(model)
    # int8 quantises what goes into a layer too, which no matrix can repeat.
    allowed = 1e-3 if name != "qlora-int8" else 0.1 * expected.abs().max()
    assert (logits(merged) - expected).abs().max() < allowed
    assert (model.backbone_logits(input_ids=IDS).float() - expected).abs().max() > 5 * found.difference.largest
    assert not hasattr(merged.config, "quantization_config")
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}


def test_merged_weights_are_the_dequantised_ones_and_the_change_rounded_once(runs):
    model = adapter_model(runs("suffix-nf4"), **QUANTISED["suffix-nf4"])
    expected = {}
    for name, layer in model.bare_backbone.named_modules():
        if isinstance(layer, LoraLayer):
            base = layer.get_base_layer()
            low, high = (getattr(layer, part)["default"].weight.double() for part in ("lora_A", "lora_B"))
            change = high @ low * layer.scaling["default"]
            assert change.abs().max() > 0
            expected[name] = dequantize_4bit(base.weight.data, base.weight.quant_state).double() + change
    assert expected
    dense = densify(model.bare_backbone, torch.float32)
    for name, weight in expected.items():
        assert torch.equal(dense.get_submodule(name).weight, weight.float()) or torch.allclose(
            dense.get_submodule(name).weight.double(), weight, atol=1e-7, rtol=0
        )


def test_the_written_type_can_be_chosen_and_is_told_in_the_difference(runs, tmp_path):
    whole = export(runs("qlora"), "merged", tmp_path / "whole")
    half = export(runs("qlora"), "merged", tmp_path / "half", "dtype=bfloat16")
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert half.difference.largest > 10 * whole.difference.largest


@pytest.mark.parametrize("name", ["qlora", "suffix-nf4"])
def test_peft_loads_an_exported_adapter_without_this_package(runs, name, tmp_path):
    export(runs(name), "peft", tmp_path / "out")
    code = (
        "import sys, torch; sys.modules['ladder_cli'] = None\n"
        "from peft import AutoPeftModelForCausalLM\n"
        f"model = AutoPeftModelForCausalLM.from_pretrained({str(tmp_path / 'out')!r}, dtype=torch.float32).eval()\n"
        f"torch.save(model(input_ids=torch.arange(3, 99).view(2, 48)).logits.detach(), {str(tmp_path / 'logits')!r})"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Named is the backbone as it lies there, which is not quantised.
    expected = logits(adapter_model(runs(name)))
    assert torch.allclose(torch.load(tmp_path / "logits"), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("ladder", {}),
        ("ladder-nf4", {"quantization": "nf4"}),
        ("ladder-suffix", {}),
        ("ladder-suffix-nf4", {"quantization": "nf4"}),
    ],
)
def test_a_ladder_folder_holds_backbone_and_side_network(runs, name, model, tmp_path):
    folder = tmp_path / "out"
    found = export(runs(name), "vllm", folder)
    expected = logits(adapter_model(runs(name), **model))
    read = read_ladder_folder(folder)
    assert (logits(read) - expected).abs().max() <= max(1e-4, found.difference.largest)
    assert (logits(read.backbone) - expected).abs().max() > 1e-2
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("served_ladder", ["LadderForCausalLM"])
    assert config["side"]["hidden_size"] * config["reduction"] == config["hidden_size"]
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    stored = {key for file in set(index.values()) for key in load_file(folder / file)}
    assert stored == index.keys()
    assert {file for key, file in index.items() if key.startswith("side.")} == {"side.safetensors"}


@pytest.mark.parametrize(
    ("asked", "written"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_the_side_network_is_written_as_it_was_trained_or_as_it_was_asked_for(runs, asked, written, tmp_path):
    export(runs("ladder"), "vllm", tmp_path / "out", f"dtype={asked}")
    trained = adapter_model(runs("ladder")).side.state_dict()
    stored = load_file(tmp_path / "out" / "side.safetensors")
    assert {weight.dtype for weight in stored.values()} == {written}
    read = read_ladder_folder(tmp_path / "out").side.state_dict()
    for name, weight in trained.items():
        assert torch.equal(stored[f"side.{name}"], weight.to(written))
        assert torch.equal(read[name], weight.to(written).float())


def test_a_folder_that_lost_a_weight_is_refused(runs, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "out"
    export(runs("ladder"), "vllm", folder)
    side = load_file(folder / "side.safetensors")
    save_file(dict(list(side.items())[1:]), folder / "side.safetensors")
    with pytest.raises(UserError, match=r"side\.safetensors"):
        read_ladder_folder(folder)


@pytest.mark.parametrize("form", ["merged", "peft", "gguf"])
def test_a_ladder_asked_for_what_it_cannot_be_says_what_it_can(runs, form, tmp_path):
    with pytest.raises(UserError, match=r"nothing to merge .* format=vllm, and asked by ladder-chat"):
        export(runs("ladder"), form, tmp_path / "out")
    with pytest.raises(UserError, match=r"a ladder with a suffix has a second network .* format=vllm, and asked by"):
        export(runs("ladder-suffix"), form, tmp_path / "out")
    with pytest.raises(UserError, match=r"branch trains whole layers, .* format=vllm or format=merged or format=gguf"):
        export(runs("branch"), "peft", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_backbones_that_no_engine_serves_a_ladder_on_are_refused_by_name():
    backbone = random_backbone("gemma2")
    model = LadderModel.on(backbone, connect(4, "aligned"), reduction=2)
    with pytest.raises(UserError, match=r"on llama, mistral, qwen2, qwen3, .* gemma2"):
        refuse_unserved(model.config)


def test_nothing_is_written_over(runs, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(UserError, match="nothing is written over"):
            export(runs("qlora"), "merged", tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(runs("qlora"), "peft", tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_a_folder_that_says_something_else_is_not_left_behind(runs, tmp_path, monkeypatch):
    def careless(model, dtype):
        first = next(layer for layer in model.modules() if isinstance(layer, LoraLayer))
        first.scaling["default"] *= -1
        return densify(model, dtype)

    monkeypatch.setattr(export_module, "densify", careless)
    with pytest.raises(RunFailed, match="does not say what the trained model says"):
        export(runs("qlora"), "merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_int8_products_trained_is_told_and_written_exactly(runs, tmp_path, capsys):
    """The matrices are the trained ones, though no matrix says what an int8 kernel says: that is told."""
    found = export(runs("qlora-int8"), "merged", tmp_path / "out")
    assert "not quite the model that was evaluated: largest difference" in found.warning
    assert json.loads((tmp_path / "out" / "ladder_export.json").read_text())["warning"] == found.warning
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    model = adapter_model(runs("qlora-int8"), quantization="int8")
    trained = logits(model)
    dequantise(model.bare_backbone)
    assert (logits(merged) - logits(model)).abs().max() < 1e-3 < 0.01 < (logits(merged) - trained).abs().max()
    assert export(runs("qlora-int8"), "peft", tmp_path / "peft").warning is None
    words = [f"run={runs('qlora-int8')}", "format=merged", f"output={tmp_path / 'again'}", "hardware=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "ladder_cli.cli.export", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"warning: {found.warning}" in done.stderr


def test_a_slightly_wrong_merge_into_int8_weights_is_refused(runs, tmp_path, monkeypatch):
    """As large as the rounding of int8 itself, and yet found."""

    def careless(model, dtype):
        for layer in (each for each in model.modules() if isinstance(each, LoraLayer)):
            layer.scaling["default"] *= 1.1
        return densify(model, dtype)

    monkeypatch.setattr(export_module, "densify", careless)
    with pytest.raises(RunFailed, match="does not say what the trained model says"):
        export(runs("qlora-int8"), "merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["qlora-int8", "suffix-nf4"])
def test_a_matrix_that_is_not_its_kernels_is_refused(runs, name, tmp_path, monkeypatch):
    whole = dense_module.dense_weight

    def one_row_wrong(layer):
        weight = whole(layer).clone()
        weight[:4] *= 2
        return weight

    monkeypatch.setattr(dense_module, "dense_weight", one_row_wrong)
    with pytest.raises(RunFailed, match="was not dequantised as its kernel computes"):
        export(runs(name), "merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


CONVERTER = """
import json, pathlib, sys
folder, _, target, *rest = sys.argv[1:]
assert rest == ["--outtype", "auto"], rest
if not (pathlib.Path(folder) / "tokenizer.json").is_file(): sys.exit("no tokenizer")
pathlib.Path(target).write_text(json.loads((pathlib.Path(folder) / "config.json").read_text())["model_type"])
"""


def test_gguf_is_left_to_an_installed_converter(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"convert_hf_to_gguf\.py is not on the PATH: give converter="):
        export(runs("qlora"), "gguf", tmp_path / "out")
    converter = tmp_path / "convert_hf_to_gguf.py"
    converter.write_text(CONVERTER)
    converter.chmod(0o755)
    export(runs("qlora"), "gguf", tmp_path / "out")
    assert (tmp_path / "out" / "qlora.gguf").read_text() == "qwen2"
    assert not (tmp_path / "out" / "merged").exists()
    export(runs("branch"), "gguf", tmp_path / "branch")
    assert (tmp_path / "branch" / "branch.gguf").read_text() == "qwen2"
    converter.write_text("import sys; sys.exit('unknown architecture')")
    with pytest.raises(RunFailed, match=r"exit status 1\): unknown architecture"):
        export(runs("qlora"), "gguf", tmp_path / "again", f"converter={converter}")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("name", "form", "option", "complaint"),
    [
        ("qlora", "merged", "model.quantization=nf4", "was trained with none"),
        ("suffix-nf4", "merged", "model.head_quantization=none", "was trained with nf4"),
        ("qlora", "peft", "dtype=float16", "dtype=float16 is not read"),
    ],
)
def test_other_values_than_those_that_were_trained_are_not_exported(runs, name, form, option, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        export(runs(name), form, tmp_path / "out", option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "run is missing: give run=outputs/NAME."),
        (["run=x"], "format is missing: give format=NAME, of: vllm, merged, peft, gguf."),
        (["run=x", "format=merged"], "output is missing: give output=DIR."),
        (["run=nowhere", "format=merged", "output=out"], "run=nowhere names no run directory"),
        (["run=x", "format=merge", "output=out"], "format=merge is not a choice. Did you mean 'merged'?"),
        (
            ["run=x", "format=peft", "output=o", "converter=c"],
            "nothing reads it: format is peft; format=gguf reads it.",
        ),
        (["run=x", "format=peft", "output=o", "train.max_steps=3"], "unknown option 'train.max_steps'"),
    ],
)
def test_a_mistake_is_one_line(words, line, tmp_path):
    command = [sys.executable, "-m", "ladder_cli.cli.export", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_files_are_readable_by_whoever_the_umask_lets(runs, tmp_path):
    mask = os.umask(0o022)
    try:
        export(runs("qlora"), "peft", tmp_path / "out")
    finally:
        os.umask(mask)
    assert {oct(path.stat().st_mode & 0o777) for path in Path(tmp_path / "out").iterdir()} == {"0o644"}
