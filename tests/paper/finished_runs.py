"""Run directories as a finished training and its evaluation leave them, with figures of our choosing."""

import json
from pathlib import Path

from ladder_cli.run.directory import RunDir, write_json, write_text


def write_run(
    folder: Path,
    *,
    method: str = "ladder",
    model: str = "small",
    rows: int = 1000,
    seed: int = 0,
    loss: float = 0.5,
    status: str = "done",
    peak: int = 5_000_000_000,
) -> Path:
    run = RunDir(folder / f"{method}-{model}-{rows}-{seed}")
    run.write_config(
        {
            "model": {"name": model, "learning_rate_scale": 2.0},
            "method": {"name": method, "learning_rate": 1e-3},
            "data": {"train_samples": rows},
            "train": {
                "epochs": 2.0,
                "micro_batch_size": 4,
                "gradient_accumulation": None,
                "global_batch_size": 12,
                "learning_rate": None,
            },
            "seed": seed,
        }
    )
    record = {"versions": {"torch": "2.0", "transformers": "5.0"}, "device": {"type": "cpu", "name": "a processor"}}
    write_json(run.run, {"status": status, "git_commit": None, **record})
    write_json(
        run.metrics,
        {
            "eval_loss": loss,
            "wall_seconds": 90.0,
            "trainable_parameters": 1234567,
            "tokens_seen": 2 * 100 * rows,
            "tokens_per_second": 1000.0,
            "peak_memory_bytes": {"measured": peak},
            "flops_per_token": {"paper": 50, "actual": 30},
        },
    )
    return run.path


def write_scores(folder: Path, benchmark: str, verdicts: dict[bool, list[int]]) -> None:
    """An evaluation with completions of these lengths, right (True) and wrong (False)."""
    right, wrong = verdicts[True], verdicts[False]
    samples = [
        {"id": f"{verdict}-{number}", "tokens": tokens, "verdict": "correct" if verdict else "incorrect"}
        for verdict, lengths in verdicts.items()
        for number, tokens in enumerate(lengths)
    ]
    write_text(folder / benchmark / "samples.jsonl", "".join(json.dumps(sample) + "\n" for sample in samples))
    figures = {
        "pass_at_1": len(right) / (len(right) + len(wrong)),
        "ci95": [0.1, 0.9],
        "mean_tokens_correct": sum(right) / len(right) if right else None,
        "mean_tokens_incorrect": sum(wrong) / len(wrong) if wrong else None,
    }
    write_json(folder / "summary.json", {benchmark: figures})
