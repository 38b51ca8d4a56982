"""Which of several processes this one is, as torchrun and accelerate tell it, and how it ends. Imports no torch."""

import os
from types import FrameType

from ladder_cli.errors import UserError

# What a launcher sets together.
_ALL = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """How many processes train together, as torchrun and accelerate tell it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """How many of them are on this machine, as torchrun and accelerate say; where nobody says, all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes()))


def process_index() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def process_index_here() -> int:
    """The number of this process among those on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if processes() > 1 else 0


def is_main_process() -> bool:
    """Whether this is the one process that writes and prints."""
    return process_index() == 0


def check_launch(planned: bool = False) -> None:
    """Refuse what an earlier launch left in the environment: a process that waits for others for ever, or thinks that
    another one writes the results.

    Args:
        planned: nothing is trained, so that WORLD_SIZE alone may say how many processes there would be.

    Raises:
        UserError: if the variables are no numbers, or not those of a launcher.
    """
    for name, least in (("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)):
        value = os.environ.get(name)
        if value is not None and not (value.isdecimal() and int(value) >= least):
            raise UserError(f"the environment says {name}={value}, which is no number of a process: unset {name}.")
    if process_index() >= processes():
        raise UserError(
            f"the environment says RANK={process_index()} of WORLD_SIZE={processes()}, left over from another launch: "
            "unset RANK and WORLD_SIZE, or start with torchrun."
        )
    missing = [name for name in _ALL if name not in os.environ]
    if processes() > 1 and missing and not planned:
        raise UserError(
            f"the environment says WORLD_SIZE={processes()}, but not {' and '.join(missing)}: unset WORLD_SIZE to "
            "train in one process, or start several with torchrun."
        )


def interrupt(number: int, frame: FrameType | None) -> None:
    """End this process as Ctrl-C does; a signal handler."""
    raise KeyboardInterrupt
