"""What an existing run directory means for a run that is about to start in it."""

from typing import Any

from rich.console import Console

from ladder_cli.errors import UserError
from ladder_cli.run_dir import RunDir, read_json
from ladder_cli.training.checkpoints import Checkpoints

DONE = "done"


def finished_before(config: dict[str, Any], run: RunDir, console: Console) -> bool:
    """Whether the same run stands there complete, and is to be left alone.

    Raises:
        UserError: if it is a run of another config.
    """
    if run.status() != DONE:
        return False
    run.refuse_other_config(config)
    console.print(f"{run.path} is already done (resume=false trains it again)", soft_wrap=True)
    return True


def starting_step(config: dict[str, Any], run: RunDir, console: Console) -> int | None:
    """The step of the checkpoint to continue from; None starts from the beginning.

    To be called by the process that holds the claim on the directory: it clears away what a kill left half done.

    Raises:
        UserError: if the directory holds a run of another config, or an adapter of unknown origin.
    """
    status = run.status()
    if status is None:
        if run.adapter.exists():
            raise UserError(
                f"{run.path} holds an adapter but no run.json to say what it is: give another output_dir, or "
                "resume=false to set that folder aside."
            )
        return None
    run.refuse_other_config(config)
    checkpoints = Checkpoints(run.checkpoints)
    checkpoints.clean()
    checkpoint, complaints = checkpoints.newest_whole()
    for complaint in complaints:
        console.print(f"warning: {complaint}; going further back", soft_wrap=True)
    where = f"from {checkpoint.name}" if checkpoint else "from the start: it left no checkpoint"
    console.print(f"continuing {run.path} ({status}) {where}", soft_wrap=True)
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else None


def refuse_other_data(run: RunDir, fingerprint: str, data: str) -> None:
    """Refuse to go on with other rows than the run was started with.

    Raises:
        UserError: if the rows differ.
    """
    if read_json(run.run).get("data_fingerprint") != fingerprint:
        raise UserError(
            f"{run.path} was trained on other rows than data={data} has now: restore them to continue, or start over "
            "with resume=false."
        )
