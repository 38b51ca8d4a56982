"""Two processes on a CPU (gloo) against one."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from tests.malformed import run_command

STEPS = 8
OPTIONS = (
    # 21 rows in batches of 8: an epoch ends with 5 rows, which two processes share as one process takes them.
    *("hardware=cpu", "data.train_samples=21", "data.validation_samples=5", "data.cache=false"),
    *("train.global_batch_size=8", "train.micro_batch_size=2", f"train.max_steps={STEPS}", "train.evaluations=2"),
    # What is rounded otherwise grows with the rate.
    "train.learning_rate=8e-4",
    # The last step has no line of its own: what was trained since the last one counts all the same.
    "train.logging_steps=3",
)
LOGGED = (1, 3, 6)
EXACT = 1e-5


def train_in_two(*arguments):
    """`ladder-train` in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ladder_cli.train"]
    return subprocess.run(
        [*launch, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("method", ["ladder", "qlora"])
def test_two_processes_train_to_what_one_trains_to_with_the_same_global_batch(method, tmp_path):
    status, _, errors = run_command("train", [f"method={method}", f"output_dir={tmp_path / 'one'}", *OPTIONS])
    assert status == 0, errors
    result = train_in_two(f"method={method}", f"output_dir={tmp_path / 'two'}", *OPTIONS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"step {LOGGED[-1]}/{STEPS}  loss") == 1, "one process prints"
    weights = [load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("one", "two")]
    assert max((weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0]) < EXACT
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    assert one["tokens_seen"] == two["tokens_seen"]
    assert abs(one["train_loss"] - two["train_loss"]) < EXACT
    # Five rows of validation in batches of two: the processes have unequal shares, and no row counts twice.
    assert abs(one["eval_loss"] - two["eval_loss"]) < EXACT
    lines = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) == len(LOGGED) + 2
    for row in zip(*(map(json.loads, each) for each in lines), strict=True):
        assert row[0]["rows_seen"] == row[1]["rows_seen"]
        assert row[0]["epoch"] == row[1]["epoch"]
    if method == "ladder":
        # Cut off in the middle of the second epoch, whose order the two processes must find again.
        whole, cut = tmp_path / "two", tmp_path / "cut"
        shutil.copytree(whole, cut)
        shutil.rmtree(cut / "adapter")
        shutil.rmtree(cut / "checkpoints" / f"checkpoint-{STEPS}")
        record = json.loads((cut / "run.json").read_text())
        (cut / "run.json").write_text(json.dumps(record | {"status": "running"}))
        result = train_in_two(f"method={method}", f"output_dir={cut}", *OPTIONS)
        assert "from checkpoint-4" in result.stdout, result.stderr
        ours, theirs = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (cut, whole))
        assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.parametrize("kind", ["MEGATRON_LM", "DEEPSPEED"])
def test_a_launch_that_would_shard_what_is_trained_is_refused_in_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    status, _, errors = run_command("train", [f"output_dir={tmp_path / 'run'}", *OPTIONS])
    assert status == 2
    assert errors.startswith(f"error: {kind} is not supported")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_under_fsdp_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    options = ["hardware=cpu", "benchmarks=[arithmetic]", f"output_dir={tmp_path / 'eval'}"]
    status, _, errors = run_command("evaluate", options)
    assert status == 2
    assert errors.startswith("error: FSDP is not supported: in an evaluation")
    assert len(errors.strip().splitlines()) == 1
