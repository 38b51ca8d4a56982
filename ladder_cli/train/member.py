"""One run among those that are trained side by side: its directory, which says at every moment what became of it.

A run that is alone is a group of one: there is no other way through here.
"""

import contextlib
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import set_seed

from ladder_cli import __version__
from ladder_cli.config.choices import Tracker
from ladder_cli.config.compose import as_dict
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.passes import rows_after
from ladder_cli.data.prepare import PreparedData, Source
from ladder_cli.distributed import decided_by_main, join
from ladder_cli.errors import Interrupted
from ladder_cli.nn.objective import objective_for
from ladder_cli.nn.packing import check_packing
from ladder_cli.plan.out_of_memory import free_memory, out_of_memory_advised
from ladder_cli.plan.page import Plan
from ladder_cli.plan.preflight import Preflight, leaner_settings
from ladder_cli.plan.reading import Reading
from ladder_cli.ranks import is_main_process
from ladder_cli.run.claim import claimed
from ladder_cli.run.credentials import redacted
from ladder_cli.run.directory import BACKBONE, ORDER_OF_SEED, PROMPT, RunDir, read_json, write_json
from ladder_cli.run.identity import RunIdentity
from ladder_cli.train.bad_batch import BadBatch
from ladder_cli.train.checkpoints import Checkpoints
from ladder_cli.train.job import Job
from ladder_cli.train.learner import Learner, Pace
from ladder_cli.train.loop import Loop
from ladder_cli.train.monitor import Measures, MetricsLog, Monitor, ProgressDisplay
from ladder_cli.train.optimizer import make_optimizer, make_schedule
from ladder_cli.train.problems import source_of
from ladder_cli.train.random_states import RandomStream
from ladder_cli.train.resume import DONE, finished_before, identify, local_weights, settings_of, starting_step
from ladder_cli.train.rollouts import TOLD
from ladder_cli.train.trackers import Tracked
from ladder_cli.trunk.base import Batch, TrainableModule, Trunk
from ladder_cli.trunk.compilation import compile_layers
from ladder_cli.trunk.loading import resolve_device

_TOGETHER = "together"
_RECORDED_PACKAGES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")


