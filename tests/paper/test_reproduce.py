"""One command a table: what it prints can be run, and what it builds is there."""

import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from ladder_cli.cli.train import check_options
from ladder_cli.config.catalogue import choices
from ladder_cli.config.choices import Optimizer
from ladder_cli.config.compose import composed, given_options
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.unread import refuse_unread_model
from ladder_cli.errors import UserError
from ladder_cli.evaluate.modes import Mode, mode_of
from ladder_cli.evaluate.modes import refuse_unread as refuse_unread_evaluation
from ladder_cli.methods.registry import method_for
from ladder_cli.plan.memory import Step, predict_memory
from ladder_cli.run.directory import default_path
from ladder_cli.run.sweep import FAILED, Outcome, write_summary
from paper.commands import runs_of
from paper.reported import PAPER, REAL, SMALL, paper_tables
from paper.reproduce import Reproduction, Scale
from tests.paper.finished_runs import write_run, write_scores

TABLES = paper_tables()
ROOT = Path(__file__).parents[2]


def commands(size):
    return [command for table in TABLES.values() for command in table.filled(size) or ()]


@pytest.mark.parametrize("size", [PAPER, SMALL, REAL])
def test_every_run_of_every_table_passes_the_checks_of_ladder_train(size):
    runs = {tuple(run) for command in commands(size) for run in runs_of(command)}
    # Seeds, budgets and folders are read by every run: one of each kind is composed.
    same = ("seed=", "data.train_samples=")
    kinds = {tuple(word.partition("=")[0] if word.startswith(same) else word for word in run): run for run in runs}
    for run in kinds.values():
        check_options(composed("train", TrainConfig, list(run)), given_options(list(run)))
    assert len(kinds) == {PAPER: 28, SMALL: 8, REAL: 7}[size]


@pytest.mark.parametrize("size", [PAPER, SMALL, REAL])
def test_every_evaluation_of_every_table_passes_the_checks_of_ladder_eval(size):
    words = [shlex.split(command)[1:] for command in commands(size) if command.startswith("ladder-eval")]
    for one in words:
        config = composed("evaluate", EvaluateConfig, one)
        refuse_unread_evaluation(config, one)
        if mode_of(config) == Mode.BACKBONE:
            refuse_unread_model(config.model, given_options(one))
        assert set(config.benchmarks) <= set(choices("benchmark"))
    assert len(words) == {PAPER: 11, SMALL: 4, REAL: 3}[size]


def test_a_script_of_a_table_takes_its_options():
    calls = [shlex.split(command)[1:] for size in (PAPER, SMALL, REAL) for command in commands(size)
             if command.startswith("python ")]  # fmt: skip
    assert {Path(call[0]).name for call in calls} == {"build_critic.py", "boxed_gsm8k.py"}
    for path, *words in calls:
        # A word too many is told after all the others were understood.
        told = subprocess.run([sys.executable, path, *words, "--unknown"], capture_output=True, text=True, cwd=ROOT)
        assert told.returncode == 2
        assert told.stderr.splitlines()[-1].endswith("unrecognized arguments: --unknown")


@pytest.mark.parametrize("size", [PAPER, SMALL, REAL])
def test_no_two_runs_of_a_table_share_a_directory(size):
    for table in TABLES.values():
        runs = [run for command in table.filled(size) or () for run in runs_of(command)]
        paths = []
        for run in runs:
            config = composed("train", TrainConfig, [word for word in run if not word.startswith("seed=")])
            paths.append(default_path(config.method.name, config.model.name, config.data.name, run))
        assert len(set(paths)) == len(paths)


@cache
def experiments_and_backbones():
    """Every experiment on every backbone that a table asks for, as options."""
    runs = [run for table in TABLES.values() for command in table.filled(PAPER) or () for run in runs_of(command)]
    return list(
        dict.fromkeys(tuple(word for word in run if word.startswith(("experiment=", "model="))) for run in runs)
    )


def test_tables_ask_for_every_experiment_and_for_the_backbones_that_the_paper_names():
    runs = experiments_and_backbones()
    assert len(runs) == 28
    assert {word for run in runs for word in run[1:]} == {
        *("model=qwen2.5-0.5b", "model=qwen2.5-3b", "model=opt-1.3b", "model=opt-2.7b", "model=opt-6.7b"),
        *("model=llama-3.2-3b", "model=qwen2.5-1.5b"),
    }


