"""One evaluation from config to summary: trained runs, a backbone alone, or ready completions."""

import glob
import hashlib
import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from ladder_cli.claim import claimed
from ladder_cli.cli import parse
from ladder_cli.config import EvaluateConfig, ModelConfig, TrainConfig, is_main_process
from ladder_cli.data.benchmarks import Problem, benchmark_config, benchmark_names, load_problems
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.classification import LABELS
from ladder_cli.data.sources import read_jsonl, text_column
from ladder_cli.errors import UserError
from ladder_cli.evaluation.classification import classify
from ladder_cli.evaluation.generation import generate, render_prompt
from ladder_cli.evaluation.grading import CORRECT, INCORRECT, Grader, Task, grader_identity
from ladder_cli.evaluation.report import summarise, summarise_labels, table
from ladder_cli.evaluation.samples import Sample, append_samples, read_samples
from ladder_cli.evaluation.shards import merged, own_path, own_prompts, write_in_order
from ladder_cli.models.adapter import WEIGHTS_FILE
from ladder_cli.models.backbone import load_backbone, load_tokenizer, resolve_device
from ladder_cli.models.method import load_adapter
from ladder_cli.run_dir import OUTPUTS, RESULT, SAMPLES, SETTINGS, SUMMARY, RunDir, read_json, safe_name, write_json
from ladder_cli.training.processes import decided_by_main, join, wait_for_everyone


@dataclass(frozen=True)
class Target:
    """What is evaluated, and where its results go.

    Attributes:
        identity: of the weights; samples of other weights are never mixed in.
    """

    name: str
    model: nn.Module
    renderer: PromptRenderer
    identity: str
    folder: Path


def evaluate_models(config: EvaluateConfig, overrides: list[str], console: Console) -> None:
    """Evaluate runs or a backbone on every benchmark, and print the table.

    Raises:
        UserError: for whatever is wrong with run, benchmark or data.
    """
    names = benchmark_names(config.benchmarks)
    problems = {name: load_problems(benchmark_config(name), config.data_dir, config.limit) for name in names}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    join(resolve_device(config.hardware.device))
    runs = _runs(config.run) if config.run is not None else [None]
    for run in runs:
        target = _backbone_alone(config) if run is None else _trained(config, overrides, run, several=len(runs) > 1)
        for name in names:
            asked = target
            if run is None and benchmark_config(name).kind == "label" and not _given(overrides, "instruction"):
                # Label tasks bring their own instruction with the question (conf/data: instruction: '').
                asked = replace(target, renderer=PromptRenderer(target.renderer.tokenizer, ""))
            rows[target.name, name] = evaluate_benchmark(asked, name, problems[name], config, console)
    if is_main_process():
        console.print(table(rows))


def evaluate_benchmark(
    target: Target, name: str, problems: list[Problem], config: EvaluateConfig, console: Console
) -> dict[str, Any]:
    """Generate and grade what is still missing, then write `result.json` and add to `summary.json`.

    Returns:
        The figures; of several processes, the main one alone has any.
    """
    folder = target.folder / name
    settings = {
        "weights": target.identity,
        "prompt": target.renderer.fingerprint,
        "seed": config.seed,
        **{key: value for key, value in asdict(config.decode).items() if key != "batch_size"},
    }
    by_label = benchmark_config(name).kind == "label"
    work = _classify if by_label else _complete
    with claimed(folder) if is_main_process() else nullcontext():
        samples = {}
        if is_main_process():
            _same_settings(folder / SETTINGS, settings)
            samples = merged(folder / SAMPLES)
        samples = decided_by_main(samples)
        for problem in problems:
            if problem.id in samples and samples[problem.id]["gold"] != problem.gold:
                raise UserError(
                    f"{folder} holds samples of another version of {name} (the gold answer of '{problem.id}' differs): "
                    "give another output_dir, or delete that folder."
                )
        if any(problem.id not in samples for problem in problems):
            work(target, name, problems, set(samples), folder / SAMPLES, config, console)
        wait_for_everyone()
        if not is_main_process():
            return {}
        samples = merged(folder / SAMPLES)
        write_in_order(folder / SAMPLES, samples, [problem.id for problem in problems])
        wanted = [samples[problem.id] for problem in problems]
        figures = summarise_labels(wanted, positive=LABELS[1]) if by_label else summarise(wanted)
        result = {"benchmark": name, "evaluated": target.name, **figures}
        write_json(folder / RESULT, result | {"settings": settings, "grader": grader_identity()})
    with claimed(target.folder, wait=True):
        summary = target.folder / SUMMARY
        write_json(summary, (read_json(summary) if summary.is_file() else {}) | {name: figures})
    return figures


