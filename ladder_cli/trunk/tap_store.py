"""Where taps are kept, in memory or on disk: by row and layer, within a limit, whole rows or none.

A cache on disk has a folder for each `TapSpace`, since taps of other weights or of another precision are other taps.
It is only ever a saving: what is missing, damaged, or finds no room is read of the backbone, and a note says so once.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from ladder_cli.config.choices import CacheFormat, Passes, Quantization
from ladder_cli.errors import UserError
from ladder_cli.run.claim import claimed
from ladder_cli.run.files import write_failure, write_text
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.tap_shards import SUFFIX, DamagedShard, Shard, write_shard

_LOG = logging.getLogger("ladder_cli")
SPACE_FILE = "space.json"
_PENDING_BYTES = 128_000_000  # held back until they make a shard; a kill costs no more
_ENTRY_BYTES = 300  # of a shard's header for each tensor, at most
_FREE_ON_DISK, _FREE_IN_MEMORY = 0.9, 0.5  # shares that a cache without a limit may take


@dataclass(frozen=True)
class TapSpace:
    """All that decides the values of taps beside row and layer.

    Attributes:
        model: its name, for people; takes no part in telling spaces apart.
        weights: their identity (`trunk.weights_identity`).
        numerics: what else of model, machine and libraries decides how they round.
        passes: whether rows went through alone.
        format: how they are kept.
    """

    model: str
    weights: str
    quantization: Quantization
    dtype: str
    numerics: dict[str, str]
    passes: Passes
    format: CacheFormat

    @property
    def key(self) -> str:
        """The name of its folder."""
        values = asdict(self)
        del values["model"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def row_key(row: Batch) -> str:
    """The name of a row by its content.

    Args:
        row: one row, without padding.
    """
    digest = hashlib.sha256(row.input_ids.cpu().numpy().tobytes())
    if row.position_ids is not None:
        digest.update(row.position_ids.cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


class TapStore(ABC):
    """Tensors by row and part, a part being a layer's number or what its format keeps beside it.

    Attributes:
        limit: bytes that it may hold.
    """

    limit: int

    @abstractmethod
    def get(self, row: str, part: str) -> Tensor | None:
        """One of them, in the host's memory and not to be written to; None if it is not there."""

    @abstractmethod
    def has(self, row: str, part: str) -> bool:
        """Whether `get` would give one, as far as is known without reading it."""

    @abstractmethod
    def put(self, row: str, parts: dict[str, Tensor]) -> None:
        """Keep what belongs to a row, all of it or, where there is no room, nothing."""

    @abstractmethod
    def used(self) -> int:
        """Bytes that it holds."""

    @abstractmethod
    def flush(self) -> None:
        """Write what is held back, if anything is."""

    @abstractmethod
    def refresh(self) -> None:
        """Take notice of what others have written, if others can."""


