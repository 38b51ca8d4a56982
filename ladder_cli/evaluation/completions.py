"""Grading ready completions, without any model: for a newer grader, and for what other tools have generated."""

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console

from ladder_cli.claim import claimed
from ladder_cli.config import EvaluateConfig
from ladder_cli.data.benchmarks import benchmark_config, gold_rule
from ladder_cli.data.gold import AS_EXPRESSION, GoldRule
from ladder_cli.data.sources import Row, read_jsonl, text_column
from ladder_cli.errors import UserError
from ladder_cli.evaluation.binding import refuse_model_results
from ladder_cli.evaluation.grading import Grader, Task, grader_identity
from ladder_cli.evaluation.report import table
from ladder_cli.evaluation.samples import LENGTH, append_samples, read_samples, same_settings
from ladder_cli.evaluation.summary import summarise
from ladder_cli.run_dir import OUTPUTS, RESULT, SAMPLES, SETTINGS, safe_name, write_json

# Grades that are put on disk together.
_TOGETHER = 32


def grade_completions(config: EvaluateConfig, console: Console) -> None:
    """Grade the rows of a file; grades that are already in the folder are kept.

    Rows have `gold` and `completion`; and, if one likes, `id` (else the row's number), `benchmark`, whose gold rule
    then applies, `unit` and `error` for it, `stop_reason` (`length`: cut off, no answer without a box) and `tokens`.

    Raises:
        UserError: if the file is missing or broken, or names a row twice.
    """
    assert config.completions is not None
    source = Path(config.completions).expanduser()
    folder = Path(config.output_dir or OUTPUTS / safe_name(f"eval-{source.stem}"))
    rows: dict[str, Row] = {}
    tasks: dict[str, Task] = {}
    for number, row in enumerate(read_jsonl(source)[: config.limit], start=1):
        task = _task(row, str(number), f"{source}, row {number}")
        if task.key in rows:
            raise UserError(f"{source}, row {number}: id '{task.key}' stands twice.")
        rows[task.key], tasks[task.key] = row, task
    refuse_model_results(folder)
    grader_now = grader_identity(config.decode.grade_seconds)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    with claimed(folder):
        same_settings(
            folder / SETTINGS, {"completions": digest, **{f"grader.{key}": value for key, value in grader_now.items()}}
        )
        samples = read_samples(folder / SAMPLES)
        ready: list[dict[str, Any]] = []
        with Grader(seconds=config.decode.grade_seconds) as grader:
            for grade in grader.grade(task for name, task in tasks.items() if name not in samples):
                row, task = rows[grade.key], tasks[grade.key]
                ready.append(
                    {
                        "id": grade.key,
                        "benchmark": row.get("benchmark"),
                        "question_digest": row.get("question_digest"),
                        "prompt": row.get("prompt"),
                        "completion": task.completion,
                        "tokens": row.get("tokens"),
                        "stop_reason": row.get("stop_reason"),
                        "gold": task.gold,
                        "unit": task.rule.unit,
                        "error": task.rule.tolerance,
                        "answer": grade.answer,
                        "verdict": grade.verdict,
                    }
                )
                if len(ready) == _TOGETHER:
                    append_samples(folder / SAMPLES, ready)
                    ready = []
        append_samples(folder / SAMPLES, ready)
        samples = read_samples(folder / SAMPLES)
    benchmarks = {name: str(row.get("benchmark") or "-") for name, row in rows.items()}
    figures = {
        benchmark: summarise({source.name: [[samples[name] for name in rows if benchmarks[name] == benchmark]]})
        for benchmark in dict.fromkeys(benchmarks.values())
    }
    overall = summarise({source.name: [[samples[name] for name in rows]]})
    by_benchmark = {"benchmarks": figures} if len(figures) > 1 else {}
    write_json(folder / RESULT, {"completions": str(source), **overall, **by_benchmark, "grader": grader_now})
    console.print(table({(source.name, benchmark): figures[benchmark] for benchmark in figures}))
    console.print(f"graded completions: {folder / SAMPLES}", soft_wrap=True)


def _task(row: Row, number: str, where: str) -> Task:
    if not isinstance(row.get("completion"), str):
        raise UserError(f"{where} has no text in column 'completion'.")
    if isinstance(row.get("gold"), int | float):
        row = row | {"gold": str(row["gold"])}
    name = str(row["id"]) if row.get("id") is not None else number
    gold = text_column(row, "gold", where)
    return Task(name, gold, row["completion"], row.get("stop_reason") == LENGTH, _rule(row, where))


def _rule(row: Row, where: str) -> GoldRule:
    if row.get("benchmark") is None:
        return AS_EXPRESSION
    try:
        benchmark = benchmark_config(str(row["benchmark"]))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if benchmark.kind == "label":
        raise UserError(f"{where}: '{benchmark.name}' is a label task, which has no completions to grade.")
    return gold_rule(benchmark, row, where)
