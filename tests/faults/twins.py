"""Runs to hurt, their uninterrupted twins, and the comparison of the two."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.processes import Outcome, run

# A few seconds each: gradients accumulated, an epoch that ends in the middle, logging that checkpoints do not divide,
# dropout (random states), early stopping (its patience), checkpoints at every fourth step.
SHORT = (
    *("hardware=cpu", "data.train_samples=64", "data.validation_samples=8", "data.cache=false", "seed=3"),
    *("train.global_batch_size=8", "train.micro_batch_size=4", "train.max_steps=20", "train.evaluations=5"),
    *("train.logging_steps=3", "train.early_stopping=3"),
)
TRAINED = {
    "ladder": ("method=ladder",),
    "xladder": ("method=xladder", "train.learning_rate=0.02", "train.scheduler=constant", "train.early_stopping=1"),
    "qlora": ("method=qlora", "method.dropout=0.1"),
    "suffixed": ("method=ladder-suffix", "method.layers=2", "method.suffix_layers=3", "method.dropout=0.1"),
    # The cache lies in the folder that a run is started in: what a kill left of it is read by the next start.
    "cached": ("method=ladder", "trunk.cache=disk"),
    # What it learns from it samples itself, graded in processes of its own: kills fall into each of the three parts.
    "rewarded": (
        *("method=suffix", "method.layers=2", "method.dropout=0.1", "objective=grpo", "objective.group=4"),
        *("objective.max_new_tokens=12", "train.max_steps=12", "train.early_stopping=null"),
    ),
}
DECODED = ("limit=12", "decode.max_new_tokens=48", "decode.batch_size=3", "hardware=cpu")
# Figures of the clock, the machine and what a cache held at the start, which no two runs share.
_MEASURED = ("tokens_per_second", "flops_per_second", "peak_memory_bytes", "wall_seconds", "flops_per_token")
_TIMED = (
    *("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_tokens_per_second"),
    *("generate_seconds", "grade_seconds", "train_seconds"),
)


@dataclass(frozen=True)
class Difference:
    """Results that are missing, and results that are not the twin's."""

    lost: int = 0
    damaged: int = 0

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(self.lost + other.lost, self.damaged + other.damaged)


def train_arguments(kind: str, folder: Path) -> tuple[str, ...]:
    """Arguments of `ladder-train`; what comes later wins."""
    given = dict(word.split("=", 1) for word in (*SHORT, *TRAINED[kind]))
    return (*(f"{key}={value}" for key, value in given.items()), f"output_dir={folder / 'run'}")


def train_twin(kind: str, folder: Path) -> Outcome:
    """An uninterrupted run."""
    outcome = run(folder, "train", *train_arguments(kind, folder))
    assert outcome.status == 0, outcome.err
    return outcome


def compare_runs(ours: Path, twin: Path) -> Difference:
    """Adapter, figures, log and last checkpoint of two run directories, bit for bit."""
    pairs: list[tuple[Any, Any]] = []
    for name in ("adapter/adapter_model.safetensors", "adapter/prompt.json"):
        pairs.append((_content(ours / name), _content(twin / name)))
    pairs.append((_adapter_config(ours), _adapter_config(twin)))
    pairs.append((_figures(ours), _figures(twin)))
    pairs.append((_log(ours), _log(twin)))
    if (twin / "completions.jsonl").is_file():
        pairs.append((_content(ours / "completions.jsonl"), _content(twin / "completions.jsonl")))
    last = max((twin / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])).name
    for name in ("optimizer.safetensors", "random-0.json", "adapter_model.safetensors", "progress.json"):
        pairs.append((_content(ours / "checkpoints" / last / name), _content(twin / "checkpoints" / last / name)))
    lost = sum(mine is None for mine, _ in pairs)
    return Difference(lost, sum(mine is not None and mine != theirs for mine, theirs in pairs))


def compare_samples(ours: Path, twin: Path) -> Difference:
    """The samples of two evaluations: missing or double ones are lost, others than the twin's damaged."""
    mine, theirs = _samples(ours), _samples(twin)
    by_id = {sample["id"]: sample for sample in mine}
    lost = sum(sample["id"] not in by_id for sample in theirs) + len(mine) - len(by_id)
    damaged = sum(by_id.get(sample["id"], sample) != sample for sample in theirs)
    same_bytes = _content(ours / "samples.jsonl") == _content(twin / "samples.jsonl")
    same_result = _result(ours) == _result(twin)
    return Difference(lost, damaged + (not same_bytes) + (not same_result))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None


def _adapter_config(run_folder: Path) -> Any:
    config = _json(run_folder / "adapter" / "adapter_config.json")
    if config is not None and isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()  # peft keeps a set
    return config


def _figures(run_folder: Path) -> Any:
    figures = _json(run_folder / "metrics.json")
    return figures and {name: value for name, value in figures.items() if name not in _MEASURED}


def _log(run_folder: Path) -> Any:
    path = run_folder / "metrics.jsonl"
    if not path.is_file():
        return None
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in _TIMED} for line in lines]


def _samples(folder: Path) -> list[dict]:
    path = folder / "samples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _result(folder: Path) -> Any:
    return _json(folder / "result.json")
