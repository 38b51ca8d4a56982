"""Trackers: the lines of `metrics.jsonl` shown elsewhere, by each tracker's own client through accelerate.

`metrics.jsonl` stays the truth: it is whole after a resume, while what was sent cannot be taken back.
"""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, TrackioTracker, WandBTracker
from omegaconf import OmegaConf

from ladder_cli.config.choices import Tracker
from ladder_cli.config.options import flat
from ladder_cli.config.schema import TrackingConfig
from ladder_cli.errors import UserError
from ladder_cli.train.monitor import Line

# The module that each needs, and how it is installed.
_NEEDS = {
    Tracker.WANDB: ("wandb", "wandb"),
    Tracker.TRACKIO: ("trackio", "trackio"),
    Tracker.TENSORBOARD: ("tensorboard", "tensorboard"),
    Tracker.MLFLOW: ("mlflow", "mlflow"),
}
_STEP = "train/global_step"


def check_tracking(tracking: TrackingConfig) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        UserError: naming what to install.
    """
    if tracking.name is Tracker.NONE:
        return
    module, package = _NEEDS[tracking.name]
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"tracking={tracking.name}, but {package} is not installed: pip install {package}, or leave tracking out."
        )


class Tracked:
    """Hands every line to a tracker, validation figures as `eval/...`, the others as `train/...`.

    What the trackers read in the environment (`WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, ...) acts as ever.
    """

    def __init__(self, tracking: TrackingConfig, run: Path, config: dict[str, Any]) -> None:
        """`run`: its directory, whose name is shown; `config`: shown with it."""
        self._tracking, self._run, self._config = tracking, run, config
        self._step = 0

    def begin(self, step: int, steps: int, history: list[Line]) -> None:
        """Open a run."""
        PartialState()  # without which accelerate's own log refuses to speak
        self._step = step
        self._tracker = _OPENED[self._tracking.name](self._tracking, self._run, self._config, step)

    def stepped(self, step: int) -> None:
        """Nothing."""

    def log(self, line: Line) -> None:
        """Show it."""
        self._step = int(line["step"])
        self._send({_tracked(name): value for name, value in line.items() if name != "step"})

    def end(self, train_loss: float | None) -> None:
        """Close the run; after an error as one that failed, where the tracker knows such."""
        if train_loss is not None:
            self._send({"train/mean_loss": train_loss})
        _CLOSED[self._tracking.name](self._tracker, train_loss is None)

    def _send(self, values: Line) -> None:
        # Lines of training and of validation may have one step, and of two W&B keeps the first alone.
        counts = self._tracking.name is Tracker.WANDB
        self._tracker.log({**values, _STEP: self._step} if counts else values, step=None if counts else self._step)


def _wandb(tracking: TrackingConfig, run: Path, config: dict[str, Any], step: int) -> GeneralTracker:
    project = os.environ.get("WANDB_PROJECT", tracking.project)
    # A run of its own, whatever other runs this process has.
    tracker = WandBTracker(project, name=run.name, mode=tracking.wandb, config=config, reinit="create_new")
    tracker.start()
    tracker.tracker.define_metric(_STEP)
    tracker.tracker.define_metric("*", step_metric=_STEP, step_sync=True)
    return tracker


def _trackio(tracking: TrackingConfig, run: Path, config: dict[str, Any], step: int) -> GeneralTracker:
    resume = "allow" if step else "never"
    tracker = TrackioTracker(tracking.project, name=run.name, config=config, resume=resume, embed=False)
    tracker.start()
    return tracker


def _tensorboard(tracking: TrackingConfig, run: Path, config: dict[str, Any], step: int) -> GeneralTracker:
    # What was shown of steps that are taken again is left out from here on.
    tracker = TensorBoardTracker("tensorboard", str(run), **({"purge_step": step + 1} if step else {}))
    tracker.start()
    tracker.log({"config": f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(config))}```"}, step=step)
    return tracker


def _mlflow(tracking: TrackingConfig, run: Path, config: dict[str, Any], step: int) -> GeneralTracker:
    tracker = MLflowTracker(experiment_name=tracking.project, run_name=run.name)
    tracker.start()
    tracker.store_init_configuration(flat(config))
    return tracker


_OPENED: dict[Tracker, Callable[[TrackingConfig, Path, dict[str, Any], int], GeneralTracker]] = {
    Tracker.WANDB: _wandb,
    Tracker.TRACKIO: _trackio,
    Tracker.TENSORBOARD: _tensorboard,
    Tracker.MLFLOW: _mlflow,
}


def _close_wandb(tracker: GeneralTracker, failed: bool) -> None:
    tracker.tracker.finish(exit_code=int(failed))


def _close_mlflow(tracker: GeneralTracker, failed: bool) -> None:
    import mlflow

    mlflow.end_run("FAILED" if failed else "FINISHED")


def _close(tracker: GeneralTracker, failed: bool) -> None:
    tracker.finish()


_CLOSED: dict[Tracker, Callable[[GeneralTracker, bool], None]] = {
    Tracker.WANDB: _close_wandb,
    Tracker.TRACKIO: _close,
    Tracker.TENSORBOARD: _close,
    Tracker.MLFLOW: _close_mlflow,
}


def _tracked(name: str) -> str:
    kind, _, rest = name.partition("_")
    return f"eval/{rest}" if kind == "eval" else f"train/{name}"
