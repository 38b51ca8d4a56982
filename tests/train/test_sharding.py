"""Two processes (gloo) that hold the backbone's layers together, against two that hold them all."""

import json
import os
import subprocess
import sys

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from ladder_cli.config.compose import composed
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.config.trunk import StreamingConfig
from ladder_cli.errors import UserError
from ladder_cli.plan.preflight import preflight
from ladder_cli.run.directory import RunDir
from ladder_cli.train.resume import settings_of
from ladder_cli.trunk.layer_files import DamagedLayer
from ladder_cli.trunk.open import TrunkKind, open_trunk
from tests.conftest import random_backbone
from tests.malformed import run_command
from tests.train.sharded_worker import LONG, OPTIONS, QUANTIZED, RUNS

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SHARD = "hardware.shard_backbone=true"


def launched(command, *arguments):
    words = [*command, "-m", *arguments]
    result = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def assert_same(ours, theirs):
    mine, other = weights(ours), weights(theirs)
    assert mine.keys() == other.keys()
    assert all(mine[name].equal(other[name]) for name in other)
    mine, other = (json.loads((folder / "metrics.json").read_text()) for folder in (ours, theirs))
    for name in ("train_loss", "eval_loss", "best_step", "tokens_seen", "trainable_parameters", "backbone_parameters"):
        assert mine[name] == other[name], name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    launched(TORCHRUN, "tests.train.sharded_worker", str(folder))
    return folder


@pytest.mark.parametrize("name", RUNS | QUANTIZED)
def test_sharded_processes_train_to_the_same_bits_as_whole_ones(name, runs):
    assert_same(runs / "sharded" / name, runs / "whole" / name)


@pytest.mark.parametrize("kind", ["none", "nf4", "int8"])
def test_each_process_holds_half_of_the_layers_and_all_that_is_trained(kind, runs):
    held = [json.loads((runs / f"held-{kind}-{rank}.json").read_text()) for rank in (0, 1)]
    for process in held:
        assert process["here"] == process["whole"] / 2
        assert process["trained_before"] == process["trained_after"] > 0
        assert process["frozen_before"] == process["frozen_after"] > 0


def test_a_run_may_be_continued_sharded_or_not(runs):
    sharded = RunDir(runs / "sharded" / "ladder")
    assert sharded.read_config().hardware.shard_backbone is True
    overrides = [f"output_dir={sharded.path}", *OPTIONS, "method=ladder"]
    sharded.refuse_other(settings_of(composed("train", TrainConfig, overrides)))
    assert sharded.experiment() == RunDir(runs / "whole" / "ladder").experiment()


def test_an_evaluation_reads_the_adapter_as_any_other(runs):
    options = ["benchmarks=[arithmetic]", "limit=2", "decode.max_new_tokens=4", "hardware=cpu"]
    for name in ("ladder", "qlora"):
        status, _, errors = run_command("evaluate", [f"run={runs / 'sharded' / name}", *options])
        assert status == 0, errors
    assert (runs / "sharded" / "ladder" / "eval" / "summary.json").is_file()


@pytest.mark.parametrize(("twin", "more"), [("qlora", []), ("qlora-int8", ["model.quantization=int8"])])
def test_a_launcher_that_asks_for_fsdp_is_taken_at_its_word_in_our_way(twin, more, runs, tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path))  # for layer files
    words = ["ladder_cli.train", "method=qlora", f"output_dir={tmp_path / 'run'}", *OPTIONS, *more]
    out = launched(ACCELERATE, *words)
    assert out.count("the launcher asks for FSDP: the frozen layers are shared out") == 1
    assert RunDir(tmp_path / "run").read_config().hardware.shard_backbone is True
    assert_same(tmp_path / "run", runs / "whole" / twin)


