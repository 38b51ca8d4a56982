"""What a cache of layer files holds, and making it smaller. Files of others that lie beside them are not touched."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ladder_cli.errors import UserError
from ladder_cli.run.claim import claimed
from ladder_cli.trunk.layer_folder import MANIFEST, REST

_FOLDER = re.compile(r"[0-9a-f]{16}-[a-z0-9-]+-\d+")  # identity of the weights, form, version
_FILES = (MANIFEST, REST, "layer-*.bin", "*.tmp")


@dataclass(frozen=True)
class FolderReport:
    """The layer files of one backbone in one form.

    Attributes:
        folder: where they lie.
        values: what its manifest says; empty while they are being made, and after a kill.
        layers: how many are there.
        size: bytes.
        used: when they were last opened, or written to, in seconds since 1970.
    """

    folder: Path
    values: dict[str, object]
    layers: int
    size: int
    used: float


def folder_reports(place: Path) -> list[FolderReport]:
    """What lies in a cache of layer files, the most recently used first."""
    found = []
    for folder in place.iterdir() if place.is_dir() else ():
        if folder.is_dir() and _FOLDER.fullmatch(folder.name):
            with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
                found.append(_report(folder))
    return sorted((report for report in found if report.size), key=lambda report: -report.used)


def _report(folder: Path) -> FolderReport:
    manifest = folder / MANIFEST
    try:
        values = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    facts = [path.stat() for path in _ours(folder)]
    used = manifest.stat().st_mtime if values else max((fact.st_mtime for fact in facts), default=0.0)
    layers = len(list(folder.glob("layer-*.bin")))
    return FolderReport(folder, values, layers, sum(fact.st_size for fact in facts), used)


def prune_layers(place: Path, limit: int) -> list[FolderReport]:
    """Delete the layer files that were not used for longest, until the rest keeps a limit.

    Those that are being made stay. A run that has opened them goes on: its files are gone when it ends.

    Args:
        place: the folder above them.
        limit: bytes.

    Returns:
        What was deleted.
    """
    kept, deleted = folder_reports(place), []
    left = sum(report.size for report in kept)
    for report in reversed(kept):
        if left <= limit:
            break
        with contextlib.suppress(UserError), claimed(report.folder):  # its lock goes last, and the folder with it
            # The manifest goes first: who finds half of them makes the other half anew.
            for path in _ours(report.folder):
                path.unlink(missing_ok=True)
            deleted.append(report)
            left -= report.size
    return deleted


def _ours(folder: Path) -> Iterator[Path]:
    for pattern in _FILES:
        yield from folder.glob(pattern)
