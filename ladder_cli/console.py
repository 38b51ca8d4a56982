"""The console that both commands print to."""

import shutil

from rich.console import Console

_NARROWEST = 140


def make_console() -> Console:
    """A console as wide as the terminal; in a log file wide enough for the tables, since nothing folds there."""
    plain = Console(highlight=False)
    if plain.is_terminal:
        return plain
    return Console(highlight=False, width=max(_NARROWEST, shutil.get_terminal_size().columns))
