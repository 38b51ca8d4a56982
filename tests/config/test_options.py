"""Options are declared once, with help and bounds; choices are parsed alike wherever they come from; files of
conf/hardware set options of other groups, below the experiment and the command line.
"""

import json
import subprocess
import sys
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path

import pytest
from omegaconf import MISSING, OmegaConf

from ladder_cli.config import choices
from ladder_cli.config.catalogue import preset_options
from ladder_cli.config.choices import Gate, Optimizer, Pattern, Quantization
from ladder_cli.config.compose import PRESET_GROUPS, as_dict, composed, parse
from ladder_cli.config.compose import choices as files_of
from ladder_cli.config.evaluation import BenchmarkConfig, DecodeConfig, EvaluateConfig
from ladder_cli.config.methods import METHOD_KINDS, LadderMethodConfig
from ladder_cli.config.objective import ObjectiveConfig
from ladder_cli.config.options import choices_of, hints_of, option_names, told_of
from ladder_cli.config.schema import (
    MOVED,
    DataConfig,
    HardwareConfig,
    ModelConfig,
    OptimizationConfig,
    TrackingConfig,
    TrainConfig,
    TrunkConfig,
)
from ladder_cli.config.using import ChatConfig, ExportConfig
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir
from ladder_cli.run.identity import RunIdentity

ROOT = Path(__file__).parents[2]
SCHEMAS = {
    "": TrainConfig, "model": ModelConfig, "data": DataConfig, "hardware": HardwareConfig, "trunk": TrunkConfig,
    "train": OptimizationConfig, "tracking": TrackingConfig, "benchmark": BenchmarkConfig, "decode": DecodeConfig,
    "method": LadderMethodConfig, "objective": ObjectiveConfig,
    "evaluate": EvaluateConfig, "export": ExportConfig, "chat": ChatConfig,
}  # fmt: skip
CHOICES = [
    (group, item.name, chosen)
    for group, schema in SCHEMAS.items()
    for item in fields(schema)
    if (chosen := choices_of(hints_of(schema)[item.name])) is not None
]
METHOD = {"name": "own", "kind": "ladder", "learning_rate": 1e-3}
NEEDED = {
    ModelConfig: {"name": "own"}, DataConfig: {"name": "own", "instruction": ""}, HardwareConfig: {"name": "own"},
    BenchmarkConfig: {"name": "own"}, LadderMethodConfig: METHOD, TrainConfig: {"method": LadderMethodConfig(**METHOD)},
}  # fmt: skip


def train(*overrides):
    return composed("train", TrainConfig, list(overrides))


def made(group, **values):
    schema = SCHEMAS[group]
    return schema(**NEEDED.get(schema, {}) | values)


@pytest.mark.parametrize(("group", "name", "chosen"), CHOICES, ids=[f"{group}.{name}" for group, name, _ in CHOICES])
def test_a_choice_is_a_member_whatever_it_was_given_as_and_a_misspelt_one_is_refused(group, name, chosen):
    for member in chosen:
        assert getattr(made(group, **{name: member.value}), name) is member
        assert getattr(made(group, **{name: member}), name) is member
    last = list(chosen)[-1].value
    misspelt = last[:-1] + ("x" if last[-1] != "x" else "y")
    with pytest.raises(UserError, match=rf"^\S*{name}={misspelt} is not a choice\..*Choose from: .*{last}"):
        made(group, **{name: misspelt})
    with pytest.raises(UserError, match="is not a choice"):
        made(group, **{name: 1})


def test_the_command_line_refuses_a_misspelt_choice_with_a_suggestion():
    for words, suggestion in (
        ("method.init=unifrom", "Did you mean 'uniform'?"),
        ("method.block=ful", "Did you mean 'full'?"),
        ("train.scheduler=cosin", "Did you mean 'cosine'?"),
        ("method.connections=frist", "Did you mean 'first'?"),
    ):
        with pytest.raises(UserError) as refused:
            train("method=ladder", words)
        assert f"{words} is not a choice. {suggestion}" in str(refused.value)


def test_a_choice_is_plain_text_on_disk_and_comes_back_the_same():
    config = train("hardware=rtx-6gb", "method=qst", "train.optimizer=adamw")
    assert config.method.gate is Gate.VECTOR
    assert config.train.optimizer is Optimizer.ADAMW
    assert config.method.connections is Pattern.ALIGNED
    plain = as_dict(config)

    def leaves(value):
        nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [value] if not isinstance(value, dict | list) else [leaf for item in nested for leaf in leaves(item)]

    assert not [leaf for leaf in leaves(plain) if isinstance(leaf, StrEnum)]
    assert json.loads(json.dumps(plain)) == plain
    assert "gate: vector" in OmegaConf.to_yaml(OmegaConf.create(plain))
    assert as_dict(parse(OmegaConf.create(plain), TrainConfig)) == plain
    assert json.dumps({"gate": config.method.gate}) == '{"gate": "vector"}'


def test_no_choice_has_the_values_of_another_ones_option_twice():
    enumerations = {value for value in vars(choices).values() if isinstance(value, type) and issubclass(value, StrEnum)}
    used = {chosen for _, _, chosen in CHOICES} | {Pattern}
    assert enumerations - {StrEnum} == used


