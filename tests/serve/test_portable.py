"""`AutoModelForCausalLM.from_pretrained(folder)` of an exported ladder, and what `import ladder_cli` does for it."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from ladder_cli import LadderModel, UserError
from tests.serve.test_vllm import PAIRS, PROMPTS, ladder_folder

IDS = torch.tensor([PROMPTS[3]])


def run_python(code):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("backbone", "shape"), PAIRS)
def test_the_auto_class_loads_what_was_exported(backbone, shape, tmp_path):
    folder, ladder = ladder_folder(tmp_path, backbone, shape)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is LadderModel
    with torch.no_grad():
        found, expected, bare = (each(input_ids=IDS).logits for each in (model, ladder, model.backbone))
    if ladder.suffix is None:
        assert torch.equal(found, expected)
    else:  # the low-rank matrices were added to the weights, and the sum was rounded
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (bare - expected).abs().max() > 0.01
    options = dict(max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(IDS))
    assert torch.equal(model.generate(IDS, **options), ladder.generate(IDS, **options))


@pytest.mark.parametrize(
    "first", ["import ladder_cli; assert not {'torch', 'transformers'} & set(sys.modules)", "import transformers"]
)
def test_importing_the_package_is_enough_whichever_comes_first(first, tmp_path):
    folder, ladder = ladder_folder(tmp_path, "qwen2", "gated")
    done = run_python(
        f"import sys; {first}; import ladder_cli, torch\n"
        "from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        f"torch.save(model(input_ids=torch.tensor({IDS.tolist()})).logits.detach(), {str(tmp_path / 'logits')!r})"
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.allclose(torch.load(tmp_path / "logits"), ladder(input_ids=IDS).logits, atol=1e-5)


def test_without_the_package_transformers_does_not_take_the_folder_for_its_backbone(tmp_path):
    folder, _ = ladder_folder(tmp_path, "qwen2", "aligned")
    done = run_python(
        f"from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained({str(folder)!r})"
    )
    assert done.returncode == 1
    assert "served_ladder" in done.stderr


def test_options_of_loading_reach_the_backbone(tmp_path):
    folder, _ = ladder_folder(tmp_path, "qwen3", "aligned")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
    assert model.backbone.dtype is torch.bfloat16
    assert model.backbone.config._attn_implementation == "eager"
    assert {weight.dtype for weight in model.side.parameters()} == {torch.float32}


def test_what_it_loads_can_be_saved_as_an_adapter(tmp_path):
    folder, ladder = ladder_folder(tmp_path, "llama", "aligned")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "again")
    again = LadderModel.from_pretrained(tmp_path / "again", backbone=ladder.backbone)
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, ladder(input_ids=IDS).logits)


def test_a_strangers_folder_names_no_code_and_a_damaged_one_is_refused(tmp_path):
    folder, _ = ladder_folder(tmp_path, "qwen2", "aligned")
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["backbone"]["auto_map"] = {"AutoModelForCausalLM": "stranger/repository--code.Model"}
    path.write_text(json.dumps(values))
    assert not hasattr(AutoConfig.from_pretrained(folder).backbone_config(), "auto_map")
    AutoModelForCausalLM.from_pretrained(folder)
    path.write_text(json.dumps(values | {"gate": "none of them"}))
    with pytest.raises(UserError, match="describes no ladder: gate"):
        AutoModelForCausalLM.from_pretrained(folder)
    path.write_text(json.dumps(values))
    side = load_file(folder / "side.safetensors")
    save_file(dict(list(side.items())[1:]), folder / "side.safetensors")
    with pytest.raises(UserError, match=r"side\.safetensors"):
        AutoModelForCausalLM.from_pretrained(folder)
    (folder / "side.safetensors").unlink()
    with pytest.raises(UserError, match="holds no exported ladder"):
        AutoModelForCausalLM.from_pretrained(folder)