class MemoryStore(TapStore):
    """In this process, for as long as it lives."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._used = 0
        self._full = False

    def get(self, row: str, part: str) -> Tensor | None:
        """As `TapStore.get`."""
        return self._tensors.get((row, part))

    def has(self, row: str, part: str) -> bool:
        """As `TapStore.has`."""
        return (row, part) in self._tensors

    def put(self, row: str, parts: dict[str, Tensor]) -> None:
        """As `TapStore.put`."""
        size = sum(tensor.nbytes for part, tensor in parts.items() if not self.has(row, part))
        if self._used + size > self.limit:
            if not self._full:
                _note(f"the cache of taps in memory is full at {self._used / 1e9:.2f} GB: other rows are read anew")
            self._full = True
            return
        self._used += size
        for part, tensor in parts.items():
            self._tensors.setdefault((row, part), tensor.clone())

    def used(self) -> int:
        """As `TapStore.used`."""
        return self._used

    def flush(self) -> None:
        """Nothing is held back."""

    def refresh(self) -> None:
        """Nobody else writes here."""


class DiskStore(TapStore):
    """In a folder that several runs and processes share, now and later."""

    def __init__(self, root: Path, space: TapSpace, limit: int) -> None:
        """Open the folder of a space; it is made when something is put into it.

        Args:
            root: of all spaces; `limit` holds for all of them together.
        """
        self.limit, self._root, self._folder, self._space = limit, root, root / space.key, space
        self._made = False
        self._shards: dict[str, Shard | None] = {}  # None: damaged
        self._index: dict[str, Shard] = {}
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._seen = -1
        self._closed: str | None = None  # why nothing more is written
        with contextlib.suppress(OSError):  # whoever may only read it cannot say when it did
            os.utime(self._folder / SPACE_FILE)
        self.refresh()

    def refresh(self) -> None:
        """As `TapStore.refresh`: shards are only ever added, or pruned."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):  # not made yet, or pruned while it is in use
            return
        if changed == self._seen:
            return
        self._seen = changed
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path.name in self._shards:
                continue
            try:
                shard = Shard(path)
            except FileNotFoundError:
                continue
            except (DamagedShard, OSError, ValueError, KeyError, TypeError) as error:
                self._discard(path, error)
                continue
            self._shards[path.name] = shard
            for name in shard.names:
                self._index.setdefault(name, shard)

    def get(self, row: str, part: str) -> Tensor | None:
        """As `TapStore.get`."""
        name = f"{row}/{part}"
        if name in self._pending:
            return self._pending[name]
        shard = self._index.get(name)
        if shard is None:
            return None
        try:
            return shard.tensor(name)
        except DamagedShard as error:
            self._discard(shard.path, error)
            return None

    def has(self, row: str, part: str) -> bool:
        """As `TapStore.has`."""
        name = f"{row}/{part}"
        return name in self._pending or name in self._index

    def put(self, row: str, parts: dict[str, Tensor]) -> None:
        """As `TapStore.put`.

        Raises:
            UserError: if the folder cannot be made.
        """
        if self._closed is not None:
            return
        if not self._made:
            self._make()
        for part, tensor in parts.items():
            if not self.has(row, part):
                self._pending[f"{row}/{part}"] = tensor.clone()
                self._pending_bytes += tensor.nbytes + _ENTRY_BYTES
        if self._pending_bytes > min(_PENDING_BYTES, self.limit):
            self.flush()

    def _make(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_text(self._folder / SPACE_FILE, json.dumps(asdict(self._space), indent=2) + "\n")
        except OSError as error:
            raise UserError(
                f"trunk.cache_dir={self._root} cannot be written ({error.strerror}): give another, or trunk.cache=off."
            ) from error
        self._made = True

    def flush(self) -> None:
        """As `TapStore.flush`. Two writers wait for each other, so that together they keep the limit too."""
        if not self._pending:
            return
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        try:
            with claimed(self._root, wait=True):
                if not self._folder.is_dir():  # pruned meanwhile
                    self._make()
                self.refresh()  # another process may have written the same rows
                fitting = self._that_fit({n: tensor for n, tensor in pending.items() if n not in self._index})
                if fitting:
                    write_shard(self._folder, fitting)
        except (OSError, SafetensorError, UserError) as error:
            reason = write_failure(error) or " ".join(str(error).split())[:160]
            self._close(f"the cache of taps cannot be written ({reason}): it stays as it is, and training goes on")
        self.refresh()

    def _that_fit(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of these tensors those of the first rows that keep the limit."""
        room = self.limit - size_of(self._root) - _ENTRY_BYTES
        fitting: dict[str, Tensor] = {}
        by_row: dict[str, list[str]] = {}
        for name in tensors:
            by_row.setdefault(name.partition("/")[0], []).append(name)
        for names in by_row.values():
            room -= sum(tensors[name].nbytes + _ENTRY_BYTES for name in names)
            if room < 0:
                self._close(f"the cache of taps is full ({self.limit / 1e9:.2f} GB): other rows are read anew")
                break
            fitting |= {name: tensors[name] for name in names}
        return fitting

    def used(self) -> int:
        """As `TapStore.used`: of this space alone."""
        return size_of(self._folder)

    def _close(self, why: str) -> None:
        if self._closed is None:
            _note(why)
        self._closed = why

    def _discard(self, path: Path, why: Exception) -> None:
        """Forget a shard that is damaged, and delete it: its rows are read anew."""
        _note(f"{path} is damaged ({why}): deleted, and its rows are read of the backbone again")
        gone = self._shards.get(path.name)
        self._shards[path.name] = None
        self._index = {name: shard for name, shard in self._index.items() if shard is not gone}
        path.unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, of those that are still being written too."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(where, name)).st_size
            except FileNotFoundError:  # renamed or pruned meanwhile
                continue
    return total


def disk_limit(root: Path, limit_gb: float | None) -> int:
    """Bytes that a cache on disk may hold in all: the limit that was given, or a share of what is free."""
    if limit_gb is not None:
        return int(limit_gb * 1e9)
    there = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    return size_of(root) + int(_FREE_ON_DISK * shutil.disk_usage(there).free)


def memory_limit(limit_gb: float | None) -> int:
    """Bytes that a cache in memory may hold: the limit that was given, or a share of what is free."""
    if limit_gb is not None:
        return int(limit_gb * 1e9)
    return int(_FREE_IN_MEMORY * free_memory())


def free_memory() -> int:
    """Bytes of the host's memory that nobody uses."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _note(line: str) -> None:
    _LOG.warning("note: %s", line)
