"""How a run reads its backbone: rows alone or together, and from a cache of taps where it asks for one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from ladder_cli.config.choices import CacheFormat, CacheMode, Passes
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.trunk import TrunkConfig
from ladder_cli.data.passes import Rows, rows_after
from ladder_cli.data.prepare import PreparedData
from ladder_cli.errors import UserError
from ladder_cli.run.directory import TAP_CACHE
from ladder_cli.trunk.base import Batch, TapRequest, Trunk
from ladder_cli.trunk.cached import CODECS, CachedTrunk, bytes_per_token, holds
from ladder_cli.trunk.rows import RowTrunk
from ladder_cli.trunk.tap_store import DiskStore, MemoryStore, TapSpace, TapStore, disk_limit, memory_limit


@dataclass(frozen=True)
class Shape:
    """What of a backbone decides how much is read of it.

    Attributes:
        request: of the method; None: it reads no taps.
        needed: layers that it runs itself, counted from the last.
        layers: L.
        width: d.
        dtype: that it computes in.
    """

    request: TapRequest | None
    needed: int
    layers: int
    width: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Reading:
    """How rows are read, decided once.

    Attributes:
        passes: row or batch.
        cache: where taps are kept; never auto.
        kept_as: how.
        taps: layers that are kept for a row.
        tokens: of the rows that the run will ask for, each row once; None where that is not known.
        bytes_per_token: of the cache.
        limit: bytes that it may hold.
        share_there: of those tokens, what the cache holds already.
        share_read: of the rows that training passes, each as often as it is passed, those that have to be read of the
            backbone.
        layers: L.
        absent: layers that are not loaded, from the first on.
        why: in words, where `auto` decided.
    """

    passes: Passes
    cache: CacheMode
    kept_as: CacheFormat
    taps: int = 0
    tokens: int | None = None
    bytes_per_token: int = 0
    limit: int = 0
    share_there: float = 0.0
    share_read: float = 1.0
    layers: int = 0
    absent: int = 0
    why: str = ""
    store: TapStore | None = None

    @property
    def size(self) -> int | None:
        """Bytes of all taps that the run asks for."""
        return None if self.tokens is None else self.tokens * self.bytes_per_token

    @property
    def host_bytes(self) -> int:
        """What of it lies in the host's memory."""
        return min(self.size or 0, self.limit) if self.cache is CacheMode.MEMORY else 0

    def over(self, trunk: Trunk) -> Trunk:
        """The trunk as it is read."""
        if self.passes is Passes.ROW:
            trunk = RowTrunk(trunk)
        if self.store is not None:
            trunk = CachedTrunk(trunk, self.store, self.kept_as)
            trunk.share_read = self.share_read
        return trunk

    def lines(self) -> list[tuple[str, str]]:
        """For the page that is printed."""
        if self.cache is CacheMode.OFF:
            return [("cache of taps", f"off: {self.why}")] if self.why else []
        per_token = f"{self.taps} taps, {self.bytes_per_token / 1000:,.1f} kB a token"
        if self.size is None:
            return [("cache of taps", f"{self.cache}, {self.kept_as}: {per_token}")]
        room = f"limit {_gb(self.limit)}"
        fits = "" if self.size <= self.limit else f" [only {self.limit / self.size:.0%} of it find room]"
        there = f", {self.share_there:.0%} there" if self.share_there else ""
        why = f" ({self.why})" if self.why else ""
        if self.absent:
            kept = "no layer" if self.absent == self.layers else f"only layers {self.absent + 1} to {self.layers}"
            loaded = [("backbone", f"{kept} of it loaded: everything below is in the cache")]
        else:
            loaded = []
        return [
            (
                "cache of taps",
                f"{self.cache}, {self.kept_as}{why}: {per_token}, {self.tokens:,} tokens: {_gb(self.size)}{there}; "
                f"{room}{fits}",
            ),
            ("passes saved", f"{1 - self.share_read:.0%} of the rows that training passes need no pass"),
            *loaded,
        ]

    def as_dict(self) -> dict[str, Any]:
        """For `plan.json`."""
        return {
            "passes": self.passes,
            "cache": self.cache,
            "format": self.kept_as,
            "taps": self.taps,
            "tokens": self.tokens,
            "bytes_per_token": self.bytes_per_token,
            "bytes": self.size,
            "limit": self.limit,
            "share_there": self.share_there,
            "share_read": self.share_read,
            "layers_not_loaded": self.absent,
        }