def test_a_sharded_run_that_is_stopped_and_continued_ends_as_if_it_had_not_been(runs, tmp_path):
    ours = ["ladder_cli.train", f"output_dir={tmp_path / 'run'}", *OPTIONS, *LONG, SHARD]
    with subprocess.Popen(
        [*TORCHRUN, "-m", *ours],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert any("step 5/24" in line for line in process.stdout)
        psutil.Process(process.pid).children()[-1].terminate()  # one of the two is told
        assert process.wait(timeout=120) != 0
    assert RunDir(tmp_path / "run").status() == "interrupted"
    out = launched(TORCHRUN, *ours)
    assert "(interrupted) from checkpoint-" in out
    assert_same(tmp_path / "run", runs / "whole" / "long")


@pytest.fixture
def two_processes(monkeypatch):
    """As the first of two would see it, up to where they meet."""
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_damaged_layer_is_refused_by_name_before_it_is_cut(alone, tmp_path):
    cpu, model = torch.device("cpu"), ModelConfig(name="tiny", path="builtin:tiny", quantization="nf4")
    trunk = open_trunk(model, cpu, TrunkKind.SHARDED, StreamingConfig(layer_files=str(tmp_path / "layers")))
    file = next((tmp_path / "layers").glob("*/layer-004.bin"))
    with file.open("r+b") as opened:
        opened.seek(-5000, 2)
        opened.write(b"?")
    with pytest.raises(DamagedLayer, match=r"layer-004\.bin is not as it was written"):
        trunk.settle(trunk.whole())


def test_quantised_layers_that_no_file_can_hold_are_refused_by_name(tmp_path):
    backbone = random_backbone("mixtral")  # whose experts are stored in another form
    backbone.save_pretrained(tmp_path / "mixtral")
    with pytest.raises(UserError, match=r"mixtral.*stored in another form.*hardware\.shard_backbone"):
        open_trunk(
            ModelConfig(name="mixtral", path=str(tmp_path / "mixtral"), quantization="nf4", dtype="float32"),
            torch.device("cpu"),
            TrunkKind.SHARDED,
            StreamingConfig(layer_files=str(tmp_path / "layers")),
        )


def test_one_process_is_told_that_it_holds_all_layers(tmp_path):
    status, out, errors = run_command("train", [f"output_dir={tmp_path}", *OPTIONS, SHARD, "dry_run=true"])
    assert status == 0, errors
    assert "one process has nobody to share" in out
    assert json.loads((tmp_path / "plan.json").read_text())["config"]["hardware"]["shard_backbone"] is False


def test_a_plan_for_several_processes_counts_a_share_of_the_layers(two_processes, tmp_path):
    plans = []
    for where, more in (("whole", []), ("sharded", [SHARD])):
        status, _, errors = run_command("train", [f"output_dir={tmp_path / where}", *OPTIONS, *more, "dry_run=true"])
        assert status == 0, errors
        plans.append(json.loads((tmp_path / where / "plan.json").read_text())["peak_memory_bytes"])
    assert plans[1]["parts"]["weights"] < 0.6 * plans[0]["parts"]["weights"]
    assert plans[1]["predicted"] < plans[0]["predicted"]


@pytest.mark.parametrize("count", [2, 4])
def test_sharding_is_among_what_makes_a_step_fit_and_following_the_advice_helps(count, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(count))
    cpu = torch.device("cpu")

    def config(*overrides):
        return composed("train", TrainConfig, ["train.micro_batch_size=4", "method=qlora", *overrides])

    every = preflight(config("hardware.memory_gb=0.001"), cpu).remedies
    settings, totals = [setting for setting, _ in every], [total for _, total in every]
    assert totals == sorted(totals, reverse=True)
    at = settings.index(SHARD)
    assert settings.index("model.quantization=nf4") > at  # of which each holds a share too
    room = f"hardware.memory_gb={totals[at] / 1e9 + 1e-6}"
    followed = [word for setting in settings[: at + 1] for word in setting.split()]
    assert preflight(config(room, *followed), cpu).fits
