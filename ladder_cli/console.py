"""The console that both commands print to."""

import shutil

from rich.console import Console
from rich.table import Table

from ladder_cli.config.ranks import is_main_process

_NARROWEST = 140


def make_console() -> Console:
    """A console as wide as the terminal; in a log file wide enough for the tables, since nothing folds there.

    Square brackets and colons are printed as they are: paths, names and messages are the user's, never markup. Text
    with colours of our own is a `rich.text.Text`, or printed with `markup=True` where nothing of the user's is in it.
    Of several processes only the main one prints.
    """
    if not is_main_process():
        return Console(quiet=True)
    plain = Console(highlight=False, markup=False, emoji=False)
    if plain.is_terminal:
        return plain
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    return Console(highlight=False, markup=False, emoji=False, width=width)


def show(table: Table, console: Console) -> None:
    """Print a table: in a terminal as wide as that, in a log file or a pipe as wide as its text, so that no name or
    figure is cut.
    """
    before = console.width
    if not console.is_terminal:
        console.width = max(before, console.measure(table, options=console.options.update(max_width=2000)).maximum)
    console.print(table)
    console.width = before
