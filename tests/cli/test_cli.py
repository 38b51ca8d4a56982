"""Both commands from outside: help, mistakes, exit statuses."""

import json
import os
import subprocess
import sys

import pytest

import ladder_cli

TRAIN = [sys.executable, "-m", "ladder_cli.train"]
EVALUATE = [sys.executable, "-m", "ladder_cli.evaluate"]

MISTAKES = [
    (["method=qlra"], "no option 'method/qlra'. Did you mean 'qlora'? Choose from: branch, ladder, "),
    (["method=qlora", "method.rank=three"], "option 'method.rank': Value 'three' of type 'str'"),
    (
        ["method=suffix", "method.reduction=4"],
        "'method.reduction' does not belong to the chosen method: it is one of ladder, to be chosen with method=NAME.",
    ),
    (["+foo=1"], "unknown option 'foo'."),
    (["trian.max_steps=3"], "Did you mean 'train.max_steps'?"),
    (["train.max_steps=0"], "train.max_steps=0 is too small: it must be at least 1."),
    (["train.max_steps=["], "cannot read 'train.max_steps=['"),
    (["model.path=/nowhere"], "model.path=/nowhere is not a model folder"),
    (["model.quantization=nf5"], "Did you mean 'nf4'?"),
    (["train.micro_batch_size=5"], "is not a multiple of micro_batch_size 5"),
    (["data=s1k", "data_dir=/nowhere"], "data_dir=/nowhere is not a folder"),
    (["method=ladder", "method.connections=[[1,2],[1]]"], "is neither a pattern"),
    (["method=ladder,qlora"], "-m"),
    (["--nonsense"], "unknown flag '--nonsense'"),
    (["-m", "--cfg", "job"], "-m and --cfg do not go together"),
    (["train.epochs=0"], "train.epochs=0 trains nothing"),
    (["seed=é"], "in quotes for Hydra and the shell: 'seed=\"é\"'"),
    (["data=s1k", "data_dir=/nowhere [é]"], "data_dir=/nowhere [é] is not a folder"),
    (["model.path=~no-such-user/x"], "there is no user ~no-such-user"),
]
STALE = [
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but not RANK and LOCAL_RANK and MASTER_ADDR and MASTER_PORT"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two, which is no number"),
    ({"RANK": "1"}, "RANK=1 of WORLD_SIZE=1"),
    ({"RANK": "-1"}, "RANK=-1, which is no number"),
]


def run(command, *arguments, **options):
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_status_2(arguments, message, tmp_path):
    result = run(TRAIN, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("environment", "message"), STALE, ids=str)
@pytest.mark.parametrize("command", [TRAIN, EVALUATE], ids=["train", "evaluate"])
def test_what_another_launch_left_in_the_environment_is_one_line(command, environment, message, tmp_path):
    result = run(command, cwd=tmp_path, env=os.environ | environment)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_in_the_terminals_encoding_is_one_line(tmp_path):
    result = run(TRAIN, b"output_dir=/x\xe9", cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "'output_dir=/x\\xe9' is not utf-8: rename it" in result.stderr


def test_a_folder_that_cannot_be_written_is_named_with_what_to_set(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    result = run(TRAIN, "hardware=cpu", "data.train_samples=8", "data.validation_samples=2", cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "give output_dir=DIR" in result.stderr
    assert "data.cache=false" in result.stderr


def test_an_evaluation_of_nothing_is_a_mistake(tmp_path):
    for arguments, message in [
        (["run=nowhere"], "names no run directory"),
        (["benchmarks=[math50]"], "Did you mean 'math500'?"),
        (["completions=nowhere.jsonl"], "nowhere.jsonl"),
    ]:
        result = run(EVALUATE, *arguments, cwd=tmp_path)
        assert result.returncode == 2, result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert message in result.stderr


def test_a_broken_row_is_named_by_file_and_line(tmp_path):
    rows = [json.dumps({"question": f"What is {n}?", "solution": f"{n}"}) for n in range(20)]
    rows[6] = '{"question": "What is'
    (tmp_path / "s1k").mkdir()
    (tmp_path / "s1k" / "train.jsonl").write_text("\n".join(rows))
    result = run(TRAIN, "data=s1k", f"data_dir={tmp_path}", "dry_run=true", cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "train.jsonl, line 7: not valid JSON" in result.stderr


@pytest.mark.parametrize("command", [TRAIN, EVALUATE])
def test_help_shows_groups_choices_and_three_examples_without_torch(command):
    result = run([*command[:1], "-X", "importtime", *command[1:]], "--help")
    assert result.returncode == 0
    assert ("xladder" if command is TRAIN else "sampling") in result.stdout
    assert "qwen2.5-math-1.5b" in result.stdout
    tool = "ladder-train" if command is TRAIN else "ladder-eval"
    assert sum(line.startswith(f"  {tool} ") for line in result.stdout.splitlines()) >= 4
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "hydra"}


def test_a_mistake_does_not_load_torch():
    result = run([sys.executable, "-X", "importtime", "-m", "ladder_cli.train"], "method.gate=some")
    assert result.returncode == 2
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "transformers"}


@pytest.mark.parametrize("command", [TRAIN, EVALUATE])
def test_a_group_without_a_choice_is_one_line(command):
    result = run(command, "model=null")
    assert result.returncode == 2
    assert result.stderr.startswith("error: model=null is no choice: leave it out, or give one of: ")
    assert len(result.stderr.splitlines()) == 1


def test_help_lists_what_the_command_takes():
    listed = []
    for command in (TRAIN, EVALUATE):
        _, _, groups = run(command, "--help").stdout.partition("Groups (group=choice):\n")
        listed.append([line.split()[0] for line in groups.splitlines() if line])
    assert listed == [
        ["data", "experiment", "hardware", "method", "model", "objective", "tracking"],
        ["decode", "hardware", "model"],
    ]
    benchmarks = next(line for line in run(EVALUATE, "--help").stdout.splitlines() if line.startswith("Benchmarks"))
    assert "aime24" in benchmarks
    assert "math500" in benchmarks


def test_the_version_is_ours():
    assert run(TRAIN, "--version").stdout == f"ladder-side-tuning {ladder_cli.__version__}\n"
