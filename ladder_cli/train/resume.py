"""What an existing run directory means for a run that is about to start in it."""

from rich.console import Console

from ladder_cli.config.compose import as_dict
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.prepare import PreparedData, Source
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir
from ladder_cli.run.identity import RunIdentity
from ladder_cli.train.checkpoints import Checkpoints
from ladder_cli.train.rewards import code_of
from ladder_cli.trunk.weights_identity import local_weights_identity

DONE = "done"


def settings_of(config: TrainConfig) -> RunIdentity:
    """The identity of a run as far as its config gives it, which reads no file."""
    return RunIdentity.of_config(as_dict(config))


def identify(config: TrainConfig, data: Source | PreparedData, weights: str | None) -> RunIdentity:
    """The identity of a run.

    Args:
        weights: of its backbone, by `trunk.weights_identity`; None where they are not on this machine.
    """
    content = {
        "weights": weights,
        "rows": data.splits.fingerprint,
        "rows_follow_seed": data.splits.drawn,
        "tokenizer": data.renderer.tokenizer_fingerprint,
        "prompt": data.renderer.fingerprint,
        "reward": code_of(config.objective) if config.objective.samples else None,
    }
    return RunIdentity.of_config(as_dict(config), content)


def local_weights(config: TrainConfig, revision: str | None = None) -> str | None:
    """The identity of the backbone's weights if they are on this machine, else None.

    Args:
        revision: the commit that was loaded, where that is known better than from the config.
    """
    return local_weights_identity(config.model.location, revision or config.model.revision)


def finished_before(now: RunIdentity, run: RunDir, console: Console) -> bool:
    """Whether the same run stands there complete, and is to be left alone.

    Raises:
        UserError: if another run stands there.
    """
    run.refuse_other(now)
    if run.status() != DONE:
        return False
    before = run.identity()
    console.print(f"{run.path} is already done (resume=false trains it again)", soft_wrap=True)
    if before.weights is None:
        console.print(
            "  it was written before runs recorded their weights: rows and settings alone were compared",
            soft_wrap=True,
        )
    elif now.weights is None:
        _refuse_moved(before, now, run)
        console.print(
            "  its weights are not on this machine: taken as unchanged, since hub id and revision are the same",
            soft_wrap=True,
        )
    return True


def starting_step(run: RunDir, seen: str | None, console: Console) -> int | None:
    """The step of the checkpoint to continue from; None starts from the beginning.

    To be called by the process that holds the claim on the directory, for a run that `finished_before` has compared: it
    clears away what a kill left half done.

    Args:
        seen: the status when the run was compared.

    Raises:
        UserError: if another process has changed the status since, the run cannot be told from others, or the directory
            holds an adapter of unknown origin.
    """
    status = run.status()
    if status != seen:
        raise UserError(
            f"another process has written {run.path} in the meantime (its status was {seen} and is {status} now): "
            "start again to see what it holds."
        )
    if status is None:
        if run.adapter.exists():
            raise UserError(
                f"{run.path} holds an adapter but no run.json to say what it is: give another output_dir, or "
                "resume=false to set that folder aside."
            )
        return None
    if run.identity().weights is None and Checkpoints(run.checkpoints).steps():
        raise UserError(
            f"{run.path} was started before runs recorded the identity of their weights, so nobody can tell whether "
            "these are the same: give another output_dir, or resume=false to set it aside and start over."
        )
    checkpoints = Checkpoints(run.checkpoints)
    checkpoints.clean()
    checkpoint, complaints = checkpoints.newest_whole()
    for complaint in complaints:
        console.print(f"warning: {complaint}; going further back", soft_wrap=True)
    where = f"from {checkpoint.name}" if checkpoint else "from the start: it left no checkpoint"
    console.print(f"continuing {run.path} ({status}) {where}", soft_wrap=True)
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else None


def _refuse_moved(before: RunIdentity, now: RunIdentity, run: RunDir) -> None:
    moved = [line for line in before.moved(now) if line.startswith("model.")]
    if moved:
        raise UserError(
            f"{run.path} holds another run ({'; '.join(moved)}), and these weights are not on this machine to be "
            "compared: give another output_dir, or resume=false to set that run aside."
        )
