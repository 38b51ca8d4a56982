"""Whole evaluations through the command: a backbone, a run, ready completions, and resuming."""

import json
import shutil
import subprocess
import sys

import pytest

QUICK = ["hardware=cpu", "decode.max_new_tokens=40", "decode.batch_size=4", "limit=6"]


def ladder(command, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"ladder_cli.{command}", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def samples_of(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=["ladder", "qlora"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    result = ladder(
        "train",
        f"method={request.param}",
        f"output_dir={folder}",
        "data.train_samples=16",
        "data.validation_samples=4",
        "train.max_steps=1",
        "train.evaluations=1",
        "hardware=cpu",
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_a_backbone_is_evaluated_and_every_sample_is_on_disk(tmp_path):
    result = ladder("evaluate", "model=tiny", f"output_dir={tmp_path}", *QUICK)
    assert result.returncode == 0, result.stderr
    assert "Pass@1" in result.stdout
    samples = samples_of(tmp_path / "arithmetic")
    assert len({sample["id"] for sample in samples}) == len(samples) == 6
    for sample in samples:
        assert sample.keys() >= {"id", "prompt", "completion", "tokens", "stop_reason", "answer", "verdict"}
        assert sample["prompt"].endswith("<|assistant|>")
    summary = json.loads((tmp_path / "summary.json").read_text())["arithmetic"]
    assert summary["n_problems"] == 6
    assert summary["pass_at_1"] == sum(sample["verdict"] == "correct" for sample in samples) / 6
    assert json.loads((tmp_path / "arithmetic" / "result.json").read_text())["grader"]["math_verify"]


def test_a_damaged_adapter_is_refused_before_anything_is_written(run, tmp_path):
    ours = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    weights = ours / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    result = ladder("evaluate", f"run={ours}", f"output_dir={tmp_path / 'out'}", *QUICK)
    assert result.returncode == 2
    assert "adapter_model.safetensors is not as it was written" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_evaluation_that_was_cut_off_continues_with_what_is_missing(tmp_path):
    ladder("evaluate", "model=tiny", f"output_dir={tmp_path}", *QUICK)
    path = tmp_path / "arithmetic" / "samples.jsonl"
    whole = sorted(path.read_text().splitlines())
    lines = path.read_text().splitlines(keepends=True)
    kept = json.loads(lines[0]) | {"completion": "marked"}
    path.write_text(json.dumps(kept) + "\n" + lines[1] + lines[2][:25])
    result = ladder("evaluate", "model=tiny", f"output_dir={tmp_path}", *QUICK)
    assert result.returncode == 0, result.stderr
    samples = samples_of(tmp_path / "arithmetic")
    assert samples[0]["completion"] == "marked", "finished work was done again"
    assert sorted(sample["id"] for sample in samples) == sorted(json.loads(line)["id"] for line in whole)


def test_samples_of_other_settings_are_never_mixed(tmp_path):
    ladder("evaluate", "model=tiny", f"output_dir={tmp_path}", *QUICK)
    result = ladder("evaluate", "model=tiny", f"output_dir={tmp_path}", *QUICK, "decode.temperature=0.5")
    assert result.returncode == 2
    assert "temperature: 0.0 -> 0.5" in result.stderr


def test_a_trained_run_is_evaluated_inside_its_directory(run):
    result = ladder("evaluate", f"run={run}", *QUICK)
    assert result.returncode == 0, result.stderr
    assert len(samples_of(run / "eval" / "arithmetic")) == 6
    assert json.loads((run / "eval" / "summary.json").read_text())["arithmetic"]["n_problems"] == 6


def test_another_prompt_than_the_trained_one_is_refused(run):
    result = ladder("evaluate", f"run={run}", *QUICK, "instruction=Hurry.", f"output_dir={run}/other")
    assert result.returncode == 2
    assert "was trained under another prompt" in result.stderr


def test_a_run_brings_its_own_model(run):
    result = ladder("evaluate", f"run={run}", "model=qwen2.5-7b")
    assert result.returncode == 2
    assert "drop model=NAME" in result.stderr


def test_ready_completions_are_graded_without_a_model(tmp_path):
    rows = [
        {"id": "a", "gold": "7", "completion": "\\boxed{7}"},
        {"id": "b", "gold": "7", "completion": "\\boxed{8}"},
        {"id": "c", "gold": "\\frac12", "completion": "it is \\boxed{0.5}", "tokens": 12},
        {"id": 4, "gold": 7, "completion": "no idea"},
    ]
    source = tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = ladder("evaluate", f"completions={source}", f"output_dir={tmp_path / 'graded'}")
    assert result.returncode == 0, result.stderr
    verdicts = {sample["id"]: sample["verdict"] for sample in samples_of(tmp_path / "graded")}
    assert verdicts == {"a": "correct", "b": "incorrect", "c": "correct", "4": "no_answer"}
    assert json.loads((tmp_path / "graded" / "result.json").read_text())["pass_at_1"] == 0.5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "gold": "7"}, "has no column 'completion'; it has: id, gold"),
        ({"id": "a", "gold": "", "completion": "x"}, "column 'gold' holds no text"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(row, message, tmp_path):
    source = tmp_path / "answers.jsonl"
    source.write_text(json.dumps(row))
    result = ladder("evaluate", f"completions={source}", f"output_dir={tmp_path / 'graded'}")
    assert result.returncode == 2
    assert "row 1" in result.stderr
    assert message in result.stderr
