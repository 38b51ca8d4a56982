"""What copies layers into a ring of buffers where there is no GPU: late, in a thread and in order, as a stream does."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ladder_cli.trunk.layer_files import LayerFile
from ladder_cli.trunk.streamed import CopiedSource
from ladder_cli.trunk.window import pinned_copies

GARBAGE = 255


class LateCopier:
    """Copies begin after a delay; a buffer that nobody has copied into holds bytes that no layer has.

    A mark of the computation is a number: this computation is done when it was begun.

    Attributes:
        log: what was begun, in order: `("copy", address)` and `("wait", address)`.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1)
        self.log: list[tuple[str, int]] = []
        self.buffers = 0
        self._lock = threading.Lock()

    def buffer(self, size: int) -> Tensor:
        self.buffers += 1
        return torch.full((size,), GARBAGE, dtype=torch.uint8)

    def staging(self, size: int) -> Tensor:
        return torch.full((size,), GARBAGE, dtype=torch.uint8)

    def mark(self) -> int:
        return len(self.log)

    def copy(self, source: Tensor, target: Tensor, after: int | None) -> Future:
        self._note("copy", target)
        return self._thread.submit(self._late, source, target)

    def _late(self, source: Tensor, target: Tensor) -> Tensor:
        time.sleep(self._seconds)
        return target.copy_(source)

    def wait(self, copied: Future) -> None:
        self._note("wait", copied.result())

    def finish(self, copied: Future) -> None:
        copied.result()

    def _note(self, what: str, buffer: Tensor) -> None:
        with self._lock:
            self.log.append((what, buffer.data_ptr()))


def ring_in_memory(files: list[LayerFile], device: torch.device) -> CopiedSource:
    """A source of a streamed trunk, in place of page-locked memory and a GPU."""
    copier = LateCopier(0.001)
    return CopiedSource(files, copier, pinned_copies(files, copier))


def staged_in_memory(files: list[LayerFile], device: torch.device) -> CopiedSource:
    """The same, out of files."""
    return CopiedSource(files, LateCopier(0.001), [])
