"""Which of several processes this one is, as torchrun and accelerate tell it. Imports no torch."""

import os


def processes() -> int:
    """How many processes train together, as torchrun and accelerate tell it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the one process that writes and prints."""
    return process_index() == 0
