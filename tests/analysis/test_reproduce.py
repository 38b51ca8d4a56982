"""One command a table: what it prints can be run, and what it builds is there."""

import shlex
from itertools import product

import pytest

from ladder_cli.analysis.memory_model import Step, predict_memory
from ladder_cli.analysis.paper import paper_tables
from ladder_cli.analysis.reproduce import Reproduction
from ladder_cli.cli import choices, composed
from ladder_cli.config import EvaluateConfig, TrainConfig
from ladder_cli.models.method import method_for
from ladder_cli.sweep import FAILED, Outcome, write_summary
from tests.analysis.finished_runs import write_run, write_scores

TABLES = paper_tables()


def every_command(folder):
    for small in (False, True):
        work = Reproduction(folder, small)
        for number in TABLES:
            for command in work.commands(number) or ():
                yield shlex.split(command)


def test_every_command_of_every_table_passes_the_strict_check(tmp_path):
    checked = 0
    for name, *words in every_command(tmp_path):
        if name == "python":
            continue
        options = [word for word in words if word != "-m" and not word.startswith("hydra.")]
        if name == "ladder-eval":
            composed("evaluate", EvaluateConfig, options)
            checked += 1
            continue
        # Of a sweep, the first value of every option, and every value of the first that has several.
        sweeps = [option.split("=", 1)[1].split(",") for option in options]
        first = [f"{option.split('=', 1)[0]}={values[0]}" for option, values in zip(options, sweeps, strict=True)]
        for value in sweeps[0]:
            composed("train", TrainConfig, [f"{options[0].split('=', 1)[0]}={value}", *first[1:]])
            checked += 1
    assert checked > 30


def test_every_experiment_belongs_to_a_table(tmp_path):
    words = [word for command in every_command(tmp_path) for word in command if word.startswith("experiment=")]
    named = {name for word in words for name in word.removeprefix("experiment=").split(",")}
    assert named == set(choices("experiment"))


def experiments_and_backbones():
    """Every experiment on every backbone that a table asks for, as options."""
    chosen = {}
    for table in TABLES.values():
        for name, *words in map(shlex.split, table.commands):
            if name == "ladder-train":
                swept = [word for word in words if word.startswith(("experiment=", "model="))]
                values = [
                    [f"{word.split('=', 1)[0]}={value}" for value in word.split("=", 1)[1].split(",")] for word in swept
                ]
                chosen |= dict.fromkeys(product(*values))
    return list(chosen)


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
    step = Step(1, 32, config.train.accumulation(1), "adamw_8bit", config.train.loss_chunk)
    parts = predict_memory(config.model, method_for(config.method), torch.bfloat16, step).parts
    assert parts["weights"] > 10**8
    assert parts["trained"] > 10**5


def test_the_preflight_of_a_whole_experiment_needs_no_weights():
    config = composed("train", TrainConfig, ["experiment=cola-lst"])
    import torch

    step = Step(1, 32, config.train.accumulation(1), "adamw_8bit", config.train.loss_chunk)
    assert predict_memory(config.model, method_for(config.method), torch.bfloat16, step).total > 10**9


def test_tables_have_the_numbers_one_to_eight_and_say_which_are_assumed():
    assert list(TABLES) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {number for number, table in TABLES.items() if table.numbered == "stated"} == {1, 6, 7}


def test_a_report_writes_tables_figures_and_an_index(tmp_path):
    work = Reproduction(tmp_path / "all", small=True)
    runs = tmp_path / "all" / "table-2" / "runs"
    for method in ("ladder", "qlora"):
        write_scores(write_run(runs, method=method) / "eval", "arithmetic", {True: [20], False: [40]})
    built = work.report()
    assert list(built) == [2]
    names = {path.name for path in (tmp_path / "all" / "table-2").iterdir() if path.is_file()}
    stems = (
        "figure-3a-arithmetic.png",
        "figure-3a-arithmetic.svg",
        "figure-4-arithmetic.png",
        "figure-4-arithmetic.svg",
    )
    assert names == {"table-2.md", "table-2.csv", "table-2.tex", *stems}
    index = (tmp_path / "all" / "README.md").read_text()
    assert "2 training runs, 3 minutes in all, on a processor (cpu); torch 2.0" in index
    assert "| small ladder | 1 | 50.0 (10.0 to 90.0) |" in index
    assert "![figure-4-arithmetic](table-2/figure-4-arithmetic.png)" in index
    assert index.count("Not run yet.") == 4
    assert index.count("Not at laptop size") == 3


def test_at_laptop_size_a_table_waits_for_the_answers_that_it_is_made_from(tmp_path):
    assert Reproduction(tmp_path, small=True).lanes([1, 2, 3, 4, 7]) == [[1, 3, 7], [2, 4]]
    assert Reproduction(tmp_path, small=False).lanes([1, 2, 3, 4]) == [[1, 2, 3, 4], []]


def test_the_index_names_the_runs_that_are_missing(tmp_path):
    runs = tmp_path / "table-1" / "runs"
    write_run(runs)
    outcome = Outcome(1, str(runs), str(runs / "b"), ["method=qlora"], FAILED, "OSError: no space left")
    write_summary(runs / "summary.csv", [outcome])
    Reproduction(tmp_path, small=True).report()
    assert "**Not done:** method=qlora: failed, OSError: no space left" in (tmp_path / "README.md").read_text()


def test_a_table_is_built_from_runs_that_are_somewhere_else(tmp_path):
    write_run(tmp_path / "elsewhere", model="qwen2.5-7b")
    built = Reproduction(tmp_path / "out", small=False).report([tmp_path / "elsewhere"], [7])
    assert built[7][0].rows[0][0] == "qwen2.5-7b ladder"
    assert (tmp_path / "out" / "table-7" / "table-7.csv").is_file()
