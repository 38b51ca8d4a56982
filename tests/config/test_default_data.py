"""Without `data=` and `benchmarks=`, the model says what it is trained and tested on."""

import subprocess
import sys

import pytest

from ladder_cli.cli import main as cli
from ladder_cli.cli.evaluate import default_benchmarks
from ladder_cli.cli.train import HELP
from ladder_cli.config import compose
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir
from ladder_cli.run.identity import RunIdentity


def trained_on(*words):
    return compose.composed("train", TrainConfig, list(words)).data.name


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ([], "arithmetic"),
        (["method=xladder", "model=qwen2.5-math-1.5b"], "s1k"),
        (["model=qwen2.5-math-7b", "data=cola"], "cola"),
        (["model=tiny", "data=s1k"], "s1k"),
        (["experiment=cola"], "cola"),
        (["experiment=scaling", "model=qwen2.5-math-7b"], "evolm"),
        (["model=opt-1.3b"], "s1k"),
    ],
    ids=" ".join,
)
def test_the_data_set_follows_the_model_unless_it_is_given(words, data):
    assert trained_on(*words) == data


def test_options_of_the_data_set_are_those_of_the_one_that_follows():
    assert compose.composed("train", TrainConfig, ["model=qwen2.5-math-1.5b"]).data.max_length == 2122
    words = ["model=qwen2.5-math-1.5b", "data.max_length=99"]
    assert compose.composed("train", TrainConfig, words).data.max_length == 99


def test_every_run_of_a_sweep_has_the_data_of_its_model_in_its_name(tmp_path):
    command = [sys.executable, "-m", "ladder_cli.train", "-m", "model=tiny,qwen2.5-math-1.5b"]
    # Every run of the sweep is refused before it begins, and told by its directory.
    options = ["train.micro_batch_size=5", "hardware=cpu"]
    result = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert "run 0: outputs/suffix-tiny-arithmetic," in result.stdout
    assert "run 1: outputs/suffix-qwen2.5-math-1.5b-s1k," in result.stdout


def test_help_says_what_is_trained_on():
    lines = cli.default_data_lines()
    assert lines == "Without data=: arithmetic for tiny, s1k for every other model.\n"
    assert "on its own data set (s1k)" in HELP


def test_a_model_file_of_ones_own_without_a_declared_set_asks_for_one(tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("name: mine\nhub_id: me/mine\n")
    command = [sys.executable, "-m", "ladder_cli.train", f"--config-dir={tmp_path / 'conf'}", "model=mine"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: model=mine names no data set of its own: give data=NAME, of: arithmetic, ")
    assert len(result.stderr.splitlines()) == 1


def test_benchmarks_follow_the_model_or_what_a_run_was_trained_on(tmp_path):
    def tested_on(*words):
        return default_benchmarks(compose.composed("evaluate", EvaluateConfig, list(words)))

    assert tested_on() == ["arithmetic"]
    assert tested_on("model=qwen2.5-math-1.5b") == ["math500"]
    for name, words in {
        "a": ["model=qwen2.5-0.5b", "data=cola"],
        "b": ["model=qwen2.5-math-1.5b"],
        "c": ["model=qwen2.5-math-7b"],
    }.items():
        RunDir(tmp_path / name).write_config(compose.as_dict(compose.composed("train", TrainConfig, words)))
    assert tested_on(f"run={tmp_path / 'a'}") == ["cola"]
    assert tested_on(f"run={tmp_path}/*") == ["cola", "math500"]


def test_an_old_run_without_the_new_options_is_still_the_same_run(tmp_path):
    config = compose.as_dict(compose.composed("train", TrainConfig, []))
    old = {**config, "model": {key: value for key, value in config["model"].items() if "default_" not in key}}
    RunDir(tmp_path).write_config(old)
    RunDir(tmp_path).refuse_other(RunIdentity.of_config(config, {}))
    other = {**config, "model": {**config["model"], "dtype": "bfloat16"}}
    with pytest.raises(UserError, match=r"model\.dtype"):
        RunDir(tmp_path).refuse_other(RunIdentity.of_config(other, {}))
