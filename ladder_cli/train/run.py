"""One training run from config to adapter, with its run directory kept truthful at every moment."""

import contextlib
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import set_seed

from ladder_cli import __version__
from ladder_cli.config.choices import CacheMode, OnMisfit, WandbMode
from ladder_cli.config.compose import as_dict
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.passes import rows_after
from ladder_cli.data.prepare import PreparedData, Source, load_source, prepare_data
from ladder_cli.data.preview import marked_example, overlaps, print_preview
from ladder_cli.distributed import decided_by_main, join, main_first
from ladder_cli.errors import Interrupted, NotReachable
from ladder_cli.nn.objective import objective_for
from ladder_cli.nn.packing import check_packing
from ladder_cli.plan.measured import PeakMemory
from ladder_cli.plan.out_of_memory import out_of_memory_advised
from ladder_cli.plan.page import Plan
from ladder_cli.plan.preflight import Preflight, leaner_settings, preflight
from ladder_cli.plan.reading import Reading
from ladder_cli.ranks import is_main_process
from ladder_cli.run.claim import claimed
from ladder_cli.run.credentials import redacted
from ladder_cli.run.directory import BACKBONE, PROMPT, RunDir, read_json, write_json
from ladder_cli.run.identity import RunIdentity
from ladder_cli.train.bad_batch import BadBatch
from ladder_cli.train.checkpoints import Checkpoints
from ladder_cli.train.job import Job
from ladder_cli.train.learner import Learner
from ladder_cli.train.loop import Loop, Pace
from ladder_cli.train.monitor import MetricsLog, Monitor, ProgressDisplay, Throughput, WandbTracker
from ladder_cli.train.optimizer import make_optimizer, make_schedule
from ladder_cli.train.resume import DONE, finished_before, identify, local_weights, settings_of, starting_step
from ladder_cli.train.signals import StopOnSignal
from ladder_cli.trunk.base import Batch, TrainableModule, Trunk
from ladder_cli.trunk.compilation import compile_layers
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import backbone_shape, planned_device, planned_dtype, resolve_device
from ladder_cli.trunk.open import open_trunk, open_upper
from ladder_cli.trunk.parts import keep_differentiable

_RECORDED_PACKAGES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")


def plan_only(config: TrainConfig, run: RunDir, console: Console) -> dict[str, Any]:
    """Print the plan and write `plan.json`; no weight is read.

    Returns:
        What was written.

    Raises:
        UserError: if the directory holds another run, whose plan this is not.
    """
    if run.status() is not None:
        run.refuse_other(settings_of(config))
    data, missing = _data_if_reachable(config)
    job = Job.settle(config, run, planned_device(config.hardware.device))
    dtype = planned_dtype(config.model, job.device)
    with torch.device("meta"):
        trunk = LiveTrunk(backbone_shape(config.model, dtype))
        model = job.method.shape(trunk)
    reading = job.reading(data, local_weights(config))
    memory = preflight(
        config,
        job.device,
        data.longest if data is not None else None,
        reading.host_bytes,
        reading.absent,
        job.residency,
    )
    plan = job.plan(data, reading.over(trunk), model, dtype, memory, reading)
    plan.print(console)
    for line in job.method.picture(trunk):
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
    return record


def _data_if_reachable(config: TrainConfig) -> tuple[PreparedData | None, str]:
    """The data, or why a plan has to do without: tokenizer or rows lie on a hub that does not answer."""
    try:
        return prepare_data(config), ""
    except NotReachable as error:
        return None, str(error)


def run_training(config: TrainConfig, run: RunDir, console: Console) -> dict[str, Any]:
    """Train, or continue, or report what is already done.

    Returns:
        The values of `metrics.json`.

    Raises:
        UserError: for a mistake in the config or the data, a directory that holds another run or that another
            process is writing, or where memory or disk do not suffice.
        Interrupted: after a signal, with a checkpoint written.
        RunFailed: if the loss or gradient became infinite or not a number.
    """
    job = Job.settle(config, run, resolve_device(config.hardware.device))
    limits = out_of_memory_advised(lambda: leaner_settings(config, job.device, job.residency))
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
        join(job.device)
        step = decided_by_main(step)
        return _Training(job, console).run(source, step)


@dataclass(frozen=True)
class _Built:
    """A model that is ready to be trained.

    Attributes:
        record: of the run, for `run.json`.
    """

    model: TrainableModule
    plan: Plan
    identity: RunIdentity
    record: dict[str, Any]


