"""A trunk that reads a row once: what it has read is kept in a store, and given from there ever after.

Nothing of a frozen backbone changes while a side network learns, so that a row's taps serve all epochs, learning
rates, seeds and methods. In the exact format they are those of the trunk below, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from transformers import Cache

from ladder_cli.config.choices import CacheFormat
from ladder_cli.trunk.base import BLANK, Batch, TapRequest, Taps, Trunk, TrunkCost
from ladder_cli.trunk.loading import parameter_count
from ladder_cli.trunk.rows import TrunkOver, gathered, looked_up, row_lengths, single_rows, some_rows
from ladder_cli.trunk.tap_store import TapStore, row_key

_SCALE = ":scale"


@dataclass(frozen=True)
class Codec:
    """How a tap `[tokens, d]` is kept.

    Attributes:
        encode: to tensors by what stands behind the layer's number in their names.
        decode: back, to a type.
        parts: those names.
        bytes_per_token: of a tap of width d in a type.
    """

    encode: Callable[[Tensor], dict[str, Tensor]]
    decode: Callable[[dict[str, Tensor], torch.dtype], Tensor]
    parts: tuple[str, ...]
    bytes_per_token: Callable[[int, torch.dtype], int]


def _quantized(tap: Tensor) -> dict[str, Tensor]:
    """Eight bits a value and a float32 scale a token, so that its largest value is 127."""
    scale = tap.float().abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return {"": (tap.float() / scale).round().to(torch.int8), _SCALE: scale}


def _dequantized(kept: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    return (kept[""].float() * kept[_SCALE]).to(dtype)


CODECS: dict[CacheFormat, Codec] = {
    CacheFormat.EXACT: Codec(
        lambda tap: {"": tap}, lambda kept, dtype: kept[""], ("",), lambda width, dtype: width * dtype.itemsize
    ),
    CacheFormat.INT8: Codec(_quantized, _dequantized, ("", _SCALE), lambda width, dtype: width + 4),
}


class CachedTrunk(TrunkOver):
    """A trunk over another one and a store.

    Attributes:
        share_read: of the rows that a run will ask for, those that have to pass the backbone; for `cost` alone.
        rows_read, rows_given: so far, of the backbone and from the store.
    """

    def __init__(self, trunk: Trunk, store: TapStore, kept_as: CacheFormat) -> None:
        super().__init__(trunk)
        self.store, self._codec = store, CODECS[kept_as]
        self.share_read = 1.0
        self.rows_read = self.rows_given = 0

    def taps(self, request: TapRequest, batch: Batch, cache: Cache | None = None, /, **more: object) -> Taps:
        """From the store, or of the backbone and into the store.

        Batches of no data set (`batch.row_ids` is empty: generation, proofs) go by it.
        """
        if not batch.row_ids or cache is not None or more:
            return self.under.taps(request, batch, cache, **more)
        depth = len(self.parts.layers)
        layers = sorted(request.layers | ({depth} if request.final else set()))
        rows = single_rows(batch)
        keys = [row_key(row) for row in rows]
        given = {n: self._given(keys[n], layers, row) for n, row in enumerate(rows) if row.row_ids != (BLANK,)}
        missing = [number for number, taps in given.items() if taps is None]
        if missing:
            # Perhaps another process has read them by now.
            self.store.refresh()
            given |= {n: self._given(keys[n], layers, rows[n]) for n in missing}
            missing = [number for number, taps in given.items() if taps is None]
        if missing:
            given |= dict(zip(missing, self._read(request, batch, missing, layers, keys), strict=True))
        self.rows_read += len(missing)
        self.rows_given += len(given) - len(missing)
        return gathered(request, batch, [given.get(number) for number in range(len(rows))], self.parts)

    def holds(self, row: Batch, request: TapRequest) -> bool:
        """Whether nothing of this row, which is without padding, has to be read of the backbone."""
        return holds(self.store, row, request, len(self.parts.layers), self._codec)

    def _given(self, key: str, layers: list[int], row: Batch) -> Taps | None:
        """A row's taps `[1, tokens, d]` from the store; None if any of them is not there."""
        if not all(self.store.has(key, f"{layer}{part}") for layer in layers for part in self._codec.parts):
            return None
        # Kept only where the first layer does not read the embeddings as they are.
        first = 0 if self.store.has(key, "0") else None
        kept: dict[int, Tensor] = {}
        for layer in layers if first is None else [0, *layers]:
            parts = {part: self.store.get(key, f"{layer}{part}") for part in self._codec.parts}
            if any(tensor is None for tensor in parts.values()):
                return None
            kept[layer] = self._codec.decode(parts, self.dtype)[None]  # type: ignore[arg-type]
        return self._as_taps(kept, row)

    def _as_taps(self, kept: dict[int, Tensor], row: Batch) -> Taps:
        embed = None if 0 in kept else partial(looked_up, self.parts.embeddings, row.input_ids)
        return Taps(kept, kept.get(len(self.parts.layers)), embed)

    def _read(
        self, request: TapRequest, batch: Batch, numbers: list[int], layers: list[int], keys: list[str]
    ) -> list[Taps]:
        """Of the backbone, and into the store."""
        missing = some_rows(batch, numbers)
        taps = self.under.taps(request, missing)
        depth, found = len(self.parts.layers), []
        for at, (row, length) in enumerate(zip(single_rows(missing), row_lengths(missing), strict=True)):
            parts: dict[str, Tensor] = {}
            kept: dict[int, Tensor] = {}
            for layer in layers if taps.embed is not None else sorted({0, *layers}):
                whole = taps.final if layer == depth and request.final else taps.rungs[layer]
                assert whole is not None
                encoded = self._codec.encode(whole[at, :length].cpu())
                parts |= {f"{layer}{part}": tensor for part, tensor in encoded.items()}
                # What is given the first time is what is given ever after.
                kept[layer] = self._codec.decode(encoded, whole.dtype)[None]
            self.store.put(keys[numbers[at]], parts)
            found.append(self._as_taps(kept, row))
        return found

    def cost(self, request: TapRequest) -> TrunkCost:
        """As of the trunk below, of whose layers only `share_read` of the rows take a pass; the head takes them all."""
        below = self.under.cost(request)
        layers = sum(parameter_count(layer, trained=False) for layer in self.parts.layers)
        outside = 2.0 * (below.parameters - layers)
        return replace(below, flops_per_token=outside + self.share_read * (below.flops_per_token - outside))


def holds(store: TapStore, row: Batch, request: TapRequest, depth: int, codec: Codec) -> bool:
    """Whether a store has all that is asked of a row, which is without padding, of a backbone of `depth` layers."""
    layers = request.layers | ({depth} if request.final else set())
    key = row_key(row)
    return all(store.has(key, f"{layer}{part}") for layer in layers for part in codec.parts)


def bytes_per_token(request: TapRequest, depth: int, width: int, dtype: torch.dtype, kept_as: CacheFormat) -> int:
    """Of the cache, for a token of a row."""
    layers = len(request.layers | ({depth} if request.final else set()))
    return layers * CODECS[kept_as].bytes_per_token(width, dtype)
