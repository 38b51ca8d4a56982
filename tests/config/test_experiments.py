"""Every cell of the paper's tables is run as the paper states it: its experiments, our copy of its numbers, its facts.

Where `../shared/paper/facts.yaml` lies beside the repository, the numbers are compared with it too, one by one.
"""

from dataclasses import asdict, fields
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ladder_cli.config.catalogue import choices
from ladder_cli.config.schema import ModelConfig
from paper.commands import cells_of, evaluations_of
from paper.reported import HUBER, ORIGINAL, PAPER, paper_tables
from tests.config.test_schema import composed
from tests.conftest import SHARED, model_preset

TABLES = paper_tables()
TRAINED = [number for number in TABLES if TABLES[number].commands]
FACTS = SHARED / "paper" / "facts.yaml"
BENCHMARKS = ("math500", "aime24", "aime25", "amc23", "minerva", "olympiadbench")


def option(config, dotted):
    """The value of a dotted option of a typed config."""
    value = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


@cache
def cells(number):
    """The runs of a table by row; composing a hundred of them once is enough."""
    return {cell.label: cell for cell in cells_of(TABLES[number].filled(PAPER))}


@cache
def evaluations(number):
    return evaluations_of(TABLES[number].filled(PAPER))


@pytest.mark.parametrize("number", TRAINED)
def test_the_commands_of_a_table_run_every_trained_cell_that_it_reports(number):
    table = TABLES[number]
    asked = set(table.settings) - {"all"}
    assert set(cells(number)) == asked
    # What the paper reports and we do not train are bare backbones and rows of other papers.
    assert {label for label in set(table.reported) - asked if not label.endswith(" backbone")} <= set(table.protocols)


@pytest.mark.parametrize("number", TRAINED)
def test_every_run_of_a_table_has_every_setting_that_the_paper_states(number):
    table = TABLES[number]
    checked = 0
    for label, cell in cells(number).items():
        stated = table.settings["all"] | table.settings[label]
        for config in cell.configs:
            assert {name: option(config, name) for name in stated} == stated, label
            checked += 1
        for name, values in table.sweep.items():
            assert [option(config, name) for config in cell.configs] == values, label
    assert checked >= 6


@pytest.mark.parametrize("number", TRAINED)
def test_micro_batches_add_up_to_the_stated_batch(number):
    for config in (config for cell in cells(number).values() for config in cell.configs):
        assert config.train.micro_batch_size * config.train.accumulation(1) == config.train.global_batch_size


@pytest.mark.parametrize("number", [2, 3])
def test_evaluations_decode_as_the_paper_states(number):
    for evaluation in evaluations(number):
        assert {name: option(evaluation, name) for name in TABLES[number].decoding} == TABLES[number].decoding
        assert tuple(evaluation.benchmarks) == BENCHMARKS
    assert len(evaluations(number)) == {2: 5, 3: 1}[number]


def test_bare_backbones_are_evaluated_for_every_such_row():
    for number in (2, 4):
        evaluated = {
            Path(evaluation.output_dir).name.removeprefix("backbone-")
            for evaluation in evaluations(number)
            if evaluation.run is None
        }
        assert {f"{name} backbone" for name in evaluated} == {
            label for label in TABLES[number].reported if label.endswith(" backbone")
        }


def test_every_experiment_belongs_to_a_table():
    words = [word for table in TABLES.values() for line in (table.filled(PAPER) or ()) for word in line.split()]
    named = {name for word in words if word.startswith("experiment=") for name in word.split("=", 1)[1].split(",")}
    assert named == set(choices("experiment"))


INSTRUCT = [name for name in choices("model") if name.endswith("-instruct")]
# Backbones whose base checkpoint has a file too: those of the paper. Of others the instruct one alone is offered.
PAIRED = [name for name in INSTRUCT if name.removesuffix("-instruct") in choices("model")]


@pytest.mark.parametrize("name", INSTRUCT)
def test_an_instruct_checkpoint_is_one_on_the_hub_too(name):
    instruct = model_preset(name)
    assert instruct.hub_id.lower().endswith("-instruct")
    assert instruct.name == name


def test_every_qwen2_5_that_the_paper_trains_has_its_base_and_its_instruct_checkpoint():
    trained = {label.split()[0] for number in TRAINED for label in cells(number)}
    assert {f"{name}-instruct" for name in trained if name.startswith("qwen2.5-")} <= set(PAIRED)


@pytest.mark.parametrize("name", PAIRED)
def test_an_instruct_checkpoint_differs_from_its_base_in_name_and_place_alone(name):
    instruct, base = model_preset(name), model_preset(name.removesuffix("-instruct"))
    different = {item.name for item in fields(ModelConfig) if getattr(instruct, item.name) != getattr(base, item.name)}
    assert different == {"name", "hub_id"}
    assert instruct.hub_id == f"{base.hub_id}-Instruct"
    assert instruct.revision is None


def test_experiments_take_base_checkpoints():
    for name in choices("experiment"):
        model = composed(f"experiment={name}").model
        assert "instruct" not in f"{model.name} {model.hub_id}".lower()


