"""An option that is given and that nothing reads is a mistake, told in one line that names what would read it."""

import json
import subprocess
import sys

import pytest

from ladder_cli.cli.train import check_options, train
from ladder_cli.config.compose import composed, given_options
from ladder_cli.config.methods import METHOD_KINDS
from ladder_cli.config.options import option_names
from ladder_cli.config.schema import DataConfig, TrainConfig
from ladder_cli.data.formats import fields_read
from ladder_cli.errors import UserError
from tests.malformed import run_command

OWN = ("data=jsonl", "data.path=x.jsonl")
PREFERENCES = (*OWN, "data.format=preference", "objective=dpo")
UNREAD = [
    (("data.path=x.jsonl",), "data.path", "data=jsonl"),
    (("data=s1k", "data.path=x.jsonl"), "data.path", "data=jsonl"),
    (("data.prompt=q",), "data.prompt", "data=jsonl"),
    (("data=cola", "data.completion=a"), "data.completion", ""),
    (("data.target=trace",), "data.target", "data=s1k"),
    ((*OWN, "data.target=trace"), "data.target", ""),
    (("data.hub_id=a/b",), "data.hub_id", ""),
    (("data.split=test",), "data.split", ""),
    (("data_dir=/mirror",), "data_dir", "data=NAME"),
    ((*OWN, "data_dir=/mirror"), "data_dir", "data=NAME"),
    (("model.hub_id=a/b",), "model.hub_id", "model.path=null"),
    (("model.revision=main",), "model.revision", "model=NAME"),
    (("model=qwen2.5-0.5b", "model.path=x", "model.revision=main"), "model.revision", "model.path=null"),
    (("model=qwen2.5-0.5b", "model.path=x", "model.shape.hidden_size=8"), "model.shape.hidden_size", "model.path=null"),
    (("tracking.project=x",), "tracking.project", "tracking=wandb"),
    (("+tracking={project: x}",), "tracking.project", "tracking=wandb"),
    (("train.max_steps=5", "train.epochs=3"), "train.epochs", "train.max_steps=5"),
    (("train.gradient_accumulation=2", "train.global_batch_size=64"), "train.global_batch_size", "leave one out"),
    (("train.scheduler=constant", "train.warmup_ratio=0.2"), "train.warmup_ratio", "constant_with_warmup"),
    (("train.learning_rate=1e-3", "method.learning_rate=1e-4"), "method.learning_rate", "train.learning_rate"),
    (("train.learning_rate=1e-3", "model.learning_rate_scale=2"), "model.learning_rate_scale", "train.learning_rate"),
    (("train.learning_rate=1e-3", "objective.learning_rate_scale=2"), "objective.learning_rate_scale", "leave one out"),
    (("method=qlora", "model.side_recompute=true"), "model.side_recompute", "method.recompute"),
    (
        ("method=suffix", "model.side_recompute=true", "method.gradient_checkpointing=false"),
        "model.side_recompute",
        "method.gradient_checkpointing=False takes its place",
    ),
    (("experiment=maths", "method.learning_rate=1e-4"), "method.learning_rate", "train.learning_rate"),
    (("method=qlora", "model.side_reduction=4"), "model.side_reduction", "method.reduction"),
    (("method=lst", "model.side_reduction=4"), "model.side_reduction", "method.reduction"),
    (("method=ladder", "method.delta=2"), "method.delta", "method.connections=last"),
    (("method=ladder", "method.projection_rank=4"), "method.projection_rank", "method.projection=low_rank"),
    (("method=ladder", "method.init_samples=4"), "method.init_samples", "method.init=pruned_fisher"),
    (("objective.beta=0.2",), "objective.beta", "objective.name=dpo"),
    (("objective.loss=ipo",), "objective.loss", "objective.name=dpo"),
    (("objective.label_smoothing=0.1",), "objective.label_smoothing", "objective=dpo"),
    ((*OWN, "data.prompt=q", "data.completion=a", "data.chosen=b"), "data.chosen", "format preference"),
    ((*PREFERENCES, "data.completion=a"), "data.completion", "format pairs"),
    ((*PREFERENCES, "data.learn=last"), "data.learn", "format chat"),
]
READ = [
    (),
    ("seed=1", "resume=false", "output_dir=x", "preflight=warn", "train.logging_steps=1", "data.cache=false"),
    ("data.train_samples=5", "data.validation_samples=2", "data.max_length=64", "data.packing=true"),
    ("data.instruction=x", "data.truncation=left"),
    (*OWN, "data.prompt=q", "data.completion=a"),
    (*OWN, "data.messages=m"),
    ("data=evolm", "data_dir=/mirror", "data.prompt=q", "data.split=train", "data.hub_config=x"),
    ("data=s1k", "data.target=trace", "data_dir=/mirror"),
    ("data_dir=/mirror", "data.decontaminate=true"),
    ("data_dir=/mirror", "dry_run=true"),
    ("model=qwen2.5-0.5b", "model.revision=main"),
    ("model.path=null", "model.hub_id=a/b", "model.revision=main"),
    ("tracking.wandb=offline", "tracking.project=x"),
    ("tracking=mlflow", "tracking.project=x"),
    ("train.max_steps=5",),
    ("train.epochs=3",),
    ("train.max_steps=null", "train.epochs=3"),
    ("train.gradient_accumulation=2", "train.micro_batch_size=4", "train.global_batch_size=8"),
    ("train.scheduler=constant_with_warmup", "train.warmup_ratio=0.2"),
    ("train.scheduler=constant", "train.warmup_ratio=0"),
    ("method.learning_rate=1e-4", "model.learning_rate_scale=2"),
    ("method=ladder", "train.micro_batch_size=2", "train.loss_chunk=8", "method.int8_taps=true", "model.mlp_chunk=4"),
    ("method=ladder", "model.side_reduction=4", "model.side_recompute=true"),
    ("method=suffix", "model.side_recompute=true", "objective.learning_rate_scale=0.5"),
    ("method=xladder", "method.delta=2"),
    ("method=qst", "method.projection_rank=4"),
    ("method=lst", "method.init_samples=4"),
    (*PREFERENCES, "data.prompt=q", "data.chosen=a", "data.rejected=b", "data.instruction=x"),
    (*PREFERENCES, "objective.beta=0.2", "objective.label_smoothing=0.1"),
    (*PREFERENCES, "objective.loss=ipo"),
]  # fmt: skip


