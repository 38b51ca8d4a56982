"""The console that both commands print to."""

import shutil

from rich.console import Console
from rich.table import Table

from ladder_cli.ranks import is_main_process

_NARROWEST = 140


def make_console() -> Console:
    """Make a console as wide as the terminal. In a log file it is wide enough for the tables, so that no line folds.

    Square brackets and colons are printed literally, because paths, names and messages come from the user. Our own
    colours use `rich.text.Text`, or `markup=True` for texts without anything of the user's. Of several processes only
    the main one prints.
    """
    if not is_main_process():
        return Console(quiet=True)
    plain = Console(highlight=False, markup=False, emoji=False)
    if plain.is_terminal:
        return plain
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    return Console(highlight=False, markup=False, emoji=False, width=width)


def show(table: Table, console: Console) -> None:
    """Print a table as wide as the terminal; in a log file or a pipe as wide as its text, so that nothing is cut."""
    before = console.width
    if not console.is_terminal:
        console.width = max(before, console.measure(table, options=console.options.update(max_width=2000)).maximum)
    console.print(table)
    console.width = before