def settled_passes(trunk: TrunkConfig, device_type: str, sharded: bool) -> Passes:
    """Row or batch.

    Raises:
        UserError: for rows alone over a sharded backbone, whose processes gather each layer together.
    """
    if sharded:
        if trunk.passes is Passes.ROW:
            raise UserError(
                "trunk.passes=row does not go with hardware.shard_backbone=true, where the processes run each layer "
                "together: leave one out."
            )
        return Passes.BATCH
    if trunk.passes is Passes.AUTO:
        return {"cpu": Passes.ROW, "cuda": Passes.BATCH, "mps": Passes.BATCH, "xpu": Passes.BATCH}[device_type]
    return trunk.passes


def settle_reading(
    config: TrainConfig,
    passes: Passes,
    sharded: bool,
    shape: Shape,
    data: PreparedData | None,
    steps: int | None,
    effective_batch: int,
    space: TapSpace | None,
) -> Reading:
    """Decide how a run reads its backbone.

    Args:
        data: None where it cannot be had.
        steps: of the run.
        space: of its taps; None where the weights are not here yet, so that nobody can tell what is cached of them.

    Raises:
        UserError: where a cache is asked for and cannot be.
    """
    trunk = config.trunk
    off = Reading(passes, CacheMode.OFF, trunk.cache_format)
    if trunk.cache is CacheMode.OFF:
        return off
    if shape.request is None or sharded:
        why = (
            "the processes of a sharded backbone run each layer together"
            if sharded
            else f"method={config.method.name} lets gradients pass through the backbone, and reads no taps"
        )
        if trunk.cache is CacheMode.AUTO:
            return replace(off, why=why)
        raise UserError(f"trunk.cache={trunk.cache} cannot be: {why}. Leave it out.")
    per_token = bytes_per_token(shape.request, shape.layers, shape.width, shape.dtype, trunk.cache_format)
    taps = len(shape.request.layers | ({shape.layers} if shape.request.final else set()))
    reading = replace(off, cache=trunk.cache, taps=taps, bytes_per_token=per_token, layers=shape.layers)
    root = tap_cache(trunk)
    asked = _Asked.of(data, steps, effective_batch) if data is not None and steps is not None else None
    limits = {
        CacheMode.MEMORY: lambda: memory_limit(trunk.cache_limit_gb),
        CacheMode.DISK: lambda: disk_limit(root, trunk.cache_limit_gb),
    }
    if asked is not None:
        reading = replace(reading, tokens=asked.tokens)
    if trunk.cache is CacheMode.AUTO:
        reading = _choose(reading, asked, space, shape, root, trunk)
        if reading.cache is CacheMode.OFF:
            return reading
    reading = replace(reading, limit=limits[reading.cache]())
    stores = {
        CacheMode.MEMORY: lambda: MemoryStore(reading.limit),
        CacheMode.DISK: lambda: DiskStore(root, space, reading.limit) if space is not None else None,
    }
    store = stores[reading.cache]()
    if asked is None:
        return replace(reading, store=store)
    there = asked.there(store, shape, trunk.cache_format) if store is not None else 0.0
    # What keeps documents of one row apart is tried on the whole backbone.
    absent = shape.layers - shape.needed if there == 1.0 and not config.data.packing else 0
    kept = min(1.0, reading.limit / reading.size) if reading.size else 1.0
    return replace(reading, store=store, share_there=there, share_read=asked.share_read(there, kept), absent=absent)