def check(overrides):
    """What ladder-train checks before it does anything."""
    check_options(composed("train", TrainConfig, list(overrides)), given_options(list(overrides)))


@pytest.mark.parametrize(
    ("overrides", "option", "reader"), UNREAD, ids=[f"{option} with {overrides[0]}" for overrides, option, _ in UNREAD]
)
def test_an_option_that_nothing_reads_is_refused_by_name_with_what_reads_it(overrides, option, reader):
    with pytest.raises(UserError) as refused:
        check(overrides)
    message = str(refused.value)
    assert f"{option} is given" in message or f"does not read {option}:" in message
    assert reader in message
    assert "\n" not in message


@pytest.mark.parametrize("overrides", READ, ids=" ".join)
def test_an_option_that_is_read_is_taken(overrides):
    check(overrides)


def test_every_option_of_a_training_set_is_read_by_one_at_least():
    sets = [
        ("data=arithmetic",),
        ("data=s1k",),
        ("data=cola",),
        ("data=evolm",),
        OWN,
        (*OWN, "data.messages=m"),
        PREFERENCES,
    ]
    read = set().union(*(fields_read(composed("train", TrainConfig, list(words)).data) for words in sets))
    assert read == set(option_names(DataConfig))


def test_options_that_refer_to_others_exist():
    known = {*option_names(TrainConfig)}.union(*(option_names(kind, "method.") for kind in METHOD_KINDS.values()))
    for kind in METHOD_KINDS.values():
        assert {*kind.takes_over, *kind.takes_over.values()} <= known


@pytest.mark.parametrize("method", ["ladder", "xladder", "suffix"])
def test_what_a_method_says_it_takes_over_its_preset_does_take_over(method):
    before = composed("train", TrainConfig, [f"method={method}", "model=tiny"])
    words = {"model.side_reduction": "model.side_reduction=7", "model.side_recompute": "model.side_recompute=true"}
    for option, own in before.method.takes_over.items():
        after = composed("train", TrainConfig, [f"method={method}", "model=tiny", words[option]]).method
        name = own.removeprefix("method.")
        assert getattr(after, name) != getattr(before.method, name), own


def test_given_options_are_read_as_hydra_reads_them():
    words = ["+a.b=1", "++c={d: 1, e: {f: 2}}", "~g", "data=jsonl", "h='x,y'", "i=[1,2]"]
    assert given_options(words) == ["a.b", "c.d", "c.e.f", "data", "h", "i"]


def test_the_commands_refuse_it_too_before_torch_is_there(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"q": "a", "a": "b"}) + "\n")
    words = [f"data.path={tmp_path / 'x.jsonl'}", "data.prompt=q", "data.completion=a", f"output_dir={tmp_path / 'o'}"]
    code = (
        "import sys; from ladder_cli.cli.train import main\n"
        "try: main()\n"
        "except SystemExit as stop: sys.exit(77 if 'torch' in sys.modules else stop.code)"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        "error: data=arithmetic (format generated) does not read data.path: its rows come from this package; a file of "
        "your own is data=jsonl data.path=FILE.\n"
    )
    assert not (tmp_path / "o").exists()
    status, _, errors = run_command("train", ["tracking.project=x", f"output_dir={tmp_path / 'o'}"])
    assert (status, len(errors.splitlines())) == (2, 1)
    status, _, errors = run_command("evaluate", ["model.revision=main", f"output_dir={tmp_path / 'o'}"])
    assert status == 2
    assert "model.revision is given, but nothing reads it: the folder model.path=builtin:tiny" in errors


def test_a_command_that_is_called_from_code_checks_the_same():
    overrides = ["data.path=x.jsonl"]
    with pytest.raises(UserError, match=r"does not read data\.path"):
        train(composed("train", TrainConfig, overrides), overrides)