@pytest.mark.parametrize("run", experiments_and_backbones(), ids=" ".join)
def test_an_experiment_passes_the_strict_check_and_its_preflight_on_every_backbone_of_its_table(run):
    config = composed("train", TrainConfig, list(run))
    import torch

    # Layers are alike, and the time that a preflight takes is theirs: a few of them tell whether it runs.
    config.model.shape["num_hidden_layers"] = 4
    step = Step(1, 32, config.train.accumulation(1), Optimizer.ADAMW_8BIT, config.train.loss_chunk)
    parts = predict_memory(config.model, method_for(config.method), torch.bfloat16, step).parts
    assert parts["weights"] > 10**8
    assert parts["trained"] > 10**5


def test_the_preflight_of_a_whole_experiment_needs_no_weights():
    config = composed("train", TrainConfig, ["experiment=cola-lst"])
    import torch

    step = Step(1, 32, config.train.accumulation(1), Optimizer.ADAMW_8BIT, config.train.loss_chunk)
    assert predict_memory(config.model, method_for(config.method), torch.bfloat16, step).total > 10**9


def test_tables_have_the_numbers_one_to_eight():
    assert list(TABLES) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_tables_of_settings_have_the_commands_of_the_runs_that_they_are_made_from(tmp_path):
    work = Reproduction(tmp_path)
    assert work.commands(7) == work.commands(1) != ()
    assert work.commands(8) == work.commands(2) != ()


def test_a_real_model_size_asks_for_its_folders(tmp_path):
    with pytest.raises(UserError, match="--scale real needs --model-path DIR"):
        Scale(REAL)
    with pytest.raises(UserError, match=r"there is no config\.json in it"):
        Scale(REAL, tmp_path, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"there is no gsm8k/train\.jsonl in it"):
        Scale(REAL, tmp_path, tmp_path)


def test_commands_of_the_real_model_size_name_its_folders(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text("")
    work = Reproduction(tmp_path / "out", Scale(REAL, tmp_path, tmp_path))
    assert [number for number in work.tables if work.commands(number)] == [1, 3, 6, 7]
    box, train = work.commands(1)
    rows = f"{tmp_path}/out/mirror/boxed.jsonl"
    assert box == f"python scripts/boxed_gsm8k.py {tmp_path}/gsm8k/train.jsonl {rows}"
    assert f"model.path={tmp_path} " in train
    assert f"data.path={rows} " in train
    assert work.commands(3)[0] == box


def test_a_report_writes_tables_figures_and_an_index(tmp_path):
    work = Reproduction(tmp_path / "all", Scale(SMALL))
    runs = tmp_path / "all" / "table-2" / "runs"
    for method in ("ladder", "qlora"):
        write_scores(write_run(runs, method=method) / "eval", "arithmetic", {True: [20], False: [40]})
    built = work.report()
    assert list(built) == [2, 8]
    names = {path.name for path in (tmp_path / "all" / "table-2").iterdir() if path.is_file()}
    stems = (
        "figure-3a-arithmetic.png",
        "figure-3a-arithmetic.svg",
        "figure-4-arithmetic.png",
        "figure-4-arithmetic.svg",
    )
    tables = {f"table-2{order}.{kind}" for order in ("", "-2") for kind in ("md", "csv", "tex")}
    assert names == {*tables, *stems}
    index = (tmp_path / "all" / "README.md").read_text()
    assert "2 training runs, 3 minutes in all, on a processor (cpu); torch 2.0" in index
    assert "| small ladder | 1 | 50.0 (10.0 to 90.0) |" in index
    assert "![figure-4-arithmetic](table-2/figure-4-arithmetic.png)" in index
    assert index.count("Not run yet.") == 4
    assert index.count("Not at this size") == 2


def test_at_small_size_a_table_waits_for_the_answers_that_it_is_made_from(tmp_path):
    assert Reproduction(tmp_path, Scale(SMALL)).jobs([1, 2, 3, 4, 7]) == [[1, 3, 7], [2, 4]]
    assert Reproduction(tmp_path).jobs([1, 2, 3, 4]) == [[1, 2, 3, 4], []]


def test_the_index_names_the_runs_that_are_missing(tmp_path):
    runs = tmp_path / "table-1" / "runs"
    write_run(runs)
    outcome = Outcome(1, str(runs), str(runs / "b"), ["method=qlora"], FAILED, "OSError: no space left")
    write_summary(runs / "summary.csv", [outcome])
    Reproduction(tmp_path, Scale(SMALL)).report()
    assert "**Not done:** method=qlora: failed, OSError: no space left" in (tmp_path / "README.md").read_text()


def test_a_table_is_built_from_runs_that_are_somewhere_else(tmp_path):
    write_run(tmp_path / "elsewhere", model="qwen2.5-7b")
    built = Reproduction(tmp_path / "out").report([tmp_path / "elsewhere"], [7])
    assert built[7][0].rows[0][0] == "qwen2.5-7b ladder"
    assert (tmp_path / "out" / "table-7" / "table-7.csv").is_file()