class Member:
    """A run, from what its directory holds to its adapter.

    Attributes:
        config, run: what is asked for.
        number: of the run among those that were asked for.
        job: what is decided about it, once it is settled.
        source: of its data, where it has been loaded already.
        continued_at: the step of the checkpoint to continue from.
        recorded_order: the seed whose order of rows its directory says it had.
        metrics: the values of `metrics.json`, once it is done.
        failure: what ended it before.
    """

    job: Job

    def __init__(
        self,
        config: TrainConfig,
        run: RunDir,
        console: Console,
        number: int = 0,
        told: Callable[["Member"], None] = lambda member: None,
    ) -> None:
        """`told`: is told when the run is over, done or failed."""
        self.config, self.run, self.number = config, run, number
        self.source: Source | None = None
        self.continued_at: int | None = None
        self.recorded_order: int | None = None
        self.metrics: dict[str, Any] | None = None
        self.failure: Exception | None = None
        self._console, self._told = console, told
        self._seen: str | None = None
        self._record: dict[str, Any] = {}
        self._claims = contextlib.ExitStack()
        self._shows_status = False

    @property
    def is_over(self) -> bool:
        """Whether it is done or has failed."""
        return self.metrics is not None or self.failure is not None

    def result(self) -> dict[str, Any]:
        """The values of `metrics.json`.

        Raises:
            Whatever ended it before it was done.
        """
        if self.failure is not None:
            raise self.failure
        assert self.metrics is not None
        return self.metrics

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """What goes wrong within ends this run and no other; where memory ran out, it is told as the setting to
        lower.
        """
        try:
            with out_of_memory_advised(lambda: leaner_settings(self.config, self.job.device, self.job.residency)):
                yield
        except Interrupted:
            raise
        except Exception as failure:
            self.failure = failure
            # What it holds goes with the frames that hold it: others go on.
            for told in (failure, failure.__cause__):
                traceback.clear_frames(told.__traceback__ if told is not None else None)
            if self._shows_status:
                self._say_what_ended_it("failed", failure)
            self._let_go()
            free_memory()

    def settle(self) -> None:
        """Decide about the run, and see whether it is done already.

        Raises:
            UserError: for batches that do not add up, or a directory that holds another run.
        """
        self.job = Job.settle(self.config, self.run, resolve_device(self.config.hardware.device))
        self._seen = self.run.status() if self.config.resume else None
        if self._seen is None:
            return
        # What costs nothing first.
        self.run.refuse_other(settings_of(self.config))
        self.recorded_order = self.run.order_of_seed()
        self.source = source_of(self.config)
        if finished_before(identify(self.config, self.source, local_weights(self.config)), self.run, self._console):
            self.metrics = read_json(self.run.metrics)
            self._let_go()

    def enter(self) -> None:
        """Claim the directory, and find the checkpoint to continue from.

        Raises:
            UserError: if another process writes there, or what is there cannot be continued.
        """
        step = None
        if is_main_process():
            self._claims.enter_context(claimed(self.run.path))
            if not self.config.resume and (aside := self.run.set_aside()) is not None:
                self._console.print(f"set the earlier run aside as {aside}", soft_wrap=True)
                self._claims.enter_context(claimed(self.run.path))
            step = starting_step(self.run, self._seen, self._console)
        join(self.job.device)
        self.continued_at = decided_by_main(step)

    def leave(self) -> None:
        """Give the directory free."""
        self._claims.close()

    def build(self, trunk: Trunk, data: PreparedData, memory: Preflight, reading: Reading, order_of_seed: int) -> None:
        """Attach what is trained to the backbone.

        Args:
            trunk: belongs to it from now on.
            data: its rows.
            memory: what a step takes.
            reading: how the backbone is read.
            order_of_seed: the seed that orders the rows.

        Raises:
            UserError: if its directory holds another run, or method and architecture do not go together.
        """
        job, config = self.job, self.config
        self.identity = identify(config, data, trunk.identity)
        if self.continued_at is not None:
            self.run.refuse_other(self.identity)
        collate = PaddingCollator(data.tokenizer.pad_token_id)
        sample = (Batch(**collate([row])) for row in data.train)  # type: ignore[arg-type]
        # Seeded here, so that first weights depend on the seed and not on what was drawn before.
        set_seed(config.seed)
        # The proof needs all layers. They were proven when the cache was filled, and are again in every evaluation.
        proven = not reading.absent
        self.model: TrainableModule = job.method.attach(
            trunk, sample, config.train.loss_chunk, proven, config.objective.refers
        )
        self.plan: Plan = job.plan(data, trunk, self.model, trunk.whole().dtype, memory, reading)
        if config.data.packing:
            check_packing(self.model)
        if config.train.compile:
            compile_layers(self.model, job.device)
        self._record = _record(job, self.identity) | {ORDER_OF_SEED: order_of_seed}

    def start(self, data: PreparedData, measures: Measures, names: Sequence[str], name: str) -> Learner:
        """Say that it runs, and make its learner.

        Args:
            names: of the runs beside it, itself included; empty where it is alone.
            name: by which they are told apart.
        """
        job, run, train, objective = self.job, self.run, self.config.train, self.config.objective
        if names:
            self._record[_TOGETHER] = list(names)
        if is_main_process():
            run.write_config(as_dict(self.config))
        self._write_status("running")
        self._shows_status = True
        steps = job.steps(data.passed)
        optimizer = make_optimizer(self.model, job.optimizer, self.config.peak_learning_rate, train.weight_decay)
        model, method = self.model, job.method
        self.learner = Learner(
            model,
            lambda folder: method.load_weights(model, folder),
            objective_for(objective, train.loss_chunk),
            optimizer,
            make_schedule(optimizer, train, steps),
            Pace.of(train, steps),
            Checkpoints(run.checkpoints),
            BadBatch(run.bad_batch, lambda row: data.ids(row // objective.completions_each)),
            job.device,
            RandomStream(self.config.seed),
            self._monitors(measures, name) if is_main_process() else (),
            TOLD if objective.samples else (),
            objective.iterations if objective.samples else 1,
        )
        return self.learner

    def _monitors(self, measures: Measures, name: str) -> list[Monitor]:
        flops, tracking = self.plan.flops_per_token["actual"], self.config.tracking
        monitors: list[Monitor] = [
            MetricsLog(self.run.metrics_log),
            ProgressDisplay(measures, flops, name),
        ]
        if tracking.name is Tracker.NONE:
            return monitors
        return [Tracked(tracking, self.run.path, as_dict(self.config)), *monitors]

    def finish(self, data: PreparedData, loop: Loop, measures: Measures) -> None:
        """Write adapter and metrics."""
        run, learner = self.run, self.learner
        metrics = self._metrics(data, loop, measures)
        if is_main_process():
            with run.new_adapter() as folder:
                learner.save_adapter(folder)
                write_json(folder / PROMPT, data.renderer.as_dict())
                write_json(folder / BACKBONE, {"name": self.config.model.name, "weights": self.identity.weights})
            write_json(run.metrics, metrics)
            write_json(run.run, self._record | {"status": DONE, "finished": _now()})
        self.metrics = metrics
        self._let_go()

    def stop(self, interrupted: Interrupted) -> None:
        """Say that a signal came, and that the same command continues from its checkpoint."""
        self._write_status("interrupted")
        self.failure = interrupted
        self._let_go()

    def cut_off(self, error: BaseException) -> None:
        """Say that it was ended at once, by a second signal for instance."""
        if self._shows_status:
            self._say_what_ended_it("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error)

    def _metrics(self, data: PreparedData, loop: Loop, measures: Measures) -> dict[str, Any]:
        plan, memory, learner, predicted = self.plan, measures.memory, self.learner, self.plan.memory.prediction
        speed = measures.throughput.tokens_per_second
        # Of what is rewarded the highest is the best, which is kept as the lowest of its negatives.
        rewarded = self.config.objective.samples
        best = {"eval_reward": -learner.best.loss} if rewarded else {"eval_loss": learner.best.loss}
        rows_seen = rows_after(loop.step, data.passed, plan.effective_batch)
        return {
            "rows": {"train": data.train.examples, "validation": data.validation.examples},
            "train_loss": learner.train_loss,
            **best,
            "best_step": learner.best.step,
            "trainable_parameters": plan.trainable_parameters,
            "backbone_parameters": plan.backbone_parameters,
            "rows_seen": rows_seen,
            "epochs": rows_seen / data.passed,
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
            "wall_seconds": time.perf_counter() - measures.started,
        }

    def _let_go(self) -> None:
        """Over: free directory and memory, and tell."""
        self.leave()
        for held in ("model", "learner"):
            vars(self).pop(held, None)
        self._told(self)

    def _say_what_ended_it(self, status: str, error: BaseException) -> None:
        # A full disk has no room for this either; `running` is then as true, and is continued as well.
        with contextlib.suppress(OSError):
            self._write_status(status, error=redacted(f"{type(error).__name__}: {error}"))

    def _write_status(self, status: str, **more: str) -> None:
        if is_main_process():
            write_json(self.run.run, self._record | {"status": status, **more})


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