@pytest.mark.parametrize("name", choices("experiment"))
def test_an_experiment_keeps_its_schedule_whatever_the_default_is(name):
    train = composed(f"experiment={name}").train
    assert (train.scheduler, train.warmup_ratio) == ("cosine", 0.1)


def test_the_command_line_overrules_an_experiment():
    config = composed("experiment=cola-lst", "model=opt-6.7b", "train.learning_rate=1e-3")
    assert (config.model.name, config.peak_learning_rate) == ("opt-6.7b", 1e-3)
    assert config.model.shape["hidden_size"] == 4096


# What follows compares with the facts as they were read from the paper.


@pytest.fixture(scope="module")
def facts():
    if not FACTS.is_file():
        pytest.skip("the paper's facts are not beside this repository (../shared/paper/facts.yaml)")
    return OmegaConf.to_container(OmegaConf.load(FACTS))


BACKBONES = {
    "Qwen-1.5B": "qwen2.5-math-1.5b",
    "Qwen-7B": "qwen2.5-7b",
    "Qwen2.5-Math-1.5B": "qwen2.5-math-1.5b",
    "Qwen2.5-7B": "qwen2.5-7b",
    "Qwen2.5-0.5B": "qwen2.5-0.5b",
    "Qwen2.5-3B": "qwen2.5-3b",
    "Qwen2.5-1.5B": "qwen2.5-1.5b",
    "Llama3.2-3B": "llama-3.2-3b",
    "OPT-1.3B": "opt-1.3b",
    "OPT-2.7B": "opt-2.7b",
    "OPT-6.7B": "opt-6.7b",
}


def plain(cell):
    """A reported number as the facts write it."""
    return [cell.value, cell.deviation] if cell.deviation is not None else cell.value


def test_table_1_holds_the_facts(facts):
    for end, rows in (("", facts["table_1"]["curve_fit"]), (HUBER, facts["table_1"]["huber"])):
        for name, row in rows.items():
            method, backbone = name.split("-", 1)
            ours = TABLES[1].reported[f"{BACKBONES[backbone]} {method.lower()}"]
            assert (ours[f"λ{end}"].value, list(ours[f"λ{end}"].interval)) == (row["lambda"], row["lambda_ci"])
            assert (ours[f"B{end}"].value, plain(ours[f"E{end}"])) == (row["B"], row["E"])
        assert len(rows) == len(TABLES[1].reported) == 4


def test_table_2_holds_the_facts(facts):
    ours = TABLES[2].reported
    found = 0
    for backbone in ("Qwen2.5-7B", "Qwen2.5-Math-1.5B"):
        for name, row in facts["table_2"][backbone].items():
            preset = BACKBONES[backbone]
            label = {
                "Qwen Base": f"{preset} backbone",
                "Qwen Instruct": f"{preset}-instruct backbone",
                "s1.1-7B (*)": f"{preset} s1.1-7B",
                "Full SFT with prior RL (*)": f"{preset} full-sft-after-rl",
                "Full SFT (*)": f"{preset} full-sft",
            }.get(name, f"{preset} {name.lower()}")
            assert [plain(ours[label][column]) for column in BENCHMARKS] == row["scores"], label
            assert ("(*)" in name or "Qwen" in name) == (label in TABLES[2].protocols)
            found += 1
    assert found == len(ours) == 11


def test_table_3_holds_the_facts(facts):
    for name in ("Ladder@4", "xLadder@4"):
        ours = TABLES[3].reported[f"qwen2.5-math-1.5b {name.lower().replace('@', '-')}"]
        assert [plain(ours[column]) for column in BENCHMARKS] == facts["table_3"][name]
    assert len(TABLES[3].sweep["seed"]) == facts["table_3"]["runs"]


@pytest.mark.parametrize(("number", "column", "wald"), [(4, "critic", 3.9), (6, "cola", 0.03)])
def test_tables_4_and_6_hold_the_facts(facts, number, column, wald):
    found = {}
    for backbone, row in facts[f"table_{number}"].items():
        for method, value in row.items():
            method = "backbone" if method == "Base" else method.lower()
            found[f"{BACKBONES[backbone]} {method}"] = [value, wald]
    assert {label: plain(row[column]) for label, row in TABLES[number].reported.items()} == found


def test_table_5_holds_the_facts(facts):
    found = 0
    for backbone, row in facts["table_5"].items():
        for method, numbers in row.items():
            ours = TABLES[5].reported[f"{BACKBONES[backbone]} {method.lower()}"]
            assert ours["cola"].value == numbers["reproduction"]
            original = ours.get(f"cola{ORIGINAL}")
            assert (plain(original) if original else "not reported") == numbers["original"]
            found += 1
    assert found == len(TABLES[5].reported) == 6


