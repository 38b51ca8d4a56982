"""Run directories as training and evaluation leave them, made without either."""

import json
from collections.abc import Sequence
from pathlib import Path

from ladder_cli.evaluate.answers.verdict import CORRECT, INCORRECT
from ladder_cli.evaluate.samples import Sample, write_samples
from ladder_cli.evaluate.summary import summarise
from ladder_cli.run.directory import RESULT, SAMPLES, SETTINGS, RunDir, write_json

SETTINGS_OF_ALL = {"kind": "boxed", "rule": "expression", "temperature": 0.0, "max_new_tokens": 64, "prompt": "same"}


def sample(number: int, right: bool, completion: str | None = None, **told) -> Sample:
    answer = str(2 * number if right else 2 * number + 1)
    values = {
        "id": f"problem-{number}",
        "benchmark": "sums",
        "question_digest": f"digest-{number}",
        "prompt": f"What is {number}+{number}?",
        "completion": f"It is \\boxed{{{answer}}}." if completion is None else completion,
        "tokens": 10 + number % 7,
        "stop_reason": "stop",
        "gold": str(2 * number),
        "unit": "",
        "answer": answer,
        "verdict": CORRECT if right else INCORRECT,
        "reading": {"found": "box", "compared": "as expressions"},
        "math_verify": CORRECT if right else INCORRECT,
    }
    return Sample(**values | told)


def samples(verdicts: str) -> list[Sample]:
    """The n-th problem answered as the n-th sign says: `r`ight or `w`rong."""
    return [sample(number, sign == "r") for number, sign in enumerate(verdicts)]


def write_evaluation(folder: Path, answered: Sequence[Sample], settings: dict | None = None) -> Path:
    write_samples(folder / SAMPLES, answered)
    write_json(folder / SETTINGS, SETTINGS_OF_ALL | {"weights": folder.parts[-3]} | (settings or {}))
    figures = summarise({"run": [list(answered)]}, True)
    write_json(folder / RESULT, figures | {"extent": {"runs": {}, "repeats": 1, "problems": len(answered)}})
    return folder


def write_training(path: Path, seed: int = 0, method: str = "ladder", status: str = "done", steps: int = 30) -> RunDir:
    run = RunDir(path)
    run.write_config({"seed": seed, "method": {"name": method, "rank": None}, "train": {"epochs": 1.0}})
    identity = {"weights": "w", "rows": "r", "tokenizer": "t", "prompt": "p", "rows_follow_seed": True}
    write_json(run.run, {"status": status, "identity": identity, "device": {"type": "cpu"}, "order_of_seed": seed})
    lines = [{"step": n, "rows_seen": 4 * n, "loss": 2 / n + seed / 10} for n in range(1, steps + 1)]
    lines += [{"step": n, "rows_seen": 4 * n, "eval_loss": 2.1 / n} for n in range(10, steps + 1, 10)]
    run.metrics_log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    memory = {"predicted": 50_000_000, "measured": 700_000_000, "baseline": 600_000_000, "kind": "resident set"}
    figures = {
        "eval_loss": 0.5,
        "train_loss": 0.7,
        "best_step": 30,
        "trainable_parameters": 7,
        "backbone_parameters": 70,
    }
    write_json(run.metrics, figures | {"peak_memory_bytes": memory, "tokens_per_second": 10.0, "wall_seconds": 3.0})
    return run


def write_run(path: Path, verdicts: str | Sequence[Sample], seed: int = 0, method: str = "ladder") -> Path:
    answered = samples(verdicts) if isinstance(verdicts, str) else verdicts
    write_evaluation(write_training(path, seed, method).evaluation / "sums", answered)
    return path
