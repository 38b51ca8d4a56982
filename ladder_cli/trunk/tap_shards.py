"""Shards of a tap cache on disk: safetensors files that are written whole or not at all, and checked as they are read.

    <space>/space.json                 what the taps of this folder are of (`TapSpace`)
    <space>/<16 digits>.safetensors    taps of some rows; the name is a digest of the header

A tensor's name is `<row>/<layer>`, where a row is a digest of its tokens. Each tensor's CRC-32 stands in the header,
and the header's digest in the file's name, so that whatever of a shard is not as it was written is noticed, at the
latest when it is read. Shards are never changed: readers lock nothing, and writers give each shard a name of its own.
"""

import hashlib
import json
import mmap
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ladder_cli.run.files import sync

SUFFIX = ".safetensors"
_SUMS = "crc32"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I8": torch.int8}
_LARGEST_HEADER = 100 * 2**20  # bytes, as the safetensors library allows


class DamagedShard(Exception):
    """A shard is not as it was written; the message says what is wrong."""


@dataclass(frozen=True)
class _Entry:
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int
    checksum: int


class Shard:
    """A shard that is mapped into memory; its tensors are views of the file.

    Attributes:
        names: of its tensors.
    """

    def __init__(self, path: Path) -> None:
        """Map it and read its header.

        Raises:
            DamagedShard: if the header is not as it was written, or the file is cut off.
            OSError: if it cannot be read.
        """
        self.path = path
        with path.open("rb") as file:
            # Private and writable: torch asks for memory that it could write to, and nobody does.
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._entries = self._read_header()
        self.names = self._entries.keys()
        self._checked: set[str] = set()

    def _read_header(self) -> dict[str, _Entry]:
        size = int.from_bytes(self._content[:8], "little")
        if not 0 < size <= min(_LARGEST_HEADER, len(self._content) - 8):
            raise DamagedShard("its header has no size that could be")
        text = self._content[8 : 8 + size]
        if _digest(text) != self.path.name.removesuffix(SUFFIX):
            raise DamagedShard("its header is not as it was written")
        header = json.loads(text)
        sums = json.loads(header.pop("__metadata__")[_SUMS])
        entries = {}
        for name, entry in header.items():
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            if end > len(self._content):
                raise DamagedShard("it is cut off")
            entries[name] = _Entry(_DTYPES[entry["dtype"]], tuple(entry["shape"]), start, end, sums[name])
        return entries

    def tensor(self, name: str) -> Tensor:
        """A tensor, over the file's own bytes; not to be written to.

        Raises:
            DamagedShard: if it is not as it was written.
        """
        entry = self._entries[name]
        if name not in self._checked:
            with memoryview(self._content)[entry.start : entry.end] as values:
                if zlib.crc32(values) != entry.checksum:
                    raise DamagedShard(f"{name} is not as it was written")
            self._checked.add(name)
        count = (entry.end - entry.start) // entry.dtype.itemsize
        return torch.frombuffer(self._content, dtype=entry.dtype, count=count, offset=entry.start).view(entry.shape)


def write_shard(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Write tensors (in the host's memory) as a shard of their own.

    Raises:
        OSError, SafetensorError: if the disk is full or cannot be written; then nothing is left behind.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    sums = {name: zlib.crc32(_bytes_of(tensor)) for name, tensor in tensors.items()}
    temporary = folder / f"{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        save_file(tensors, temporary, {_SUMS: json.dumps(sums)})
        with temporary.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            name = _digest(file.read(size))
        sync(temporary)
        os.replace(temporary, folder / f"{name}{SUFFIX}")
    except (OSError, SafetensorError):
        temporary.unlink(missing_ok=True)
        raise
    sync(folder)
    return folder / f"{name}{SUFFIX}"


def _bytes_of(tensor: Tensor) -> memoryview:
    values: Any = tensor.view(torch.uint8).numpy()
    return memoryview(values.reshape(-1))


def _digest(header: bytes) -> str:
    return hashlib.sha256(header).hexdigest()[:16]
