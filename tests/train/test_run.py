"""Whole training runs on the embedded model: files, figures, resume, interruption, divergence."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from ladder_cli.run.directory import RunDir, default_path

QUICK = [
    "method=ladder",
    "data.train_samples=64",
    "data.validation_samples=8",
    "train.global_batch_size=8",
    "train.micro_batch_size=4",
    "train.max_steps=12",
    "train.evaluations=3",
    "train.logging_steps=1",
    "hardware=cpu",
]


def ladder_train(*arguments, timeout=300, **options):
    return subprocess.run(
        [sys.executable, "-m", "ladder_cli.train", *QUICK, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = ladder_train(f"output_dir={folder}")
    assert result.returncode == 0, result.stderr
    return RunDir(folder), result


def log_lines(run):
    return [json.loads(line) for line in run.metrics_log.read_text().splitlines()]


def test_the_page_before_training_says_what_is_trained(finished):
    _, result = finished
    assert "2,474,304 parameters, frozen" in result.stdout
    assert "12 of 8 rows (4 x 2 accumulated)" in result.stdout
    # The first pair of marks stands in the heading.
    counted = result.stdout.split("»")[2].partition("«")[0]
    assert counted.endswith("<|end|>")
    assert "\\boxed{" in counted
    assert "Compute" not in counted


def test_a_finished_run_leaves_every_file_of_the_contract(finished):
    run, _ = finished
    record = json.loads(run.run.read_text())
    assert record["status"] == "done"
    assert {"git_commit", "versions", "device", "data_fingerprint", "seed"} <= record.keys()
    metrics = json.loads(run.metrics.read_text())
    assert metrics.keys() >= {
        "train_loss",
        "eval_loss",
        "best_step",
        "trainable_parameters",
        "backbone_parameters",
        "tokens_seen",
        "tokens_per_second",
        "peak_memory_bytes",
        "flops_per_token",
        "wall_seconds",
    }
    assert metrics["backbone_parameters"] == 2_474_304
    assert metrics["flops_per_token"]["paper"] == 2 * 2_474_304 + 6 * metrics["trainable_parameters"]
    achieved = metrics["tokens_per_second"] * metrics["flops_per_token"]["actual"]
    assert metrics["flops_per_second"] == pytest.approx(achieved)
    predicted = metrics["peak_memory_bytes"]["predicted"]
    # Weights, side network, gradients and two moments in float32 are there at least; the step is a small one.
    assert 4 * (2_474_304 + 3 * metrics["trainable_parameters"]) < predicted < 100e6
    assert metrics["peak_memory_bytes"]["measured"] > metrics["peak_memory_bytes"]["baseline"] > 0
    assert run.adapter.is_dir()
    stored = sum(tensor.numel() for tensor in load_file(run.adapter / "adapter_model.safetensors").values())
    assert stored == metrics["trainable_parameters"]
    assert run.read_config().train.max_steps == 12


def test_the_log_has_a_line_for_every_step_and_a_falling_loss(finished):
    run, _ = finished
    losses = {line["step"]: line["loss"] for line in log_lines(run) if "loss" in line}
    assert sorted(losses) == list(range(1, 13))
    assert losses[12] < losses[1]
    assert sum("eval_loss" in line for line in log_lines(run)) == 3


def test_the_progress_line_says_how_fast_and_in_how_much_memory(finished):
    run, result = finished
    metrics = json.loads(run.metrics.read_text())
    (last,) = re.findall(r"step 12/12 .*?([\d,]+) tokens/s  (\S+) TFLOP/s  peak (\S+) GB", result.stdout)[-1:]
    speed, teraflops, peak = (float(figure.replace(",", "")) for figure in last)
    assert teraflops == pytest.approx(speed * metrics["flops_per_token"]["actual"] / 1e12, rel=0.01)
    assert 0.1 < peak <= metrics["peak_memory_bytes"]["measured"] / 1e9 + 0.01


def test_tokens_seen_are_those_of_the_rows_without_padding(finished):
    run, _ = finished
    metrics = json.loads(run.metrics.read_text())
    # 12 steps of 8 rows, of 45 to 85 tokens each.
    assert 12 * 8 * 45 < metrics["tokens_seen"] < 12 * 8 * 85


def test_a_finished_run_is_not_run_again(finished):
    run, _ = finished
    before = run.metrics.read_bytes()
    result = ladder_train(f"output_dir={run.path}")
    assert result.returncode == 0
    assert "already done" in result.stdout
    assert run.metrics.read_bytes() == before


def test_another_config_in_the_same_directory_is_refused_with_the_difference(finished):
    run, _ = finished
    result = ladder_train(f"output_dir={run.path}", "seed=1")
    assert result.returncode == 2
    assert "seed: 0 -> 1" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_resume_false_sets_the_earlier_run_aside(finished, tmp_path):
    folder = tmp_path / "run"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "precious").write_text("kept")
    result = ladder_train(f"output_dir={folder}", "resume=false")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run.old-1" / "adapter" / "precious").read_text() == "kept"


def test_an_interrupted_run_continues_to_the_same_adapter(finished, tmp_path):
    run = RunDir(tmp_path / "run")
    command = [sys.executable, "-m", "ladder_cli.train", *QUICK, f"output_dir={run.path}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if run.metrics_log.is_file() and len(run.metrics_log.read_text().splitlines()) >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert errors.strip().startswith("interrupted: saved at step")
    assert json.loads(run.run.read_text())["status"] == "interrupted"

    result = ladder_train(f"output_dir={run.path}")
    assert result.returncode == 0, result.stderr
    assert "continuing" in result.stdout
    twin, _ = finished
    ours, theirs = (load_file(r.adapter / "adapter_model.safetensors") for r in (run, twin))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.equal(theirs[name]), name
    steps = [line["step"] for line in log_lines(run) if "loss" in line]
    assert steps == list(range(1, 13))
    for ours_line, theirs_line in zip(log_lines(run), log_lines(twin), strict=True):
        assert ours_line.get("loss") == theirs_line.get("loss")
        assert ours_line.get("eval_loss") == theirs_line.get("eval_loss")


def test_a_dry_run_writes_the_plan_and_trains_nothing(tmp_path):
    result = ladder_train(f"output_dir={tmp_path / 'run'}", "dry_run=true", "method=xladder")
    assert result.returncode == 0, result.stderr
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["rows"] == {"train": 64, "validation": 8}
    assert plan["steps"] == 12
    assert plan["config"]["method"]["name"] == "xladder"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["plan.json"]


def test_a_dry_run_counts_the_same_parameters_as_the_run(finished, tmp_path):
    run, _ = finished
    ladder_train(f"output_dir={tmp_path / 'run'}", "dry_run=true")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    metrics = json.loads(run.metrics.read_text())
    for name in ("trainable_parameters", "backbone_parameters", "flops_per_token"):
        assert plan[name] == metrics[name]


def test_wandb_offline_needs_no_account(tmp_path):
    pytest.importorskip("wandb")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    result = ladder_train(
        f"output_dir={tmp_path / 'run'}",
        "tracking.wandb=offline",
        "train.max_steps=2",
        "train.evaluations=1",
        cwd=tmp_path,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_run_is_named_after_what_it_is():
    def name(*overrides):
        return str(default_path("ladder", "tiny", "arithmetic", list(overrides)))

    assert name() == "outputs/ladder-tiny-arithmetic"
    assert name("method=ladder", "resume=false") == name()
    assert name("train.max_steps=30", "seed=1") == "outputs/ladder-tiny-arithmetic,max_steps=30,seed=1"
    assert name("seed=1", "train.max_steps=30") == name("train.max_steps=30", "seed=1")
    assert "/" not in name("model.revision=a/b/../c").removeprefix("outputs/")


def test_training_stops_early_where_the_validation_loss_no_longer_falls(tmp_path):
    # At this learning rate nothing is learned, so the second evaluation is no better than the first.
    result = ladder_train(
        f"output_dir={tmp_path / 'run'}", "train.learning_rate=0", "train.early_stopping=1", "train.evaluations=4"
    )
    assert result.returncode == 0, result.stderr
    steps = [json.loads(line).get("step", 0) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) < 12, "the run went to its end"


@pytest.mark.parametrize("dry", ["true", "false"])
def test_patience_that_outlasts_the_run_is_refused_before_anything_is_written(dry, tmp_path):
    run = tmp_path / "run"
    result = ladder_train(
        f"output_dir={run}", "train.early_stopping=3", "train.evaluations=4", "train.max_steps=12", f"dry_run={dry}"
    )
    assert result.returncode == 2, result.stderr
    assert "train.early_stopping=3 never ends a run of 4 validations early" in result.stderr
    assert not (run / "adapter").exists()
    assert not (run / "plan.json").exists()


def test_a_run_is_not_continued_on_other_rows(tmp_path):
    rows = [{"q": f"Compute {n}+1.", "a": f"{n}+1={n + 1}"} for n in range(40)]
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    options = (
        f"output_dir={tmp_path / 'run'}", "data=jsonl", f"data.path={file}", "data.prompt=q", "data.completion=a",
        "data.train_samples=null",
    )  # fmt: skip
    assert ladder_train(*options).returncode == 0
    run = RunDir(tmp_path / "run")
    record = json.loads(run.run.read_text())
    run.run.write_text(json.dumps(record | {"status": "interrupted"}))
    file.write_text("\n".join(json.dumps(row) for row in rows[1:]))
    result = ladder_train(*options)
    assert result.returncode == 2
    assert "holds another run (rows of the data: " in result.stderr


def test_a_run_that_is_to_be_compiled_and_cannot_be_is_refused_in_one_line(tmp_path, without_compiler):
    result = ladder_train("train.compile=true", f"output_dir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert result.stderr.startswith(
        "error: train.compile=true, but torch.compile does not work here (InvalidCxxCompiler"
    )
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_plan_does_not_take_the_place_of_another_run_s(finished):
    run, _ = finished
    before = {path: path.read_bytes() for path in run.path.glob("*.json")}
    result = ladder_train("dry_run=true", "seed=7", f"output_dir={run.path}")
    assert result.returncode == 2
    assert "seed: 0 -> 7" in result.stderr
    assert {path: path.read_bytes() for path in run.path.glob("*.json")} == before