def test_every_option_says_what_it_is_and_its_default_lies_within_its_bounds():
    for schema in {*SCHEMAS.values(), EvaluateConfig, *METHOD_KINDS.values()}:
        for item in fields(schema):
            told = told_of(item)
            assert told.help, item.name
            assert "\n" not in told.help
            if told.at_least is None or item.default in (None, MISSING, NO_DEFAULT):
                continue
            assert told.at_least <= item.default <= (told.at_most if told.at_most is not None else float("inf"))


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("train.loss_chunk=0", "train.loss_chunk=0 is too small: it must be at least 1."),
        ("train.warmup_ratio=1.5", "train.warmup_ratio=1.5 is out of range: it must lie between 0.0 and 1.0."),
        ("method.learning_rate=2", "method.learning_rate=2.0 is out of range: it must lie between 0.0 and 1.0."),
        ("train.max_grad_norm=nan", "train.max_grad_norm=nan is no number to work with: it must be finite."),
    ],
)
def test_a_number_out_of_its_fields_bounds_is_refused(words, refused):
    with pytest.raises(UserError) as raised:
        train(words)
    assert str(raised.value) == refused


def test_the_page_of_options_is_current():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import options
    finally:
        sys.path.pop(0)
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == options.page(), "python scripts/options.py"


# What files of conf/hardware set.


def test_a_machine_sets_what_it_asks_of_model_method_and_training():
    config = train("hardware=rtx-6gb", "method=ladder")
    assert (config.train.micro_batch_size, config.train.loss_chunk) == (1, 128)
    assert config.model.head_quantization is Quantization.NF4
    assert config.model.embeddings_on_cpu
    assert config.method.int8_taps
    assert not train("hardware=rtx-8gb", "method=ladder").method.int8_taps
    assert train("hardware=rtx-8gb").train.loss_chunk == 256


def test_the_command_line_wins_over_the_experiment_and_that_over_the_machine():
    machine, experiment = ["hardware=rtx-6gb"], ["hardware=rtx-6gb", "experiment=cola"]
    assert train(*machine).train.micro_batch_size == 1
    assert train(*experiment).train.micro_batch_size == 4
    assert train(*experiment, "train.micro_batch_size=2").train.micro_batch_size == 2
    # What the experiment does not say stays the machine's.
    assert train(*experiment).train.loss_chunk == 128
    assert not train(*machine, "method=ladder", "method.int8_taps=false").method.int8_taps
    assert train(*machine, "model.head_quantization=none").model.head_quantization is Quantization.NONE


def test_what_a_method_or_command_does_not_have_is_left_out():
    config = train("hardware=rtx-6gb", "method=qlora")
    assert "int8_taps" not in as_dict(config)["method"]
    assert config.train.loss_chunk == 128
    evaluated = as_dict(composed("evaluate", EvaluateConfig, ["hardware=rtx-6gb"]))
    assert evaluated["model"]["head_quantization"] == "nf4"
    assert not {"train", "method"} & evaluated.keys()


def test_what_they_do_not_have_is_still_refused_where_it_is_typed():
    for machine in ("auto", "rtx-6gb"):
        with pytest.raises(UserError, match=r"'method.int8_taps' does not belong to the chosen method: .* ladder"):
            train(f"hardware={machine}", "method=qlora", "method.int8_taps=true")
        with pytest.raises(UserError, match="unknown option 'train"):
            composed("evaluate", EvaluateConfig, [f"hardware={machine}", "train.loss_chunk=3"])


def test_machines_set_only_options_that_there_are():
    known = {*option_names(TrainConfig)}.union(*(option_names(kind, "method.") for kind in METHOD_KINDS.values()))
    assert {f"{group}.{name}" for group, names in preset_options().items() for name in names} <= known
    for schema, more in PRESET_GROUPS.items():
        assert set(more) == preset_options().keys() - {item.name for item in fields(schema)}
    assert {train(f"hardware={name}").hardware.name for name in files_of("hardware")} == set(files_of("hardware"))


# Options that have moved.


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_option_that_has_moved_is_refused_with_its_new_name(old, new):
    for config_name, schema in (("train", TrainConfig), ("evaluate", EvaluateConfig)):
        with pytest.raises(UserError, match=rf"option '{old}' has moved: .*\b{new}\b"):
            composed(config_name, schema, [f"{old}=1"])


def test_the_line_about_it_is_one(tmp_path):
    command = [sys.executable, "-m", "ladder_cli.train", "hardware.loss_chunk=8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: option 'hardware.loss_chunk' has moved: give train.loss_chunk=VALUE.\n"


def test_a_run_of_before_is_the_run_that_the_same_command_line_gives_now(tmp_path):
    before = RunDir(tmp_path)
    before.config.write_text((Path(__file__).parent / "config_before_options_moved.yaml").read_text())
    assert "loss_chunk: 128" in before.config.read_text().partition("hardware:")[2].partition("train:")[0]
    # With the method, the rate and the schedule of that time.
    then = ("hardware=rtx-6gb", "method=ladder", "method.learning_rate=1e-3", "model.learning_rate_scale=4")
    then += ("train.scheduler=cosine", "train.warmup_ratio=0.1")
    now = RunIdentity.of_config(as_dict(train(*then)))
    assert before.identity().settings == now.settings
    assert before.identity().differences(now) == []
    assert as_dict(parse(before.read_config(), TrainConfig)) == as_dict(train(*then))
    other = RunIdentity.of_config(as_dict(train(*then, "train.loss_chunk=64")))
    assert before.identity().differences(other) == ["train.loss_chunk: 128 -> 64"]


def test_every_group_of_the_schema_is_a_dataclass_of_options():
    nested = [item for item in fields(TrainConfig) if is_dataclass(item.default_factory)]
    assert {item.name for item in nested} == {"model", "data", "hardware", "trunk", "objective", "train", "tracking"}
