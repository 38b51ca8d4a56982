"""`ladder-train cache=list|prune|prune_layers`: what is kept on disk of backbones, and making it smaller."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ladder_cli.config.choices import CacheCommand
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.streams import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from ladder_cli.trunk.kept import KeptFolder

_READ: dict[CacheCommand, tuple[str, ...]] = {
    CacheCommand.LIST: ("cache", "trunk.cache_dir", "trunk.layer_files"),
    CacheCommand.PRUNE: ("cache", "trunk.cache_dir", "trunk.cache_limit_gb"),
    CacheCommand.PRUNE_LAYERS: ("cache", "trunk.layer_files", "trunk.cache_limit_gb"),
}


class _Cache(NamedTuple):
    """One kind of what is kept.

    Attributes:
        root: the folder above it.
        option: which names another folder.
        holds: what lies there, in words; `of`: one of them and several, in words.
        folders, prune: of `trunk.kept`.
        columns: of the table, beside those that all have.
        cells: what stands in them.
    """

    root: Path
    option: str
    holds: str
    of: tuple[str, str]
    folders: "Callable[[Path], list[KeptFolder]]"
    prune: "Callable[[Path, int], list[KeptFolder]]"
    columns: tuple[str, ...]
    cells: "Callable[[KeptFolder], tuple[str, ...]]"


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

    console, caches = make_console(), _caches(config)
    if config.cache is CacheCommand.LIST:
        for cache in caches.values():
            _list(cache, console)
        return
    limit = config.trunk.cache_limit_gb
    if limit is None:
        raise UserError(
            f"cache={config.cache} needs a limit: trunk.cache_limit_gb=N deletes what was not used for longest until "
            "N GB are left; 0 deletes all."
        )
    _prune(caches[config.cache], int(limit * 1e9), console)


def _caches(config: TrainConfig) -> dict[CacheCommand, _Cache]:
    """The caches, by the command that prunes them."""
    from ladder_cli.plan.reading import tap_cache
    from ladder_cli.trunk import kept
    from ladder_cli.trunk.layer_folder import layer_cache

    return {
        CacheCommand.PRUNE: _Cache(
            tap_cache(config.trunk),
            "trunk.cache_dir",
            "taps",
            ("space", "spaces"),
            kept.tap_folders,
            kept.prune_taps,
            ("stored", "passes", "format", "rows"),
            _of_taps,
        ),
        CacheCommand.PRUNE_LAYERS: _Cache(
            layer_cache(config.trunk.layer_files),
            "trunk.layer_files",
            "layer files",
            ("backbone", "backbones"),
            kept.layer_folders,
            kept.prune_layers,
            ("layers",),
            _of_layers,
        ),
    }


def _list(cache: _Cache, console: "Console") -> None:
    found = cache.folders(cache.root)
    _show(cache, found, console)
    one, several = cache.of
    said = f"{cache.holds} of {len(found)} {one if len(found) == 1 else several}, {_gigabytes(found)} GB"
    console.print(f"{cache.root}: {said}", soft_wrap=True)


def _prune(cache: _Cache, limit: int, console: "Console") -> None:
    if not cache.root.is_dir():
        raise UserError(f"{cache.root} is no folder: there are no {cache.holds} ({cache.option}=DIR names another).")
    deleted = cache.prune(cache.root, limit)
    _show(cache, deleted, console)
    left = cache.folders(cache.root)
    busy = "; what is in use stays" if sum(each.size for each in left) > limit else ""
    said = f"{_gigabytes(deleted)} GB deleted, {_gigabytes(left)} GB left{busy}"
    console.print(f"{cache.root}: {said}", soft_wrap=True)


def _gigabytes(folders: "list[KeptFolder]") -> str:
    return f"{sum(each.size for each in folders) / 1e9:.2f}"


def _show(cache: _Cache, folders: "list[KeptFolder]", console: "Console") -> None:
    from rich.table import Table

    if not folders:
        return
    table = Table(box=None, padding=(0, 2))
    for title in ("model", *cache.columns, "GB", "last used", "folder"):
        table.add_column(title, justify="right" if title in ("rows", "layers", "GB") else "left")
    for each in folders:
        model, used = str(each.values.get("model", "?")), datetime.fromtimestamp(each.used).isoformat(" ", "minutes")
        table.add_row(model, *cache.cells(each), f"{each.size / 1e9:.2f}", used, each.folder.name)
    console.print(table)


def _of_taps(space: "KeptFolder") -> tuple[str, ...]:
    dtype, quantization, passes, form = (
        str(space.values.get(name, "?")) for name in ("dtype", "quantization", "passes", "format")
    )
    return f"{dtype}, quantization {quantization}", passes, form, f"{space.count:,}"


def _of_layers(backbone: "KeptFolder") -> tuple[str, ...]:
    return (str(backbone.count) if backbone.values else f"{backbone.count}, not all",)