def tap_cache(trunk: TrunkConfig) -> Path:
    """The folder of the cache on disk."""
    return Path(trunk.cache_dir) if trunk.cache_dir is not None else TAP_CACHE


def tap_space(config: TrainConfig, weights: str, dtype: torch.dtype, device_type: str, passes: Passes) -> TapSpace:
    """Where the taps of a run's backbone belong."""
    model = config.model
    numerics = {
        "attention": model.attention,
        "mlp_chunk": str(model.mlp_chunk),
        "device": device_type if device_type != "cpu" else f"cpu, {torch.get_num_threads()} threads",
        "compiled": str(config.train.compile),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    name = str(dtype).removeprefix("torch.")
    return TapSpace(model.name, weights, model.quantization, name, numerics, passes, config.trunk.cache_format)


@dataclass(frozen=True)
class _Asked:
    """The rows that a run will ask for.

    Attributes:
        sets: of training and validation.
        passed: training rows that are passed, each as often as it is.
        distinct: how many different ones.
        tokens: of all rows of both sets that are asked for, each once.
    """

    sets: tuple[Rows, ...]
    passed: int
    distinct: int
    tokens: int

    @classmethod
    def of(cls, data: PreparedData, steps: int, effective_batch: int) -> "_Asked":
        train, validation = data.train_rows, data.validation
        passed = rows_after(steps, len(train), effective_batch)
        distinct = min(passed, len(train))
        # Of a run that ends within its first epoch nobody has drawn the rows yet.
        tokens = round(sum(train.lengths) * distinct / len(train)) + sum(validation.lengths)
        return cls((train, validation), passed, distinct, tokens)

    def there(self, store: TapStore, shape: Shape, kept_as: CacheFormat) -> float:
        """The share of their tokens that a store holds."""
        if store.used() == 0:
            return 0.0
        assert shape.request is not None
        found = total = 0
        for rows in self.sets:
            for number, row in enumerate(_as_batches(rows)):
                total += rows.lengths[number]
                found += rows.lengths[number] * holds(store, row, shape.request, shape.layers, CODECS[kept_as])
        return found / total

    def share_read(self, there: float, kept: float) -> float:
        """Of the rows that training passes, those that have to be read; `kept`: the share that finds room."""
        found = max(there, 0.0)
        first = self.distinct * (1 - found)
        again = (self.passed - self.distinct) * (1 - max(kept, found))
        return (first + again) / self.passed


def _as_batches(rows: Rows) -> Iterator[Batch]:
    for number in range(len(rows)):
        row = rows[number]
        positions = torch.tensor([row["position_ids"]]) if "position_ids" in row else None
        yield Batch(torch.tensor([row["input_ids"]]), position_ids=positions)


def _choose(
    reading: Reading, asked: _Asked | None, space: TapSpace | None, shape: Shape, root: Path, trunk: TrunkConfig
) -> Reading:
    """What `auto` comes to: what is on disk already, else memory, else disk, else nothing."""
    if asked is None:
        return replace(reading, cache=CacheMode.OFF, why="not known what it would hold")
    size = reading.size or 0
    if space is not None and (root / space.key).is_dir():
        store = DiskStore(root, space, disk_limit(root, trunk.cache_limit_gb))
        if asked.there(store, shape, trunk.cache_format) > 0:
            return replace(reading, cache=CacheMode.DISK, why="some of it is there")
    if asked.passed <= asked.distinct:
        return replace(reading, cache=CacheMode.OFF, why="no training row is passed twice")
    if size <= memory_limit(trunk.cache_limit_gb):
        return replace(reading, cache=CacheMode.MEMORY, why="fits the memory")
    if size <= disk_limit(root, trunk.cache_limit_gb):
        return replace(reading, cache=CacheMode.DISK, why="does not fit the memory")
    return replace(reading, cache=CacheMode.OFF, why=f"its {_gb(size)} fit neither memory nor disk")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
