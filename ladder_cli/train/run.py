"""One training run from config to adapter, with its run directory kept truthful at every moment."""

import contextlib
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
from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

from ladder_cli import __version__
from ladder_cli.cli.main import as_dict
from ladder_cli.config.ranks import is_main_process, processes
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.passes import rows_after, steps_for
from ladder_cli.data.prepare import PreparedData, Source, load_source, prepare_data
from ladder_cli.data.preview import marked_example, overlaps, print_preview
from ladder_cli.distributed import decided_by_main, join, main_first
from ladder_cli.errors import Interrupted, NotReachable
from ladder_cli.methods.method import Method, method_for
from ladder_cli.methods.proof import prove
from ladder_cli.nn.packing import check_packing
from ladder_cli.plan.flops import flops_per_token
from ladder_cli.plan.measured import PeakMemory
from ladder_cli.plan.out_of_memory import out_of_memory_advised
from ladder_cli.plan.page import Plan
from ladder_cli.plan.preflight import Preflight, leaner_settings, preflight
from ladder_cli.run.claim import claimed
from ladder_cli.run.credentials import redacted
from ladder_cli.run.directory import BACKBONE, PROMPT, RunDir, read_json, write_json
from ladder_cli.run.identity import RunIdentity
from ladder_cli.train.bad_batch import BadBatch
from ladder_cli.train.monitor import MetricsLog, ProgressDisplay, StopOnSignal, Throughput
from ladder_cli.train.resume import DONE, finished_before, identify, local_weights, settings_of, starting_step
from ladder_cli.train.trainer import AdapterTrainer, training_arguments
from ladder_cli.trunk.compilation import compile_layers
from ladder_cli.trunk.loading import (
    backbone_shape,
    load_backbone,
    parameter_count,
    planned_device,
    planned_dtype,
    resolve_device,
)
from ladder_cli.trunk.sharding import shard_layers

_RECORDED_PACKAGES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")


