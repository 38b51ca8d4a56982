"""Several ladders beside one backbone, and ladders in the hands of other people's trainers."""

import json
import math

import pytest
import torch
from transformers import Trainer, TrainingArguments

from ladder_cli import LadderModel, connect, load_adapter
from ladder_cli.config.methods import LADDER_CHOICES
from ladder_cli.errors import UserError
from tests.conftest import random_backbone


def trained(backbone, pattern, seed, **shape) -> LadderModel:
    torch.manual_seed(seed)
    model = LadderModel.on(backbone, connect(4, pattern), reduction=2, **shape).eval()
    for parameter in model.side.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def two_folders(tmp_path, token_ids):
    """Two adapters of different shape, and the logits that each gives."""
    expected = {}
    for seed, (name, pattern) in enumerate({"wide": "aligned", "deep": "last"}.items()):
        model = trained(random_backbone("qwen2"), pattern, seed)
        model.save_pretrained(tmp_path / name)
        expected[name] = model(token_ids).logits
    return tmp_path, expected


def test_named_adapters_are_switched_without_reloading(two_folders, token_ids):
    folder, expected = two_folders
    backbone = random_backbone("qwen2")
    bare = backbone(token_ids).logits
    model = LadderModel.from_pretrained(folder / "wide", backbone=backbone)
    model.load_adapter(folder / "deep", "deep")
    assert torch.equal(model(token_ids).logits, expected["deep"])
    model.set_adapter("default")
    assert torch.equal(model(token_ids).logits, expected["wide"])
    with model.disable_adapter():
        assert torch.equal(model(token_ids).logits, bare)
        generated = model.generate(input_ids=token_ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert torch.equal(
        generated, backbone.generate(input_ids=token_ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    )
    assert torch.equal(model(token_ids).logits, expected["wide"])
    with pytest.raises(UserError, match="no adapter named 'third': there are default, deep"):
        model.set_adapter("third")
    with pytest.raises(UserError, match="named 'deep' already"):
        model.load_adapter(folder / "deep", "deep")


def test_an_adapter_that_is_not_active_can_be_taken_away(two_folders, token_ids):
    folder, expected = two_folders
    model = LadderModel.from_pretrained(folder / "wide", backbone=random_backbone("qwen2"))
    model.load_adapter(folder / "deep", "deep")
    with pytest.raises(UserError, match="'deep' is the active one"):
        model.delete_adapter("deep")
    model.delete_adapter("default")
    assert torch.equal(model(token_ids).logits, expected["deep"])
    with pytest.raises(UserError, match="no adapter named 'default': there are deep"):
        model.set_adapter("default")
    model.load_adapter(folder / "wide", "default")
    assert torch.equal(model(token_ids).logits, expected["wide"])


def test_an_adapter_that_cannot_be_loaded_leaves_the_active_one(two_folders, token_ids):
    folder, expected = two_folders
    model = LadderModel.from_pretrained(folder / "wide", backbone=random_backbone("qwen2"))
    weights = folder / "deep" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\xff\xff\xff\xff")
    with pytest.raises(UserError, match="not finite"):
        model.load_adapter(folder / "deep", "deep")
    assert list(model.sides) == ["default"]
    assert torch.equal(model(token_ids).logits, expected["wide"])


def test_a_second_ladder_of_an_evaluated_model_has_no_dropout(tmp_path, token_ids):
    trained(random_backbone("gpt2"), "aligned", 1).save_pretrained(tmp_path)
    model = LadderModel.from_pretrained(tmp_path, backbone=random_backbone("gpt2"))
    expected = model(token_ids).logits
    model.load_adapter(tmp_path, "again")
    assert torch.equal(model(token_ids).logits, expected)


def test_only_the_active_adapter_is_trained(two_folders, token_ids):
    folder, _ = two_folders
    model = LadderModel.from_pretrained(folder / "wide", backbone=random_backbone("qwen2"))
    model.load_adapter(folder / "deep", "deep")
    model(input_ids=token_ids, labels=token_ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.sides["deep"].parameters())
    assert all(parameter.grad is None for parameter in model.sides["default"].parameters())


def test_two_models_of_different_shape_share_a_backbone(token_ids):
    backbone = random_backbone("llama")
    alone = trained(random_backbone("llama"), "aligned", 1)(token_ids).logits
    first, second = trained(backbone, "aligned", 1), trained(backbone, "last", 2, attention="backbone")
    second(token_ids)
    assert torch.equal(first(token_ids).logits, alone)


def test_an_adapter_of_another_backbone_is_refused(two_folders):
    folder, _ = two_folders
    with pytest.raises(UserError, match="trained on another backbone"):
        LadderModel.from_pretrained(folder / "wide", backbone=random_backbone("llama"))


def test_merging_is_refused_where_users_look_for_it():
    with pytest.raises(UserError, match="a ladder cannot be merged"):
        LadderModel.on(random_backbone("llama"), connect(4, "aligned"), reduction=2).merge_and_unload()


class Rows(torch.utils.data.Dataset):
    """Sixteen copies of a row that a model can learn by heart."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids = [5, 9, 2, 7, 7, 3, 11, 2]
        return {"input_ids": ids, "labels": ids}


def test_a_plain_trainer_trains_a_ladder_and_saves_the_adapter_alone(tmp_path):
    model = LadderModel.on(random_backbone("qwen2"), connect(4, "aligned"), reduction=2)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=20, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=Rows())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    trainer.save_model(str(tmp_path / "adapter"))
    ids = torch.tensor([Rows()[0]["input_ids"]])
    loaded = load_adapter(tmp_path / "adapter", random_backbone("qwen2"))
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)


def test_trl_trains_a_ladder(tmp_path, tiny_tokenizer, tiny_config):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from ladder_cli.trunk.loading import load_backbone

    backbone = load_backbone(tiny_config, torch.device("cpu"))
    model = LadderModel.on(backbone, connect(6, "aligned"), reduction=2)
    rows = Dataset.from_dict({"prompt": ["Compute 7+5."] * 16, "completion": [" 7+5=12"] * 16})
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False, report_to="none",
    )  # fmt: skip
    trainer = trl.SFTTrainer(model, arguments, train_dataset=rows, processing_class=tiny_tokenizer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_trls_dpo_trainer_takes_a_ladder_with_its_own_backbone_as_the_reference(tmp_path, tiny_tokenizer, tiny_config):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from ladder_cli.trunk.loading import load_backbone

    backbone = load_backbone(tiny_config, torch.device("cpu"))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = LadderModel.on(backbone, connect(6, "aligned"), reduction=2)
    rows = Dataset.from_list([{"prompt": "Compute 7+5.", "chosen": " 7+5=12", "rejected": " 7+5=13"}] * 16)
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        use_cpu=True, bf16=False, disable_tqdm=True, gradient_checkpointing=False, report_to="none",
    )  # fmt: skip
    trainer = trl.DPOTrainer(model, model.backbone, arguments, train_dataset=rows, processing_class=tiny_tokenizer)
    trainer.train()
    told = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert told[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert told[-1]["loss"] < 0.3
    assert told[-1]["rewards/margins"] > 1
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    trainer.save_model(str(tmp_path / "adapter"))
    ids = torch.tensor([Rows()[0]["input_ids"]])
    loaded = load_adapter(tmp_path / "adapter", load_backbone(tiny_config, torch.device("cpu")))
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize("name", list(LADDER_CHOICES))
def test_the_python_api_refuses_what_the_config_refuses(name):
    misspelt = next(iter(LADDER_CHOICES[name]))[:-1] + "x"
    with pytest.raises(UserError, match=rf"{name}={misspelt} is not a choice"):
        LadderModel.on(random_backbone("qwen2"), connect(4, "aligned"), reduction=2, **{name: misspelt})


def test_an_adapter_that_leaves_out_a_quantised_head_can_be_loaded(tmp_path, token_ids):
    from ladder_cli.config.choices import Quantization
    from ladder_cli.methods.lora import attach
    from ladder_cli.trunk.compact import quantize_head

    backbone = random_backbone("qwen2")
    quantize_head(backbone, Quantization.NF4)
    model = attach(backbone, rank=4, alpha=8, dropout=0.0, gradient_checkpointing=False).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    expected = model(input_ids=token_ids).logits
    again = random_backbone("qwen2")
    quantize_head(again, Quantization.NF4)
    assert torch.equal(load_adapter(tmp_path, again)(input_ids=token_ids).logits, expected)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["exclude_modules"] = "(a+)+b"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="only the parts of one module"):
        load_adapter(tmp_path, random_backbone("qwen2"))
