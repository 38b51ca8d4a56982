"""Training runs from config to adapter, and plans of runs, with each run directory kept truthful at every moment."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console

from ladder_cli.config.compose import as_dict
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.prepare import PreparedData
from ladder_cli.data.preview import overlaps, print_preview
from ladder_cli.errors import NotReachable
from ladder_cli.plan.preflight import preflight
from ladder_cli.run.directory import RunDir, write_json
from ladder_cli.train.group import Group
from ladder_cli.train.job import Job
from ladder_cli.train.member import Member
from ladder_cli.train.problems import prepared
from ladder_cli.train.resume import local_weights, settings_of
from ladder_cli.train.sharing import sharings, tell_fewer_rows
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import backbone_shape, planned_device, planned_dtype


def plan_only(config: TrainConfig, run: RunDir, console: Console) -> dict[str, Any]:
    """Print the plan and write `plan.json`; no weight is read.

    Returns:
        What was written.

    Raises:
        UserError: if the directory holds another run, whose plan this is not.
    """
    if run.status() is not None:
        run.refuse_other(settings_of(config))
    job = Job.settle(config, run, planned_device(config.hardware.device))
    data, missing = _data_if_reachable(config)
    if data is not None:
        job.check_patience(data.passed)
    dtype = planned_dtype(config.model, job.device)
    with torch.device("meta"):
        trunk = LiveTrunk(backbone_shape(config.model, dtype))
        model = job.method.shape(trunk, config.objective.refers)
    reading = job.reading(data, local_weights(config))
    longest = data.longest if data is not None else None
    memory = preflight(config, job.device, longest, reading.host_bytes, reading.absent, job.residency)
    plan = job.plan(data, reading.over(trunk), model, dtype, memory, reading)
    plan.print(console)
    for line in job.method.picture(trunk):
        console.print(f"  {line}", highlight=False)
    console.print()
    record = {"config": as_dict(config), **plan.as_dict()}
    if data is not None:
        tell_fewer_rows(config.data.train_samples, data, console)
        found, unreachable = overlaps(data, config.data_dir)
        print_preview(data, found, unreachable, console, config.objective.samples)
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
        return prepared(config), ""
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
    (member,) = run_together([(config, run)], console)
    return member.result()


def run_together(
    asked: Sequence[tuple[TrainConfig, RunDir]],
    console: Console,
    begins: Callable[[Member], None] = lambda member: None,
    ended: Callable[[Member], None] = lambda member: None,
) -> list[Member]:
    """Train runs that share backbone and rows by their options: side by side, as far as they can.

    Args:
        asked: config and directory of each.
        begins: is told of a run whose training begins.
        ended: is told of a run that is done or has failed, as soon as it is.

    Returns:
        All of them, over; one that failed holds what ended it.

    Raises:
        Interrupted: after a signal, with a checkpoint of each run that had begun; the others have not begun.
    """
    members = [Member(config, run, console, number, ended) for number, (config, run) in enumerate(asked)]
    try:
        for member in members:
            with member.alone():
                member.settle()
        for member in members:
            if not member.is_over:
                with member.alone():
                    member.enter()
        for sharing in sharings(members, console):
            for member in sharing.members:
                begins(member)
            Group(sharing, console).run()
    finally:
        for member in members:
            member.leave()
    return members
