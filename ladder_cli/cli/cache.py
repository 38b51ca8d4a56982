"""`ladder-train cache=list|prune`: what a cache of taps on disk holds, and making it smaller."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ladder_cli.config.choices import CacheCommand
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.streams import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from ladder_cli.trunk.tap_store import SpaceReport

_READ = ("cache", "trunk.cache_dir", "trunk.cache_limit_gb")


def cache_command(config: TrainConfig, given: list[str]) -> None:
    """Do what `cache=` asks for.

    Args:
        given: names of the options that were given.

    Raises:
        UserError: for an option that is of training alone, or a prune without a limit.
    """
    assert config.cache is not None
    for name in given:
        if name not in _READ:
            raise UserError(f"{name} is given, but cache={config.cache} trains nothing: it reads {', '.join(_READ)}.")
    quiet_libraries(downloads=False)
    from ladder_cli.console import make_console
    from ladder_cli.plan.reading import tap_cache

    _COMMANDS[config.cache](config, tap_cache(config.trunk), make_console())


def _list(config: TrainConfig, root: Path, console: "Console") -> None:
    from ladder_cli.trunk.tap_store import reports

    if config.trunk.cache_limit_gb is not None:
        raise UserError("trunk.cache_limit_gb is given, but cache=list changes nothing: cache=prune reads it.")
    found = reports(root)
    _show(found, console)
    total = sum(report.size for report in found) / 1e9
    console.print(f"{root}: {len(found)} {'space' if len(found) == 1 else 'spaces'}, {total:.2f} GB", soft_wrap=True)


def _prune(config: TrainConfig, root: Path, console: "Console") -> None:
    from ladder_cli.trunk.tap_store import prune, size_of

    limit = config.trunk.cache_limit_gb
    if limit is None:
        raise UserError(
            "cache=prune needs a limit: trunk.cache_limit_gb=N deletes what was not used for longest until N GB are "
            "left; 0 deletes all."
        )
    if not root.is_dir():
        raise UserError(f"{root} is no folder: there is no cache of taps (trunk.cache_dir=DIR names another).")
    deleted = prune(root, int(limit * 1e9))
    _show(deleted, console)
    freed, left = sum(report.size for report in deleted) / 1e9, size_of(root) / 1e9
    console.print(f"{root}: {freed:.2f} GB deleted, {left:.2f} GB left", soft_wrap=True)


_COMMANDS: dict[CacheCommand, Callable[[TrainConfig, Path, "Console"], None]] = {
    CacheCommand.LIST: _list,
    CacheCommand.PRUNE: _prune,
}


def _show(spaces: "list[SpaceReport]", console: "Console") -> None:
    from rich.table import Table

    if not spaces:
        return
    table = Table(box=None, padding=(0, 2))
    for title in ("model", "stored", "passes", "format", "rows", "GB", "last used", "folder"):
        table.add_column(title, justify="right" if title in ("rows", "GB") else "left")
    for space in spaces:
        values = space.values
        stored = f"{values.get('dtype', '?')}, quantization {values.get('quantization', '?')}"
        used = datetime.fromtimestamp(space.used).isoformat(" ", "minutes")
        shown = [str(values.get(name, "?")) for name in ("model", "passes", "format")]
        table.add_row(
            shown[0], stored, *shown[1:], f"{space.rows:,}", f"{space.size / 1e9:.2f}", used, space.folder.name
        )
    console.print(table)
