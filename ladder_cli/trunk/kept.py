"""What is kept on disk of backbones, taps and layer files, and making it smaller.

Files of others that lie beside them are not touched.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ladder_cli.errors import UserError
from ladder_cli.run.claim import claimed
from ladder_cli.trunk.layer_folder import MANIFEST, REST
from ladder_cli.trunk.tap_shards import SUFFIX, DamagedShard, Shard
from ladder_cli.trunk.tap_store import SPACE_FILE, size_of

_LAYER_FOLDER = re.compile(r"[0-9a-f]{16}-[a-z0-9-]+-\d+")  # identity of the weights, form, version
_LAYER_FILES = (MANIFEST, REST, "layer-*.bin", "*.tmp")


@dataclass(frozen=True)
class KeptFolder:
    """What is kept of one backbone in one form.

    Attributes:
        folder: where it lies.
        values: what it says of itself; empty if that cannot be read, and of layer files that are not all there yet.
        count: rows whose taps are there, or layers.
        size: bytes.
        used: when it was last opened, or written to, in seconds since 1970.
    """

    folder: Path
    values: dict[str, object]
    count: int
    size: int
    used: float


def tap_folders(root: Path) -> list[KeptFolder]:
    """What a cache of taps holds, the most recently used first."""
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        space = folder / SPACE_FILE
        if not space.is_file():
            continue
        rows: set[str] = set()
        for path in folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(DamagedShard, OSError, ValueError, KeyError, TypeError):
                rows.update(name.partition("/")[0] for name in Shard(path).names)
        found.append(KeptFolder(folder, _values(space), len(rows), size_of(folder), space.stat().st_mtime))
    return sorted(found, key=lambda kept: -kept.used)


def prune_taps(root: Path, limit: int) -> list[KeptFolder]:
    """Delete the folders that were not used for longest, until the rest keeps a limit; and what killed writers left.

    Returns:
        What was deleted.

    Raises:
        UserError: if another process holds the cache for longer than it takes to write a shard.
    """
    deleted = []
    with claimed(root, wait=True):
        for leftover in root.glob("*/*.tmp"):
            leftover.unlink(missing_ok=True)
        kept = tap_folders(root)
        while kept and sum(each.size for each in kept) > limit:
            deleted.append(kept.pop())
            shutil.rmtree(deleted[-1].folder, ignore_errors=True)
    return deleted


def layer_folders(place: Path) -> list[KeptFolder]:
    """What a cache of layer files holds, the most recently used first."""
    found = []
    for folder in place.iterdir() if place.is_dir() else ():
        if folder.is_dir() and _LAYER_FOLDER.fullmatch(folder.name):
            with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
                found.append(_layers_in(folder))
    return sorted((kept for kept in found if kept.size), key=lambda kept: -kept.used)


def _layers_in(folder: Path) -> KeptFolder:
    manifest = folder / MANIFEST
    values = _values(manifest)
    facts = [path.stat() for path in _layer_files(folder)]
    used = manifest.stat().st_mtime if values else max((fact.st_mtime for fact in facts), default=0.0)
    layers = len(list(folder.glob("layer-*.bin")))
    return KeptFolder(folder, values, layers, sum(fact.st_size for fact in facts), used)


def prune_layers(place: Path, limit: int) -> list[KeptFolder]:
    """Delete the layer files that were not used for longest, until the rest keeps a limit.

    Those that are being made stay. A run that has opened them goes on: its files are gone when it ends.

    Args:
        place: the folder above them.
        limit: bytes.

    Returns:
        What was deleted.
    """
    kept, deleted = layer_folders(place), []
    left = sum(each.size for each in kept)
    for each in reversed(kept):
        if left <= limit:
            break
        with contextlib.suppress(UserError), claimed(each.folder):  # its lock goes last, and the folder with it
            # The manifest goes first: who finds half of them makes the other half anew.
            for path in _layer_files(each.folder):
                path.unlink(missing_ok=True)
            deleted.append(each)
            left -= each.size
    return deleted


def _layer_files(folder: Path) -> Iterator[Path]:
    for pattern in _LAYER_FILES:
        yield from folder.glob(pattern)


def _values(path: Path) -> dict[str, object]:
    """What a folder says of itself; empty if that cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
