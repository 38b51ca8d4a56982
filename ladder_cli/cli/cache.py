"""`ladder-train cache=list|prune|prune_layers`: what is kept on disk of backbones, and making it smaller."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from ladder_cli.config.choices import CacheCommand
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.streams import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from ladder_cli.trunk.layer_cache import FolderReport
    from ladder_cli.trunk.tap_store import SpaceReport

_READ: dict[CacheCommand, tuple[str, ...]] = {
    CacheCommand.LIST: ("cache", "trunk.cache_dir", "trunk.layer_files"),
    CacheCommand.PRUNE: ("cache", "trunk.cache_dir", "trunk.cache_limit_gb"),
    CacheCommand.PRUNE_LAYERS: ("cache", "trunk.layer_files", "trunk.cache_limit_gb"),
}
_NO_LIMIT = (
    "cache={} needs a limit: trunk.cache_limit_gb=N deletes what was not used for longest until N GB are left; 0 "
    "deletes all."
)


def cache_command(config: TrainConfig, given: list[str]) -> None:
    """Do what `cache=` asks for.

    Args:
        given: names of the options that were given.

    Raises:
        UserError: for an option that is of training alone, or a prune without a limit.
    """
    assert config.cache is not None
    for name in given:
        read = _READ[config.cache]
        if name not in read:
            raise UserError(f"{name} is given, but cache={config.cache} trains nothing: it reads {', '.join(read)}.")
    quiet_libraries(downloads=False)
    from ladder_cli.console import make_console

    _COMMANDS[config.cache](config, make_console())


def _list(config: TrainConfig, console: "Console") -> None:
    from ladder_cli.plan.reading import tap_cache
    from ladder_cli.trunk.layer_cache import folder_reports
    from ladder_cli.trunk.layer_folder import layer_cache
    from ladder_cli.trunk.tap_store import reports

    root, place = tap_cache(config.trunk), layer_cache(config.trunk.layer_files)
    found = reports(root)
    _show(found, console)
    total = sum(report.size for report in found) / 1e9
    console.print(f"{root}: {len(found)} {'space' if len(found) == 1 else 'spaces'}, {total:.2f} GB", soft_wrap=True)
    folders = folder_reports(place)
    _show_layers(folders, console)
    total = sum(folder.size for folder in folders) / 1e9
    console.print(
        f"{place}: layer files of {len(folders)} {'backbone' if len(folders) == 1 else 'backbones'}, {total:.2f} GB",
        soft_wrap=True,
    )


def _prune(config: TrainConfig, console: "Console") -> None:
    from ladder_cli.plan.reading import tap_cache
    from ladder_cli.trunk.tap_store import prune, size_of

    root, limit = tap_cache(config.trunk), config.trunk.cache_limit_gb
    if limit is None:
        raise UserError(_NO_LIMIT.format(config.cache))
    if not root.is_dir():
        raise UserError(f"{root} is no folder: there is no cache of taps (trunk.cache_dir=DIR names another).")
    deleted = prune(root, int(limit * 1e9))
    _show(deleted, console)
    freed, left = sum(report.size for report in deleted) / 1e9, size_of(root) / 1e9
    console.print(f"{root}: {freed:.2f} GB deleted, {left:.2f} GB left", soft_wrap=True)


def _prune_layers(config: TrainConfig, console: "Console") -> None:
    from ladder_cli.trunk.layer_cache import folder_reports, prune_layers
    from ladder_cli.trunk.layer_folder import layer_cache

    place, limit = layer_cache(config.trunk.layer_files), config.trunk.cache_limit_gb
    if limit is None:
        raise UserError(_NO_LIMIT.format(config.cache))
    if not place.is_dir():
        raise UserError(f"{place} is no folder: there are no layer files (trunk.layer_files=DIR names another).")
    deleted = prune_layers(place, int(limit * 1e9))
    _show_layers(deleted, console)
    freed, left = (sum(report.size for report in reports) / 1e9 for reports in (deleted, folder_reports(place)))
    busy = "; what is being made stays" if left > limit else ""
    console.print(f"{place}: {freed:.2f} GB deleted, {left:.2f} GB left{busy}", soft_wrap=True)


_COMMANDS: dict[CacheCommand, Callable[[TrainConfig, "Console"], None]] = {
    CacheCommand.LIST: _list,
    CacheCommand.PRUNE: _prune,
    CacheCommand.PRUNE_LAYERS: _prune_layers,
}


def _show_layers(folders: "list[FolderReport]", console: "Console") -> None:
    from rich.table import Table

    if not folders:
        return
    table = Table(box=None, padding=(0, 2))
    for title in ("model", "layers", "GB", "last used", "folder"):
        table.add_column(title, justify="right" if title in ("layers", "GB") else "left")
    for report in folders:
        used = datetime.fromtimestamp(report.used).isoformat(" ", "minutes")
        whole = str(report.layers) if report.values else f"{report.layers}, not all"
        table.add_row(str(report.values.get("model", "?")), whole, f"{report.size / 1e9:.2f}", used, report.folder.name)
    console.print(table)


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