def test_the_scaling_runs_are_table_7_of_the_facts(facts):
    stated = facts["table_7"]
    assert set(stated["batches"]) == {
        f"{b} {m}" for b in ("Qwen2.5-Math-1.5B", "Qwen2.5-7B") for m in ("Ladder", "QLoRA")
    }
    for name, batch in stated["batches"].items():
        backbone, method = name.split()
        label = f"{BACKBONES[backbone]} {method.lower()}"
        runs = cells(1)[label].configs
        assert [run.data.train_samples for run in runs] == stated["train_samples"]
        for run in runs:
            train = run.train
            assert [train.micro_batch_size, train.gradient_accumulation, train.global_batch_size] == batch
            assert (train.epochs, run.data.max_length) == (stated["epochs"], stated["sequence_length"])
            assert train.learning_rate == stated["learning_rate"]
            assert {"name": train.scheduler, "warmup_ratio": train.warmup_ratio} == stated["scheduler"]
            assert (train.optimizer, train.weight_decay) == ("adamw_8bit", stated["weight_decay"])
            assert stated["optimizer"] == "AdamW 8-bit"
            if method == "QLoRA":
                bits = {"nf4": 4, "int8": 8}[run.model.quantization]
                assert (bits, run.method.rank, run.method.alpha) == tuple(
                    stated["qlora"][k] for k in ("bits", "r", "alpha")
                )
        reported = TABLES[7].reported[label]
        assert [reported[name].value for name in ("micro-batch", "accumulation", "batch")] == batch
        assert reported["learning rate"].value == stated["learning_rate"]
    assert {BACKBONES[name] for name in facts["section_4_scaling"]["models"]} == {
        label.split()[0] for label in cells(1)
    }


def test_the_maths_runs_are_table_8_of_the_facts(facts):
    stated, section = facts["table_8"], facts["section_5_1_maths"]
    for name, (batch, rate) in stated["batch_and_learning_rate"].items():
        backbone, method = name.split()
        label = f"{BACKBONES[backbone]} {method.lower()}"
        runs = cells(2)[label].configs
        assert len(runs) == 5
        for run in runs:
            train = run.train
            assert (train.global_batch_size, train.gradient_accumulation, train.micro_batch_size) == (
                batch,
                None,
                batch,
            )
            assert (train.learning_rate, train.epochs) == (rate, stated["epochs"])
            assert train.evaluations == stated["epochs"]
            assert (run.data.max_length, section["train"]["context"]) == (
                stated["sequence_length"],
                stated["sequence_length"],
            )
            assert run.model.quantization == "int8"
            if method == "Ladder":
                assert (run.method.connections, run.method.layers) == ("aligned", None)
                assert (run.method.init, run.method.gate) == (stated["ladder"]["init"], "sum")
        reported = TABLES[8].reported[label]
        assert [reported["batch"].value, reported["learning rate"].value] == [batch, rate]
    for number in (2, 3):
        for evaluation in evaluations(number):
            assert evaluation.decode.max_new_tokens == 2048
            assert evaluation.decode.temperature == 0
    sizes = {"math500": "MATH-500", "aime24": "AIME24", "aime25": "AIME25", "amc23": "AMC23", "minerva": "Minerva"}
    from ladder_cli.data.benchmarks import benchmark_config

    for name in BENCHMARKS:
        assert benchmark_config(name).rows == section["benchmarks"][sizes.get(name, "OlympiadBench")]


def test_the_critic_s_runs_are_appendix_a_1_of_the_facts(facts):
    stated = facts["appendix_A1_critic"]
    for label, cell in cells(4).items():
        (run,) = cell.configs
        assert run.train.epochs == stated["training"]["epochs"], label
        assert run.train.learning_rate == stated["training"]["learning_rate"]
    assert {BACKBONES[name] for name in stated["training"]["models"]} == {label.split()[0] for label in cells(4)}
    assert TABLES[4].rows == {name: stated["rows"][name] for name in ("train", "test")}


@pytest.mark.parametrize("number", [5, 6])
def test_the_cola_runs_are_appendix_a_2_of_the_facts(facts, number):
    stated = facts["appendix_A2_cola"]
    for label, cell in cells(number).items():
        batch = stated["batch"]["QLoRA" if label.endswith(" qlora") else "Ladder"]
        assert len(cell.configs) == 4
        assert str(stated["runs"]).startswith("4")
        for run in cell.configs:
            assert run.train.global_batch_size == batch, label
            assert (run.train.epochs, run.train.evaluations) == (stated["epochs"]["CoLA"],) * 2
            assert (run.train.learning_rate, run.train.scheduler) == (stated["learning_rate"], "cosine")
            assert run.train.optimizer == "adamw"
            assert run.train.early_stopping is not None
            if label.endswith(" qlora"):
                assert (run.model.quantization, run.method.rank, run.method.alpha) == ("nf4", 16, 32)
                assert asdict(run.method).keys() >= {"rank", "alpha"}
                assert {"bits": 4, "r": 16, "alpha": 32}.items() <= stated["qlora"].items()
    if number == 6:
        gates = {cell.configs[0].method.gate for label, cell in cells(6).items() if not label.endswith(" qlora")}
        assert gates == {"fixed"}


def test_the_paper_gives_no_results_of_qqp_and_neither_do_we(facts):
    assert "no table" in facts["qqp"]
    assert not [
        label for table in TABLES.values() for row in table.reported.values() for label in row if "qqp" in label
    ]
