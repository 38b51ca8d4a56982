"""Frozen layers on disk, a file each, laid out so that a layer is used where it is mapped.

A file is a header and a body. The header is JSON, padded to whole pages: for each tensor its type, shape and place in
the body, and the SHA-256 of the body; its own SHA-256 stands before it. So every byte of the file is covered. The body
holds the tensors, each at a multiple of 64 bytes, as PyTorch allocates them: a product over them rounds as over others.
"""

import ctypes
import hashlib
import json
import mmap
import os
import secrets
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladder_cli.errors import UserError
from ladder_cli.run.files import sync

_MAGIC = b"LADDERL1"
_PREFIX = len(_MAGIC) + 8 + 32  # magic, length of the header, its SHA-256
_ALIGNED = 64
_PAGE = 4096
_LARGEST_HEADER = 64 * 2**20  # bytes
_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14: read the pages and map them
_PAGEOUT = 21  # MADV_PAGEOUT of Linux 5.4: take pages away; one that is wanted is read again
_EVERY = 0.02  # seconds
# Windows has no such handle; layers are not streamed there.
_LIBC: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
_M_MMAP_THRESHOLD = -3  # of malloc.h
_MAPPED_ALONE = 4 * 2**20  # bytes; smaller ones would take more time in page faults than they save


class DamagedLayer(UserError):
    """A layer file is not as it was written."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        tensors: by name.
        facts: what they mean beyond their bytes: of a quantised weight its true shape and type.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@contextmanager
def few_pages(paths: Iterable[Path]) -> Iterator[None]:
    """Take the mapped pages of files away, again and again, while a library reads those files through mappings.

    Nothing can be lost: a page that is wanted is read again. It does nothing where there is no Linux.
    """
    names, done = {os.path.realpath(path) for path in paths}, threading.Event()

    def take() -> None:
        while not done.wait(_EVERY):
            for start, end in _mappings(names):
                _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _PAGEOUT)

    thread = threading.Thread(target=take, name="few pages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _mappings(names: Collection[str]) -> list[tuple[int, int]]:
    """First and last address of each place where one of these files is mapped."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    parts = [line.split(maxsplit=5) for line in lines]
    ranges = [part[0].split("-") for part in parts if len(part) == 6 and part[5] in names]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def give_freed_blocks_back() -> None:
    """From now on large blocks go back to the system once they are freed; glibc keeps them for later.

    Pass by pass what it keeps adds up to more than the step has in use. It does nothing where the C library is
    another, and where `MALLOC_MMAP_THRESHOLD_` says what is wanted.
    """
    mallopt = getattr(_LIBC, "mallopt", None)
    if mallopt is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_ALONE)


def write_contents(path: Path, contents: Contents) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: where it cannot be written.
    """
    table: dict[str, Any] = {}
    pieces: list[memoryview] = []
    place = 0
    for name, tensor in contents.tensors.items():
        raw = _bytes_of(tensor)
        table[name] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), place]
        filling = -len(raw) % _ALIGNED
        pieces += [raw, memoryview(bytes(filling))]
        place += len(raw) + filling
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    told = {"tensors": table, "facts": dict(contents.facts), "bytes": place, "sha256": digest.hexdigest()}
    header = json.dumps(told).encode()
    header += b" " * (-(_PREFIX + len(header)) % _PAGE)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(_MAGIC + len(header).to_bytes(8, "little") + hashlib.sha256(header).digest() + header)
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    values: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return memoryview(values)


class LayerFile:
    """A file that is mapped into memory. Its pages come when they are read, and go by `release`.

    Attributes:
        path: of the file.
        contents: tensors that lie in the mapping, read-only: whoever writes into one ends the process.
        body: all of them as bytes `[n]`, uint8.
        places: the first byte of each tensor in `body`.
    """

    def __init__(self, path: Path) -> None:
        """Map a file; of its body nothing is read.

        Raises:
            DamagedLayer: if its header is not as it was written, or the body is cut off.
        """
        self.path = path
        told, start = self._map()
        self._digest: str = told["sha256"]
        self._start, self._checked = start, False
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            self.body = torch.frombuffer(self._mapping, dtype=torch.uint8, offset=start, count=told["bytes"])
        self.places = {name: place for name, (_, _, place) in told["tensors"].items()}
        self._table: dict[str, Any] = told["tensors"]
        self.contents = Contents(self.views(self.body), told["facts"])

    def _map(self) -> tuple[dict[str, Any], int]:
        try:
            with self.path.open("rb") as file:
                prefix = file.read(_PREFIX)
                size = int.from_bytes(prefix[len(_MAGIC) : len(_MAGIC) + 8], "little")
                if prefix[: len(_MAGIC)] != _MAGIC or not 0 < size <= _LARGEST_HEADER:
                    raise self._damaged()
                header = file.read(size)
                if hashlib.sha256(header).digest() != prefix[-32:]:
                    raise self._damaged()
                told = json.loads(header)
                if os.fstat(file.fileno()).st_size != _PREFIX + size + told["bytes"]:
                    raise self._damaged()
                self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be read ({error.strerror}): delete it, and it is made anew."
            ) from error
        return told, _PREFIX + size

    def _damaged(self) -> DamagedLayer:
        return DamagedLayer(f"{self.path} is not as it was written: delete it, and it is made anew.")

    def views(self, body: Tensor) -> dict[str, Tensor]:
        """The file's tensors in another copy of its body, `[n]` uint8, on any device."""
        found = {}
        for name, (dtype_name, shape, place) in self._table.items():
            dtype: torch.dtype = getattr(torch, dtype_name)
            count = torch.Size(shape).numel()
            raw = body.narrow(0, place, count * dtype.itemsize)
            found[name] = raw.view(dtype).view(shape)
        return found

    @property
    def layout(self) -> tuple[Any, Any]:
        """What is equal for layers that can lie in the same place, one after the other."""
        return self._table, self.contents.facts

    @property
    def nbytes(self) -> int:
        """Bytes of the body."""
        return self.body.numel()

    def fetch(self) -> None:
        """Bring its pages into memory, and hold them against their checksum the first time; may run in any thread.

        Raises:
            DamagedLayer: if a byte is not as it was written.
        """
        address, size = self.body.data_ptr() - self._start, self._start + self.nbytes
        if _LIBC.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), _POPULATE_READ) != 0:
            self.body[::_PAGE].sum()  # an older kernel: a byte of every page
        if not self._checked:
            view = memoryview(self._mapping)
            try:
                if hashlib.sha256(view[self._start :]).hexdigest() != self._digest:
                    raise self._damaged()
            finally:
                view.release()
            self._checked = True

    def check(self) -> None:
        """Hold the body against its checksum by reading the file, without mapping a page.

        Raises:
            DamagedLayer: if a byte is not as it was written.
        """
        with self.path.open("rb") as file:
            file.seek(self._start)
            if hashlib.file_digest(file, "sha256").hexdigest() != self._digest:
                raise self._damaged()
        self._checked = True

    def release(self, part: Tensor | None = None) -> None:
        """Give its pages back; they stay in the system's cache as long as there is room.

        Args:
            part: one of its tensors, of which alone they are; None: all.
        """
        if part is None:
            self._mapping.madvise(mmap.MADV_DONTNEED)
            return
        first = part.data_ptr() - (self.body.data_ptr() - self._start)
        begin, end = -(-first // _PAGE) * _PAGE, (first + part.nbytes) // _PAGE * _PAGE
        if end > begin:
            self._mapping.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def forget(self) -> None:
        """Give its pages back, and ask the system to drop them from its cache too."""
        self.release()
        with self.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