def _complete(
    target: Target,
    name: str,
    problems: list[Problem],
    finished_before: Collection[str],
    path: Path,
    config: EvaluateConfig,
    console: Console,
) -> None:
    golds = {problem.id: problem.gold for problem in problems}
    prompts = own_prompts(
        [render_prompt(problem.id, problem.question, target.renderer) for problem in problems],
        config.decode.batch_size,
        finished_before,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with (
        Grader(seconds=config.decode.grade_seconds) as grader,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task(f"{target.name} on {name}", total=len(prompts), figures="")
        done = correct = tokens = 0
        started = time.perf_counter()
        for batch in generate(target.model, target.renderer, prompts, config.decode, config.seed):
            by_id = {completion.prompt.id: completion for completion in batch}
            tasks = [Task(c.prompt.id, golds[c.prompt.id], c.text, c.stop_reason == "length") for c in batch]
            finished: list[Sample] = []
            for grade in grader.grade(tasks):
                completion = by_id[grade.key]
                finished.append(
                    {
                        "id": grade.key,
                        "prompt": completion.prompt.text,
                        "completion": completion.text,
                        "tokens": completion.tokens,
                        "stop_reason": completion.stop_reason,
                        "gold": golds[grade.key],
                        "answer": grade.answer,
                        "verdict": grade.verdict,
                    }
                )
            append_samples(own_path(path), [sample for sample in finished if sample["id"] not in finished_before])
            done += len(finished)
            correct += sum(sample["verdict"] == CORRECT for sample in finished)
            tokens += sum(completion.tokens for completion in batch)
            figures = f"{correct} correct  {tokens / (time.perf_counter() - started):,.0f} tokens/s"
            progress.update(bar, completed=done, figures=figures)
            if not console.is_terminal:
                console.print(f"{target.name} on {name}: {done}/{len(prompts)}  {figures}")


def _classify(
    target: Target,
    name: str,
    problems: list[Problem],
    finished_before: Collection[str],
    path: Path,
    config: EvaluateConfig,
    console: Console,
) -> None:
    golds = {problem.id: problem.gold for problem in problems}
    prompts = own_prompts(
        [render_prompt(problem.id, problem.question, target.renderer) for problem in problems],
        config.decode.batch_size,
        finished_before,
    )
    done = correct = 0
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{target.name} on {name}", total=len(prompts))
        for batch in classify(target.model, target.renderer, prompts, LABELS, config.decode.batch_size):
            finished: list[Sample] = [
                {
                    "id": prediction.prompt.id,
                    "prompt": prediction.prompt.text,
                    "completion": prediction.label,
                    "tokens": 1,
                    "stop_reason": None,
                    "gold": golds[prediction.prompt.id],
                    "answer": prediction.label,
                    "verdict": CORRECT if prediction.label == golds[prediction.prompt.id] else INCORRECT,
                    "logits": prediction.logits,
                }
                for prediction in batch
            ]
            append_samples(own_path(path), [sample for sample in finished if sample["id"] not in finished_before])
            done += len(finished)
            correct += sum(sample["verdict"] == CORRECT for sample in finished)
            progress.update(bar, completed=done)
    console.print(f"{target.name} on {name}: {done}/{len(prompts)}  {correct} correct", soft_wrap=True)


def grade_completions(config: EvaluateConfig, console: Console) -> None:
    """Grade ready completions, without any model; grades that are already in the folder are kept.

    Raises:
        UserError: if the file is missing or broken, or names a row twice.
    """
    assert config.completions is not None
    source = Path(config.completions).expanduser()
    folder = Path(config.output_dir or OUTPUTS / safe_name(f"eval-{source.stem}"))
    content = read_jsonl(source)
    rows: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(content[: config.limit], start=1):
        where = f"{source}, row {number}"
        if not isinstance(row.get("completion"), str):
            raise UserError(f"{where} has no text in column 'completion'.")
        name = str(row["id"]) if row.get("id") is not None else str(number)
        if name in rows:
            raise UserError(f"{where}: id '{name}' stands twice.")
        rows[name] = row | {"gold": text_column({"gold": str(row.get("gold", ""))}, "gold", where)}
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    with claimed(folder):
        _same_settings(folder / SETTINGS, {"completions": digest, "grade_seconds": config.decode.grade_seconds})
        samples = read_samples(folder / SAMPLES)
        tasks = [
            Task(name, row["gold"], row["completion"], row.get("stop_reason") == "length")
            for name, row in rows.items()
            if name not in samples
        ]
        with Grader(seconds=config.decode.grade_seconds) as grader:
            for grade in grader.grade(tasks):
                row = rows[grade.key]
                append_samples(
                    folder / SAMPLES,
                    [
                        {
                            "id": grade.key,
                            "prompt": row.get("prompt"),
                            "completion": row["completion"],
                            "tokens": row.get("tokens"),
                            "stop_reason": row.get("stop_reason"),
                            "gold": row["gold"],
                            "answer": grade.answer,
                            "verdict": grade.verdict,
                        }
                    ],
                )
        samples = read_samples(folder / SAMPLES)
        figures = summarise(samples[name] for name in rows)
        write_json(folder / RESULT, {"completions": str(source), **figures, "grader": grader_identity()})
    console.print(table({(source.name, "-"): figures}))
    console.print(f"graded completions: {folder / SAMPLES}", soft_wrap=True)


def _runs(pattern: str) -> list[RunDir]:
    found = [pattern] if Path(pattern).is_dir() else sorted(path for path in glob.glob(pattern) if Path(path).is_dir())
    runs = [RunDir(path) for path in found if RunDir(path).config.is_file()]
    if not runs:
        raise UserError(f"run={pattern} names no run directory (a folder with config.yaml).")
    return runs


def _backbone_alone(config: EvaluateConfig) -> Target:
    model = load_backbone(config.model, resolve_device(config.hardware.device))
    renderer = PromptRenderer(load_tokenizer(config.model), config.instruction)
    folder = Path(config.output_dir or OUTPUTS / safe_name(f"eval-{config.model.name}"))
    identity = f"{config.model.location} {config.model.revision} {config.model.quantization} {model.dtype}"
    return Target(config.model.name, model, renderer, identity, folder)


def _trained(config: EvaluateConfig, overrides: list[str], run: RunDir, several: bool) -> Target:
    trained: TrainConfig = parse(run.read_config(), TrainConfig)
    model_config = _with_overrides(trained.model, config.model, overrides)
    if not (run.adapter / WEIGHTS_FILE).is_file():
        raise UserError(f"{run.path} has no adapter: its training is '{run.status()}'; continue it first.")
    tokenizer = load_tokenizer(model_config)
    prompt = read_json(run.prompt)
    if not isinstance(prompt.get("instruction"), str) or not isinstance(prompt.get("fingerprint"), str):
        raise UserError(f"{run.prompt} names no instruction and fingerprint: restore it, or train again.")
    instruction = config.instruction if _given(overrides, "instruction") else prompt["instruction"]
    renderer = PromptRenderer(tokenizer, instruction)
    if renderer.fingerprint != prompt["fingerprint"] and not config.allow_prompt_mismatch:
        raise UserError(
            f"{run.path} was trained under another prompt (template, instruction or end token) than this one: drop "
            "instruction=, use the tokenizer it was trained with, or say allow_prompt_mismatch=true."
        )
    backbone = load_backbone(model_config, resolve_device(config.hardware.device))
    model = load_adapter(run.adapter, backbone)
    folder = run.evaluation
    if config.output_dir is not None:
        folder = Path(config.output_dir) / run.path.name if several else Path(config.output_dir)
    weights = hashlib.sha256((run.adapter / WEIGHTS_FILE).read_bytes()).hexdigest()[:16]
    return Target(run.path.name, model, renderer, f"{weights} {model_config.quantization} {backbone.dtype}", folder)


def _with_overrides(recorded: ModelConfig, given: ModelConfig, overrides: list[str]) -> ModelConfig:
    """The run's model, with the single options that were given on the command line."""
    if _given(overrides, "model"):
        raise UserError("run= brings its own model: drop model=NAME (model.path=DIR may be given where it has moved).")
    names = [
        item.partition("=")[0].lstrip("+").removeprefix("model.")
        for item in overrides
        if item.lstrip("+").startswith("model.")
    ]
    # A run directory may be a stranger's: code from the hub runs only where this command line asks for it.
    recorded = replace(recorded, trust_remote_code=given.trust_remote_code)
    return replace(recorded, **{name: getattr(given, name) for name in names})


def _given(overrides: list[str], option: str) -> bool:
    return any(override.lstrip("+").startswith(f"{option}=") for override in overrides)


def _same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix samples that were made under different settings."""
    if path.is_file():
        before = read_json(path)
        changed = [
            f"{key}: {before.get(key)} -> {value}" for key, value in settings.items() if before.get(key) != value
        ]
        if changed:
            raise UserError(
                f"{path.parent} holds samples of other settings ({'; '.join(changed)}): give another "
                "output_dir, or delete that folder."
            )
    else:
        write_json(path, settings)
