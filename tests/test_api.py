"""The public API: its names are pinned, and the README's example does what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ladder_cli
from ladder_cli import UserError, compare_runs, evaluate_model, finetune, plan_run

NAMES = """
Engine FineTuned Interrupted LadderConfig LadderModel Method Objective RunFailed Trunk UserError
compare_runs connect evaluate_model finetune load_adapter open_trunk plan_run
"""
QUICK = ("hardware=cpu", "data.train_samples=32", "data.validation_samples=8", "train.max_steps=2", "data.cache=false")


def test_the_names_are_these():
    assert sorted(ladder_cli.__all__) == sorted(NAMES.split())
    for name in ladder_cli.__all__:
        assert getattr(ladder_cli, name).__doc__, name


def test_what_is_trained_can_be_evaluated_and_compared(tmp_path):
    runs = [finetune(f"method={name}", *QUICK, f"output_dir={tmp_path / name}") for name in ("ladder", "qlora")]
    for run in runs:
        assert run.metrics == json.loads((run.path / "metrics.json").read_text())
        assert (run.path / "adapter" / "adapter_model.safetensors").is_file()
        ((_, benchmark), metrics), *_ = evaluate_model(
            f"run={run.path}", "limit=3", "decode.max_new_tokens=4", "hardware=cpu"
        ).items()
        assert benchmark == "arithmetic"
        written = json.loads((run.path / "eval" / benchmark / "result.json").read_text())
        assert written["pass_at_1"] == metrics["pass_at_1"]
    comparison = compare_runs(*(run.path for run in runs), f"output_dir={tmp_path / 'compared'}")
    assert comparison == json.loads((tmp_path / "compared" / "comparison.json").read_text())
    again = finetune("method=ladder", *QUICK, f"output_dir={tmp_path / 'ladder'}")
    assert again == runs[0]


def test_a_plan_reads_no_weight(tmp_path):
    plan = plan_run("method=xladder", *QUICK, f"output_dir={tmp_path}")
    assert plan["peak_memory_bytes"]["predicted"] > 0
    assert plan == json.loads((tmp_path / "plan.json").read_text())


def test_mistakes_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"method\.gate=some"):
        finetune("method=ladder", "method.gate=some")
    with pytest.raises(UserError, match="takes run= or model="):
        evaluate_model(f"completions={tmp_path / 'rows.jsonl'}")
    with pytest.raises(UserError, match="names no run directory"):
        evaluate_model(f"run={tmp_path / 'none'}")


def test_the_example_of_the_readme_runs(tmp_path):
    readme = (Path(ladder_cli.__file__).parents[1] / "README.md").read_text()
    example = next(code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "finetune" in code)
    assert len(example.splitlines()) <= 10
    shorter = example.replace("train.max_steps=300", "train.max_steps=2").replace("limit=50", "limit=2")
    assert shorter != example
    # As a file, which the grading workers must not run again.
    (tmp_path / "example.py").write_text(shorter)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained            ladder") == 1
    assert list(tmp_path.glob("outputs/*/eval/arithmetic/result.json"))