def plan_only(config: TrainConfig, run: RunDir, console: Console) -> None:
    """Print the plan and write `plan.json`; no weight is read."""
    data, missing = _data_if_reachable(config)
    device = planned_device(config.hardware.device)
    with torch.device("meta"):
        backbone = backbone_shape(config.model, planned_dtype(config.model, device))
        backbone_parameters = parameter_count(backbone)
        method = method_for(config.method)
        model = method.attach(backbone.requires_grad_(False), config.model)
    memory = preflight(config, device, data.longest if data is not None else None)
    dtype = str(planned_dtype(config.model, device))
    plan = _plan(
        config, data, method, model, backbone.config.num_hidden_layers, backbone_parameters, device, dtype, memory
    )
    plan.print(console)
    for line in method.picture(backbone):
        console.print(f"  {line}", highlight=False)
    console.print()
    record = {"config": as_dict(config), **plan.as_dict()}
    if data is not None:
        _tell_fewer_rows(config, data, console)
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
        UserError: for a mistake in the config or the data, a directory that holds another run or that another
            process is writing, or where memory or disk do not suffice.
        Interrupted: after a signal, with a checkpoint written.
        RunFailed: if the loss or gradient became infinite or not a number.
    """
    device = resolve_device(config.hardware.device)
    limits = out_of_memory_advised(lambda: leaner_settings(config, device))
    seen, source = run.status() if config.resume else None, None
    if seen is not None:
        # What costs nothing first.
        run.refuse_other(settings_of(config))
        source = load_source(config)
        if finished_before(identify(config, source, local_weights(config)), run, console):
            return read_json(run.metrics)
    with contextlib.ExitStack() as stack:
        stack.enter_context(limits)
        step = None
        if is_main_process():
            stack.enter_context(claimed(run.path))
            if not config.resume and (aside := run.set_aside()) is not None:
                console.print(f"set the earlier run aside as {aside}", soft_wrap=True)
                stack.enter_context(claimed(run.path))
            step = starting_step(run, seen, console)
        join(device)
        step = decided_by_main(step)
        return _train(config, run, console, device, step, source)


def _train(
    config: TrainConfig,
    run: RunDir,
    console: Console,
    device: torch.device,
    continued_at: int | None,
    source: Source | None,
) -> dict[str, Any]:
    with main_first():
        data = prepare_data(config, source)
    _tell_fewer_rows(config, data, console)
    fit = preflight(config, device, data.longest)
    if config.preflight == "refuse":
        fit.refuse()
    # Seeded here, so that a side network's first weights depend on the seed and not on what was drawn before.
    set_seed(config.seed)
    started = time.perf_counter()
    memory = PeakMemory(device)
    sharded = config.hardware.shard_backbone
    backbone = load_backbone(config.model, device, on_host=sharded)
    with main_first():
        # Now, when a model of the hub is here, and as the commit that was loaded.
        weights = local_weights(config, getattr(backbone.config, "_commit_hash", None))
    identity = identify(config, data, weights)
    if continued_at is not None:
        run.refuse_other(identity)
    backbone_parameters = parameter_count(backbone)
    method = method_for(config.method)
    collate = PaddingCollator(data.tokenizer.pad_token_id)
    sample = (collate([row]) for row in data.train)
    model = method.attach(backbone, config.model, config.train.loss_chunk, sample, proven=not sharded)
    if sharded:
        shard_layers(model, backbone, device)
        prove(model, untrained=True)
    plan = _plan(
        config,
        data,
        method,
        model,
        backbone.config.num_hidden_layers,
        backbone_parameters,
        device,
        str(backbone.dtype),
        fit,
    )
    steps = plan.steps
    assert steps is not None  # the data is there
    plan.print(console)
    console.print("first example (counted tokens [bold green]marked[/]; without colours: between » and «)", markup=True)
    console.print(marked_example(data.train[0], data.tokenizer), soft_wrap=True)
    console.print()
    if config.data.packing:
        check_packing(model)
    if config.train.compile:
        compile_layers(model, device)

    record = _record(config, device, identity)
    if is_main_process():
        run.write_config(as_dict(config))
        write_json(run.run, record | {"status": "running"})
    throughput, stop = Throughput(), StopOnSignal()
    os.environ.setdefault("WANDB_PROJECT", config.tracking.project)
    if config.tracking.wandb != "off":
        os.environ["WANDB_MODE"] = config.tracking.wandb
    trainer = AdapterTrainer(
        method,
        model,
        BadBatch(run.bad_batch, data.ids),
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
            ProgressDisplay(console, throughput, plan.flops_per_token["actual"], memory),
            stop,
            *([EarlyStoppingCallback(config.train.early_stopping)] if config.train.early_stopping else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        with stop:
            train_loss = trainer.train_from(continued_at)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        # A full disk has no room for this either; `running` is then as true, and is continued as well.
        with contextlib.suppress(OSError):
            _write_status(run, record, status=status, error=redacted(f"{type(error).__name__}: {error}"))
        raise
    if stop.received is not None and trainer.state.global_step < steps:
        _write_status(run, record, status="interrupted")
        raise Interrupted(f"saved at step {trainer.state.global_step}; the same command continues from there.")

    speed = throughput.tokens_per_second
    rows_seen = rows_after(trainer.state.global_step, len(data.train_rows), plan.effective_batch)
    figures = {
        "rows": {"train": len(data.train), "validation": len(data.validation)},
        "train_loss": train_loss,
        "eval_loss": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "trainable_parameters": plan.trainable_parameters,
        "backbone_parameters": plan.backbone_parameters,
        "rows_seen": rows_seen,
        "epochs": rows_seen / len(data.train_rows),
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
    if is_main_process():
        with run.new_adapter() as folder:
            trainer.save_model(str(folder))
            write_json(folder / PROMPT, data.renderer.as_dict())
            write_json(folder / BACKBONE, {"name": config.model.name, "weights": identity.weights})
        write_json(run.metrics, figures)
        write_json(run.run, record | {"status": DONE, "finished": _now()})
    if stop.received is not None:
        # Too late for this run, but of a sweep the others have not begun.
        raise Interrupted("this run was at its last step and is done.")
    return figures


def _write_status(run: RunDir, record: dict[str, Any], **status: str) -> None:
    if is_main_process():
        write_json(run.run, record | status)


def _plan(
    config: TrainConfig,
    data: PreparedData | None,
    method: Method,
    model: nn.Module,
    layers: int,
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
        data_name=config.data.name,
        data=data,
        steps=steps_for(len(data.train_rows), effective_batch, config.train.epochs, config.train.max_steps)
        if data is not None
        else config.train.max_steps,
        effective_batch=effective_batch,
        micro_batch=config.train.micro_batch_size,
        accumulation=accumulation,
        learning_rate=config.peak_learning_rate,
        flops_per_token=flops_per_token(method.training_flops_per_parameter(layers), backbone_parameters, trainable),
        memory=memory,
    )


def _tell_fewer_rows(config: TrainConfig, data: PreparedData, console: Console) -> None:
    """Say it where there are fewer training rows than were asked for; what is recorded are those that there are."""
    asked, there = config.data.train_samples, len(data.train)
    if asked is not None and there < asked:
        console.print(
            f"warning: data.train_samples={asked} asks for more training rows than there are: it trains on {there:,} "
            f"({len(data.splits.train) - there:,} more are too long, {len(data.validation):,} are held out)",
            soft_wrap=True,
            highlight=False,
        )


def _record(config: TrainConfig, device: torch.device, identity: RunIdentity) -> dict[str, Any]:
    """Provenance for `run.json`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "ladder-side-tuning": __version__,
            **{name: version(name) for name in _RECORDED_PACKAGES},
        },
        "device": {"type": device.type, "name": name},
        "identity": identity.content_as_dict(),
        "data_fingerprint": identity.rows,
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