class _Training:
    """The steps from a settled job to its adapter: prepare, build, fit, finish."""

    def __init__(self, job: Job, console: Console) -> None:
        self._job, self._console = job, console

    def run(self, source: Source | None, continued_at: int | None) -> dict[str, Any]:
        """Train.

        Args:
            source: of the data, where it has been loaded already.
            continued_at: the step of the checkpoint to continue from.
        """
        data, memory_plan, reading = self._prepare(source)
        # Seeded here, so that a side network's first weights depend on the seed and not on what was drawn before.
        set_seed(self._job.config.seed)
        self._started, self._memory = time.perf_counter(), PeakMemory(self._job.device)
        built = self._build(data, memory_plan, reading, continued_at)
        with StopOnSignal() as stop:
            self._stop, self._throughput = stop, Throughput()
            loop = self._fit(data, built, continued_at)
        return self._finish(data, built, loop)

    def _prepare(self, source: Source | None) -> tuple[PreparedData, Preflight, Reading]:
        """The rows, whether a step over them fits the memory, and how they are read."""
        config = self._job.config
        with main_first():
            data = prepare_data(config, source)
        _tell_fewer_rows(config, data, self._console)
        reading = self._job.reading(data, local_weights(config))
        memory_plan = preflight(
            config, self._job.device, data.longest, reading.host_bytes, reading.absent, self._job.residency
        )
        if config.preflight is OnMisfit.REFUSE:
            memory_plan.refuse()
        return data, memory_plan, reading

    def _build(self, data: PreparedData, memory_plan: Preflight, reading: Reading, continued_at: int | None) -> _Built:
        """The backbone with what is trained on it, told apart from other runs and announced."""
        job, config, console = self._job, self._job.config, self._console
        trunk: Trunk
        if reading.absent:
            kept = reading.layers - reading.absent
            trunk = open_upper(config.model, job.device, kept, job.trunk_kind, config.trunk)
        else:
            trunk = open_trunk(config.model, job.device, job.trunk_kind, config.trunk)
        backbone = trunk.whole()
        # 4-bit layers compute alike, and exactly as they are stored, wherever they are (docs/decisions/0019).
        keep_differentiable(backbone)
        with main_first():
            # Now, when a model of the hub is here, and as the commit that was loaded.
            weights = local_weights(config, getattr(backbone.config, "_commit_hash", None))
        identity = identify(config, data, weights)
        trunk.identity = identity.weights
        if continued_at is not None:
            job.run.refuse_other(identity)
        if reading.cache is not CacheMode.OFF and reading.store is None:
            reading = job.reading(data, identity.weights)  # of the hub, and here only now
        trunk = reading.over(trunk)
        collate = PaddingCollator(data.tokenizer.pad_token_id)
        sample = (Batch(**collate([row])) for row in data.train)  # type: ignore[arg-type]
        # The proof needs all layers. They were proven when the cache was filled, and are again in every evaluation.
        model = job.method.attach(trunk, sample, config.train.loss_chunk, proven=not reading.absent)
        plan = job.plan(data, trunk, model, backbone.dtype, memory_plan, reading)
        plan.print(console)
        console.print(
            "first example (counted tokens [bold green]marked[/]; without colours: between » and «)", markup=True
        )
        console.print(marked_example(data.train[0], data.tokenizer), soft_wrap=True)
        console.print()
        if config.data.packing:
            check_packing(model)
        if config.train.compile:
            compile_layers(model, job.device)
        return _Built(model, plan, identity, _record(job, identity))

    def _fit(self, data: PreparedData, built: _Built, continued_at: int | None) -> Loop:
        """The loop, when it has come to its end.

        Raises:
            Interrupted: after a signal, with a checkpoint written.
            RunFailed: if the loss or gradient became infinite or not a number.
        """
        job, run = self._job, self._job.run
        if is_main_process():
            run.write_config(as_dict(job.config))
        _write_status(run, built.record, status="running")
        with _status_of_failure(run, built.record):
            loop = self._loop(data, built)
            if continued_at is not None:
                loop.resume(continued_at)
            try:
                loop.run()
            finally:
                if built.plan.reading.store is not None:
                    built.plan.reading.store.flush()
        if self._stop.received is not None and loop.step < job.steps(len(data.train_rows)):
            _write_status(run, built.record, status="interrupted")
            raise Interrupted(f"saved at step {loop.step}; the same command continues from there.")
        return loop

    def _loop(self, data: PreparedData, built: _Built) -> Loop:
        job, train = self._job, self._job.config.train
        set_seed(job.config.seed)
        steps = job.steps(len(data.train_rows))
        optimizer = make_optimizer(built.model, job.optimizer, job.config.peak_learning_rate, train.weight_decay)
        learner = Learner(
            built.model,
            lambda folder: job.method.load_weights(built.model, folder),
            objective_for(job.objective, train.loss_chunk),
            optimizer,
            make_schedule(optimizer, train, steps),
            Checkpoints(job.run.checkpoints),
            BadBatch(job.run.bad_batch, data.ids),
            job.device,
            self._monitors(built.plan) if is_main_process() else (),
        )
        pace = Pace.of(train, steps)
        return Loop([learner], *job.batches(data), pace, job.device, self._stop, self._throughput)

    def _monitors(self, plan: Plan) -> list[Monitor]:
        job, tracking = self._job, self._job.config.tracking
        flops = plan.flops_per_token["actual"]
        monitors: list[Monitor] = [
            MetricsLog(job.run.metrics_log),
            ProgressDisplay(self._console, self._throughput, flops, self._memory),
        ]
        if tracking.wandb is WandbMode.OFF:
            return monitors
        return [WandbTracker(tracking, job.run.path.name, as_dict(job.config)), *monitors]

    def _finish(self, data: PreparedData, built: _Built, loop: Loop) -> dict[str, Any]:
        """The adapter and the metrics of the run, written.

        Returns:
            The values of `metrics.json`.

        Raises:
            Interrupted: after a signal at the last step.
        """
        run, plan, (learner,) = self._job.run, built.plan, loop.learners
        metrics = self._metrics(data, plan, loop)
        if is_main_process():
            with run.new_adapter() as folder:
                learner.save_adapter(folder)
                write_json(folder / PROMPT, data.renderer.as_dict())
                write_json(folder / BACKBONE, {"name": self._job.config.model.name, "weights": built.identity.weights})
            write_json(run.metrics, metrics)
            write_json(run.run, built.record | {"status": DONE, "finished": _now()})
        if self._stop.received is not None:
            # Too late for this run, but of a sweep the others have not begun.
            raise Interrupted("this run was at its last step and is done.")
        return metrics

    def _metrics(self, data: PreparedData, plan: Plan, loop: Loop) -> dict[str, Any]:
        (learner,), memory, predicted = loop.learners, self._memory, plan.memory.prediction
        speed = self._throughput.tokens_per_second
        rows_seen = rows_after(loop.step, len(data.train_rows), plan.effective_batch)
        return {
            "rows": {"train": len(data.train), "validation": len(data.validation)},
            "train_loss": learner.train_loss,
            "eval_loss": learner.best.loss,
            "best_step": learner.best.step,
            "trainable_parameters": plan.trainable_parameters,
            "backbone_parameters": plan.backbone_parameters,
            "rows_seen": rows_seen,
            "epochs": rows_seen / len(data.train_rows),
            "tokens_seen": loop.tokens_seen,
            "tokens_per_second": speed,
            "peak_memory_bytes": {
                "predicted": predicted.total,
                "predicted_parts": predicted.parts,
                "measured": memory.measured(),
                "reserved": memory.reserved(),
                "kind": memory.kind,
                "baseline": memory.baseline,
            },
            "flops_per_token": plan.flops_per_token,
            "flops_per_second": speed * plan.flops_per_token["actual"] if speed is not None else None,
            "wall_seconds": time.perf_counter() - self._started,
        }


@contextlib.contextmanager
def _status_of_failure(run: RunDir, record: dict[str, Any]) -> Iterator[None]:
    """Write down what ended a run before its time."""
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        # A full disk has no room for this either; `running` is then as true, and is continued as well.
        with contextlib.suppress(OSError):
            _write_status(run, record, status=status, error=redacted(f"{type(error).__name__}: {error}"))
        raise


def _write_status(run: RunDir, record: dict[str, Any], **status: str) -> None:
    if is_main_process():
        write_json(run.run, record | status)


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


def _record(job: Job, identity: RunIdentity) -> dict[str, Any]:
    """Provenance for `run.json`."""
    device = job.device
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
        "seed": job.config.seed,
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
