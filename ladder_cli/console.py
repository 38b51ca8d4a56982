"""The console that both commands print to."""

import shutil

from rich.console import Console

from ladder_cli.ranks import is_main_process

_NARROWEST = 140


def make_console() -> Console:
    """A console as wide as the terminal; in a log file wide enough for the tables, since nothing folds there.

    Of several processes only the main one prints.
    """
    if not is_main_process():
        return Console(quiet=True)
    plain = Console(highlight=False)
    if plain.is_terminal:
        return plain
    return Console(highlight=False, width=max(_NARROWEST, shutil.get_terminal_size().columns))
