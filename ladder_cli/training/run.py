"""One training run from config to adapter, with its run directory kept truthful at every moment."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, PrinterCallback, set_seed

from ladder_cli.analysis.flops import flops_per_token
from ladder_cli.cli import as_dict
from ladder_cli.config import TrainConfig, processes
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.prepare import PreparedData, prepare_data
from ladder_cli.data.preview import marked_example, overlaps, print_preview
from ladder_cli.errors import Interrupted, NotReachable, UserError
from ladder_cli.models.backbone import (
    architecture,
    load_backbone,
    parameter_count,
    planned_device,
    planned_dtype,
    resolve_device,
)
from ladder_cli.models.method import Method, method_for
from ladder_cli.models.packing import check_packing
from ladder_cli.run_dir import RunDir, read_json, write_json
from ladder_cli.training.callbacks import MetricsLog, ProgressDisplay, StopOnSignal, Throughput
from ladder_cli.training.memory import PeakMemory
from ladder_cli.training.plan import Plan, steps_for
from ladder_cli.training.preflight import Preflight, preflight
from ladder_cli.training.trainer import AdapterTrainer, training_arguments

_RECORDED_PACKAGES = ("ladder-cli", "torch", "transformers", "accelerate", "peft", "bitsandbytes")


def plan_only(config: TrainConfig, run: RunDir, console: Console) -> None:
    """Print the plan and write `plan.json`; no weight is read."""
    data, missing = _data_if_reachable(config)
    device = planned_device(config.hardware.device)
    with torch.device("meta"):
        backbone = AutoModelForCausalLM.from_config(architecture(config.model))
        backbone_parameters = parameter_count(backbone)
        method = method_for(config.method)
        model = method.attach(backbone.requires_grad_(False), config.model)
    memory = preflight(config, device, data.longest if data is not None else None)
    dtype = str(planned_dtype(config.model, device))
    plan = _plan(config, data, method, model, backbone_parameters, device, dtype, memory)
    plan.print(console)
    for line in method.picture(backbone):
        console.print(f"  {line}", highlight=False)
    console.print()
    record = {"config": as_dict(config), **plan.as_dict()}
    if data is not None:
        found, unreachable = overlaps(data, config.data_dir)
        print_preview(data, found, unreachable, console)
        record["overlap"] = {"benchmarks": found, "not_checked": unreachable, "removed": data.decontaminated}
        record["data_fingerprint"] = data.fingerprint
    else:
        console.print(f"planned without data: {missing}", soft_wrap=True, highlight=False, markup=False)
    write_json(run.plan, record)
    console.print(f"dry run: nothing was trained; the plan is in {run.plan}", soft_wrap=True)


def _data_if_reachable(config: TrainConfig) -> tuple[PreparedData | None, str]:
    """The data, or why a plan has to do without: tokenizer or rows lie on a hub that does not answer."""
    try:
        return prepare_data(config), ""
    except NotReachable as error:
        return None, str(error)


def run_training(config: TrainConfig, run: RunDir, console: Console) -> dict[str, Any]:
    """Train, or continue, or report what is already done.

    Returns:
        The figures of `metrics.json`.

    Raises:
        UserError: for a mistake in the config or the data, or a directory that holds another run.
        Interrupted: after a signal, with a checkpoint written.
        RunFailed: if the loss became infinite or not a number.
    """
    checkpoint = _open(config, run, console)
    if run.status() == "done":
        return read_json(run.metrics)
    data = prepare_data(config)
    if checkpoint is not None and read_json(run.run).get("data_fingerprint") != data.fingerprint:
        raise UserError(
            f"{run.path} was trained on other rows than data={config.data.name} has now: restore them to continue, or "
            "start over with resume=false."
        )
    device = resolve_device(config.hardware.device)
    fit = preflight(config, device, data.longest)
    if config.preflight == "refuse":
        fit.refuse()
    # Seeded here, so that a side network's first weights depend on the seed and not on what was drawn before.
    set_seed(config.seed)
    started = time.perf_counter()
    memory = PeakMemory(device)
    backbone = load_backbone(config.model, device)
    backbone_parameters = parameter_count(backbone)
    method = method_for(config.method)
    collate = PaddingCollator(data.tokenizer.pad_token_id)
    sample = (collate([row]) for row in data.train)
    model = method.attach(backbone, config.model, config.train.loss_chunk, sample)
    plan = _plan(config, data, method, model, backbone_parameters, device, str(backbone.dtype), fit)
    steps = plan.steps
    assert steps is not None  # the data is there
    plan.print(console)
    console.print("first example (counted tokens [bold green]marked[/]; without colours: between » and «)")
    console.print(marked_example(data.train[0], data.tokenizer), soft_wrap=True)
    console.print()
    if config.data.packing:
        check_packing(model)

    run.path.mkdir(parents=True, exist_ok=True)
    run.write_config(as_dict(config))
    record = _record(config, device, data.fingerprint)
    write_json(run.run, record | {"status": "running"})
    throughput, stop = Throughput(), StopOnSignal()
    os.environ.setdefault("WANDB_PROJECT", config.tracking.project)
    if config.tracking.wandb != "off":
        os.environ["WANDB_MODE"] = config.tracking.wandb
    trainer = AdapterTrainer(
        method,
        model,
        args=training_arguments(
            config.train,
            config.hardware,
            config.tracking,
            learning_rate=config.peak_learning_rate,
            accumulation=plan.accumulation,
            steps=steps,
            seed=config.seed,
            device=device,
            checkpoints=run.checkpoints,
            run_name=run.path.name,
        ),
        train_dataset=data.train_rows,
        eval_dataset=data.validation,
        data_collator=collate,
        callbacks=[
            throughput,
            MetricsLog(run.metrics_log),
            ProgressDisplay(console, throughput),
            stop,
            *([EarlyStoppingCallback(config.train.early_stopping)] if config.train.early_stopping else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        with stop:
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        write_json(run.run, record | {"status": status, "error": f"{type(error).__name__}: {error}"})
        raise
    if stop.received is not None and trainer.state.global_step < steps:
        write_json(run.run, record | {"status": "interrupted"})
        raise Interrupted(f"saved at step {trainer.state.global_step}; the same command continues from there.")

    speed = throughput.tokens_per_second
    figures = {
        "train_loss": result.training_loss,
        "eval_loss": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "trainable_parameters": plan.trainable_parameters,
        "backbone_parameters": plan.backbone_parameters,
        "tokens_seen": int(trainer.state.num_input_tokens_seen),
        "tokens_per_second": speed,
        "peak_memory_bytes": {
            "predicted": fit.prediction.total,
            "predicted_parts": fit.prediction.parts,
            "measured": memory.measured(),
            "reserved": memory.reserved(),
            "kind": memory.kind,
            "baseline": memory.baseline,
        },
        "flops_per_token": plan.flops_per_token,
        "flops_per_second": speed * plan.flops_per_token["actual"] if speed is not None else None,
        "wall_seconds": time.perf_counter() - started,
    }
    trainer.save_model(str(run.adapter))
    write_json(run.prompt, {"instruction": config.data.instruction, "fingerprint": data.renderer.fingerprint})
    write_json(run.metrics, figures)
    write_json(run.run, record | {"status": "done", "finished": _now()})
    return figures


def _open(config: TrainConfig, run: RunDir, console: Console) -> Path | None:
    """Decide what an existing directory means; returns the checkpoint to continue from."""
    if not config.resume:
        aside = run.set_aside()
        if aside is not None:
            console.print(f"set the earlier run aside as {aside}", soft_wrap=True)
        return None
    status = run.status()
    if status is None:
        return None
    run.refuse_other_config(as_dict(config))
    if status == "done":
        console.print(f"{run.path} is already done (resume=false trains it again)", soft_wrap=True)
        return None
    checkpoint = run.last_checkpoint()
    where = f"from {checkpoint.name}" if checkpoint else "from the start: it left no checkpoint"
    console.print(f"continuing {run.path} ({status}) {where}", soft_wrap=True)
    return checkpoint


def _plan(
    config: TrainConfig,
    data: PreparedData | None,
    method: Method,
    model: nn.Module,
    backbone_parameters: int,
    device: torch.device,
    dtype: str,
    memory: Preflight,
) -> Plan:
    accumulation = config.train.accumulation(processes())
    effective_batch = config.train.micro_batch_size * accumulation * processes()
    trainable = parameter_count(model, trained=True)
    return Plan(
        method=config.method.name,
        model=config.model.name,
        quantization=config.model.quantization,
        device=str(device),
        dtype=dtype.removeprefix("torch."),
        backbone_parameters=backbone_parameters,
        trainable_parameters=trainable,
        data=data,
        steps=steps_for(len(data.train_rows), effective_batch, config.train.epochs, config.train.max_steps)
        if data is not None
        else config.train.max_steps,
        effective_batch=effective_batch,
        micro_batch=config.train.micro_batch_size,
        accumulation=accumulation,
        learning_rate=config.peak_learning_rate,
        flops_per_token=flops_per_token(method.training_flops_per_parameter(), backbone_parameters, trainable),
        memory=memory,
    )


def _record(config: TrainConfig, device: torch.device, fingerprint: str) -> dict[str, Any]:
    """Provenance for `run.json`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _RECORDED_PACKAGES}},
        "device": {"type": device.type, "name": name},
        "data_fingerprint": fingerprint,
        "seed": config.seed,
        "started": _now(),
    }


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
