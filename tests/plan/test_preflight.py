"""Runs that cannot fit are told so before a weight is read, with what would help."""

import json
import os

import pytest
import torch

from ladder_cli.config.choices import Residency
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.plan.preflight import leaner_settings, preflight
from tests.train.test_run import ladder_train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def config(*overrides: str) -> TrainConfig:
    return composed("train", TrainConfig, ["method=ladder", "train.micro_batch_size=4", *overrides])


def test_a_step_that_fits_needs_no_advice():
    result = preflight(config(), CPU)
    assert result.fits
    assert result.remedies == ()
    result.refuse()


def test_one_that_does_not_is_refused_with_the_cheapest_settings_that_would_do():
    result = preflight(config("hardware.memory_gb=0.046", "data.max_length=128"), CPU)
    assert not result.fits
    first = result.remedies[0]
    assert first[0].startswith("train.micro_batch_size=1 train.gradient_accumulation=16")
    assert first[1] < result.prediction.total
    with pytest.raises(UserError, match=r"train\.micro_batch_size=1.*preflight=warn"):
        result.refuse()


def test_the_advice_ends_with_the_setting_that_is_enough_and_following_it_helps():
    every = preflight(config("hardware.memory_gb=0.001"), CPU).remedies
    totals = [total for _, total in every]
    assert totals == sorted(totals, reverse=True)
    room = f"hardware.memory_gb={totals[2] / 1e9 + 1e-6}"  # just enough for the first three
    tight = preflight(config(room), CPU)
    assert tight.remedies == every[:3]
    followed = [word for setting, _ in tight.remedies for word in setting.split()]
    assert preflight(config(room, *followed), CPU).fits


def test_a_plan_for_a_card_that_is_not_here_counts_its_libraries_too():
    result = preflight(config("hardware=rtx-12gb"), CUDA)
    assert result.capacity == 12_000_000_000
    assert result.allowance > 0
    assert result.step.optimizer == "adamw_8bit"


def test_a_run_that_cannot_fit_is_refused_in_one_line_and_reads_no_weights(tmp_path):
    result = ladder_train("hardware.memory_gb=0.001", f"output_dir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert result.stderr.strip().startswith("error: a step needs")
    assert "the smallest that was tried" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", ["s1k", "critic"])  # on the hub; to be made first
def test_a_dry_run_on_a_published_model_needs_no_download(data, tmp_path):
    """Tokenizer and rows cannot be reached here; shape, parameters and memory are known all the same."""
    result = ladder_train(
        "dry_run=true", "hardware=rtx-12gb", "model=qwen2.5-0.5b", f"data={data}", "data.max_length=256",
        "train.micro_batch_size=1", f"output_dir={tmp_path}", env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    memory = plan["peak_memory_bytes"]
    assert memory["predicted"] == sum(memory["parts"].values()) > 0.9e9
    assert plan["backbone_parameters"] == 494_032_768
    # For a card that this machine does not have.
    assert (memory["capacity"], memory["fits"]) == (12_000_000_000, True)
    assert plan["rows"] is None
    assert "planned without data" in result.stdout


def test_what_takes_less_memory_is_named_in_the_order_of_its_cost():
    settings = leaner_settings(config("method=qlora", "model.quantization=int8"), CPU)
    assert settings[0].startswith("train.micro_batch_size=1 ")
    assert settings[-2:] == ["model.quantization=nf4", "data.max_length=128"]
    assert "method.gradient_checkpointing=true" in settings
    lean = ["train.micro_batch_size=1", "train.loss_chunk=64", "train.optimizer=adamw_8bit", "method.recompute=true"]
    lean += ["method.int8_taps=true", "model.quantization=nf4", "model.head_quantization=nf4"]
    lean += ["model.embeddings_on_cpu=true"]
    assert leaner_settings(config(*lean), CPU) == ["trunk.residency=disk", "data.max_length=128"]
    assert leaner_settings(config(*lean), CPU, Residency.DISK) == ["data.max_length=128"]
    assert leaner_settings(config(*lean, "train.optimizer=muon"), CPU)[0] == "train.optimizer=adamw_8bit"


def test_what_sampling_refuses_is_not_proposed_for_it():
    settings = leaner_settings(config("objective=grpo", "method=ladder", "model.quantization=nf4"), CPU)
    assert not [setting for setting in settings if setting.startswith("trunk.residency")]
    assert "objective.max_new_tokens=128" in settings
