"""Weights that are not those of the model: refused by name, never made up; wrappers before names are read through."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

from ladder_cli import LadderModel, connect
from ladder_cli.errors import UserError
from ladder_cli.trunk.loading import load_backbone
from tests.conftest import LATER

CPU = torch.device("cpu")
UP = "model.layers.3.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny_config, tmp_path) -> Path:
    """A copy of the embedded model to change."""
    shutil.copytree(tiny_config.location, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def load(tiny_config, folder):
    def load(**options):
        return load_backbone(replace(tiny_config, path=str(folder), **options), CPU)

    return load


def change_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    weights = {name: value.clone() for name, value in load_file(path).items()}
    save_file(change(weights), path, metadata={"format": "pt"})


def rename(weights, new_name):
    return {new_name(name): value for name, value in weights.items()}


WRAPPERS = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DataParallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "a model in a model": lambda name: f"model.{name}",
    "PEFT": lambda name: f"base_model.model.{name}",
    "compiled parts": lambda name: name.replace(".mlp.", "._orig_mod.mlp.").replace(".self_", "._orig_mod.self_"),
    "no prefix at all": lambda name: name.removeprefix("model."),
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_before_the_names_are_read_through(wrapper, folder, load, tiny_backbone, caplog):
    change_weights(folder, lambda weights: rename(weights, WRAPPERS[wrapper]))
    loaded = load().state_dict()
    for name, value in tiny_backbone.state_dict().items():
        assert torch.equal(loaded[name], value), name
    if wrapper not in ("a model in a model", "no prefix at all"):  # Transformers reads these itself
        assert "read without it" in caplog.text


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
class TestRefused:
    def refused(self, load, quantization, match) -> None:
        with pytest.raises(UserError, match=match) as refusal:
            load(quantization=quantization)
        assert "\n" not in str(refusal.value)

    def test_a_layer_under_other_names(self, folder, load, quantization):
        change_weights(folder, lambda weights: rename(weights, lambda name: name.replace("layers.5", "blocks.5")))
        match = r"12 missing \(model\.layers\.5\.input_layernorm\.weight, .*12 not of this model \(model\.blocks\.5"
        self.refused(load, quantization, match)

    def test_a_weight_of_another_shape(self, folder, load, quantization):
        change_weights(folder, lambda weights: weights | {UP: weights[UP][:-8].clone()})
        self.refused(load, quantization, r"1 of another shape \(model\.layers\.3\.mlp\.up_proj\.weight \[504, 192\]")

    def test_a_weight_too_many(self, folder, load, quantization):
        change_weights(folder, lambda weights: weights | {"score.weight": torch.zeros(2, 4)})
        self.refused(load, quantization, r"1 not of this model \(score\.weight\)")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_value_that_is_not_finite(self, folder, load, quantization, value):
        def spoil(weights):
            weights[UP][0, 0] = value
            return weights

        change_weights(folder, spoil)
        self.refused(load, quantization, rf"not finite, in {UP}")

    @pytest.mark.parametrize(
        ("field", "change", "match"),
        [
            ("num_hidden_layers", 2, "24 missing"),
            ("num_hidden_layers", -2, "24 not of this model"),
            ("intermediate_size", 64, "18 of another shape"),
            ("vocab_size", 8, r"of another shape \(.*embed_tokens"),
        ],
    )
    def test_a_config_of_another_size(self, folder, load, quantization, field, change, match):
        config = json.loads((folder / "config.json").read_text())
        config[field] += change
        config.pop("layer_types", None)
        (folder / "config.json").write_text(json.dumps(config))
        self.refused(load, quantization, match)


def test_a_checkpoint_of_another_architecture_is_refused(folder, load):
    config = {"model_type": "gpt_neox", "vocab_size": 576, "hidden_size": 192, "num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 256, "num_attention_heads": 4}))
    with pytest.raises(UserError, match=r"GPTNeoXForCausalLM.*28 missing.*74 not of this model"):
        load()


def test_frequencies_that_old_checkpoints_store_are_left_alone(folder, load):
    change_weights(folder, lambda weights: weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    load()


def test_of_a_model_for_text_and_images_the_text_part_is_loaded(tiny_config, tmp_path, caplog):
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LATER["gemma3_text"]().to_dict()
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision.to_dict(), mm_tokens_per_image=4, image_token_index=90)
    )
    whole.save_pretrained(tmp_path)
    loaded = load_backbone(replace(tiny_config, path=str(tmp_path)), CPU)
    assert loaded.config.model_type == "gemma3_text"
    assert "its text part" in caplog.text
    ids = torch.arange(2, 20)[None]
    torch.testing.assert_close(loaded(ids).logits, whole.eval()(ids).logits)


def test_an_adapter_that_was_saved_compiled_is_read(tiny_backbone, tmp_path):
    model = LadderModel.on(tiny_backbone, connect(6, "aligned"), reduction=2)
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    stored = load_file(path)
    save_file({name.replace("layers.", "layers._orig_mod."): value.clone() for name, value in stored.items()}, path)
    (tmp_path / "SHA256SUMS").unlink(missing_ok=True)
    loaded = LadderModel.from_pretrained(tmp_path, backbone=tiny_backbone)
    for name, value in model.side.state_dict().items():
        assert torch.equal(loaded.side.state_dict()[name], value), name


def test_an_adapter_says_how_many_weights_do_not_fit(tiny_backbone, tmp_path):
    LadderModel.on(tiny_backbone, connect(6, "aligned"), reduction=2).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    stored = load_file(path)
    save_file({name: value.clone() for name, value in stored.items() if "layers.3" not in name}, path)
    (tmp_path / "SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"layers\.3\..* is missing, and 11 more do not fit"):
        LadderModel.from_pretrained(tmp_path, backbone=tiny_backbone)
