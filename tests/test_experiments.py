"""Every experiment composes to what the paper states."""

import pytest

from ladder_cli.cli import choices
from tests.test_config import composed

# Backbone, method, micro-batch, accumulation, learning rate (table 7; sections 5.1 and 5.2).
STATED = {
    "scaling": ("qwen2.5-1.5b", "ladder", 8, 3, 2e-5),
    "scaling-qlora": ("qwen2.5-1.5b", "qlora", 4, 5, 2e-5),
    "scaling-7b": ("qwen2.5-7b", "ladder", 4, 3, 2e-5),
    "scaling-7b-qlora": ("qwen2.5-7b", "qlora", 2, 5, 2e-5),
    "maths": ("qwen2.5-math-1.5b", "ladder", 8, 1, 2e-4),
    "maths-qlora": ("qwen2.5-math-1.5b", "qlora", 4, 1, 2e-5),
    "maths-7b": ("qwen2.5-math-7b", "ladder", 4, 1, 2e-4),
    "maths-7b-qlora": ("qwen2.5-math-7b", "qlora", 2, 1, 2e-5),
    "ladder-4": ("qwen2.5-math-1.5b", "ladder-4", 8, 1, 2e-4),
    "xladder-4": ("qwen2.5-math-1.5b", "xladder-4", 8, 1, 2e-4),
    "critic": ("qwen2.5-0.5b", "ladder", 8, 1, 5e-4),
    "critic-qlora": ("qwen2.5-0.5b", "qlora", 8, 1, 5e-4),
    "cola-lst": ("opt-1.3b", "lst", 4, 1, 1e-5),
    "cola": ("qwen2.5-1.5b", "ladder", 32, 1, 1e-5),
    "cola-qlora": ("qwen2.5-1.5b", "qlora", 32, 1, 1e-5),
    "qqp": ("qwen2.5-1.5b", "ladder", 32, 1, 1e-5),
    "qqp-qlora": ("qwen2.5-1.5b", "qlora", 32, 1, 1e-5),
}


@pytest.mark.parametrize("name", choices("experiment"))
def test_an_experiment_is_what_the_paper_states(name):
    config = composed(f"experiment={name}")
    train = config.train
    assert STATED[name] == (
        config.model.name,
        config.method.name,
        train.micro_batch_size,
        train.accumulation(1),
        config.peak_learning_rate,
    )
    assert train.global_batch_size == train.micro_batch_size * train.accumulation(1)


def test_the_scaling_runs_share_all_but_method_backbone_and_batch():
    runs = [composed(f"experiment={name}") for name in ("scaling", "scaling-qlora", "scaling-7b", "scaling-7b-qlora")]
    for run in runs:
        assert (run.data.name, run.data.max_length, run.train.epochs) == ("evolm", 1839, 1)
        assert (run.train.scheduler, run.train.warmup_ratio) == ("cosine", 0.1)
        assert (run.train.optimizer, run.train.weight_decay) == ("adamw_8bit", 0.01)
        assert run.model.quantization == "nf4"
    assert {(run.method.rank, run.method.alpha) for run in runs[1::2]} == {(16, 32)}


def test_the_maths_runs_add_taps_unweighted_and_start_uniformly():
    for name in ("maths", "maths-7b", "ladder-4", "xladder-4"):
        config = composed(f"experiment={name}")
        assert (config.method.gate, config.method.init) == ("sum", "uniform")
        assert (config.data.max_length, config.train.epochs, config.model.quantization) == (2122, 3, "int8")


def test_label_tasks_train_as_long_as_stated():
    assert composed("experiment=cola-lst").method.init == "pruned_fisher"
    assert composed("experiment=cola").method.gate == "fixed"
    assert {composed(f"experiment={name}").train.epochs for name in ("cola", "cola-lst", "cola-qlora")} == {7}
    assert {composed(f"experiment={name}").train.epochs for name in ("qqp", "qqp-qlora")} == {4}


def test_the_command_line_overrules_an_experiment():
    config = composed("experiment=cola-lst", "model=opt-6.7b", "train.learning_rate=1e-3")
    assert (config.model.name, config.peak_learning_rate) == ("opt-6.7b", 1e-3)
    assert config.model.shape["hidden_size"] == 4096
