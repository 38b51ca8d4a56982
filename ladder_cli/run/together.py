"""Which runs of a sweep may share a pass over the backbone, as far as their options say. Imports no torch.

Everything counts but what belongs to the learning of one run. What is decided by content beyond the options (rows that
a seed draws, where a run goes on from, memory) is for `train.sharing`.
"""

import json
from collections.abc import Sequence

from ladder_cli.config.choices import Together, Tracker
from ladder_cli.config.compose import IN_PROCESS, SweepJob, as_dict
from ladder_cli.config.options import covers, flat
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.ranks import processes
from ladder_cli.run.sweep import Placed

# What runs on one pass may differ in; any other option, those of later versions included, keeps them apart.
_OWN = [
    *("method", "seed", "output_dir", "resume", "tracking", "objective"),
    *("train.learning_rate", "train.scheduler", "train.warmup_ratio", "train.optimizer", "train.weight_decay"),
    *("train.max_grad_norm", "train.loss_chunk", "train.max_steps", "train.epochs", "train.evaluations"),
    *("train.early_stopping", "train.logging_steps"),
]


def candidates(waiting: Sequence[Placed]) -> list[list[Placed]]:
    """The runs of a sweep in lists of those that may share a pass, in the order of their first ones."""
    alike: dict[str, list[Placed]] = {}
    for placed in waiting:
        alike.setdefault(_shared(placed), []).append(placed)
    return list(alike.values())


def _shared(placed: Placed) -> str:
    config: TrainConfig = placed.config
    alone = (
        config.train.together is Together.FALSE
        or not config.method.reads_taps
        or config.dry_run
        or config.cache is not None
        or config.prepare
        # MLflow's client has one run at a time in a process.
        or config.tracking.name is Tracker.MLFLOW
        # Its results are those of other variants of its code, the more runs there are.
        or config.train.compile
        or config.hardware.shard_backbone
        or processes() > 1
        # Each samples rows of its own.
        or config.objective.samples
    )
    if alone:
        return f"run {placed.outcome.number}"
    values = {key: value for key, value in flat(as_dict(config)).items() if not covers(_OWN, key)}
    order = None if config.train.together is Together.TRUE else config.seed
    return json.dumps([values, order], sort_keys=True)


def refuse_together(config: TrainConfig, given: Sequence[str], job: SweepJob | None) -> None:
    """Refuse `train.together=true` where there is nothing that a run could go together with.

    Args:
        given: as `compose.given_options` gives them.
        job: of the sweep that the run belongs to.

    Raises:
        UserError: naming what would train runs together.
    """
    if config.train.together is not Together.TRUE or "train.together" not in given:
        return
    if job is None:
        raise UserError(
            "train.together=true is given, but nothing reads it: it is for the runs of a sweep (-m). Leave it out."
        )
    if job.launcher != IN_PROCESS:
        raise UserError(
            f"train.together=true trains the runs of a sweep side by side in one process, but "
            f"hydra/launcher={job.launcher} gives each run a process of its own: leave one of the two out."
        )
    if processes() > 1:
        raise UserError(
            f"train.together=true trains the runs of a sweep side by side in one process, and this is one of "
            f"{processes()}: start it without the launcher, or leave it out."
        )
