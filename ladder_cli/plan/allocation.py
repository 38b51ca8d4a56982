"""Every tensor storage that a passage of code allocates, as it lives and dies, and their highest sum."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BACKBONE = "backbone"  # the frozen forward pass; what outlives it are taps
TAPS = "taps"
LOSS = "loss"  # logits of one chunk, and the gradient that the loss hands back
ACTIVATIONS = "activations"  # everything else of the forward pass
BACKWARD = "backward"  # allocated while gradients are computed


class AllocationCount(TorchDispatchMode):
    """Counts bytes of distinct storages, by part, within a `with` block; on fake tensors nothing is really allocated.

    Views cost nothing, and a storage counts until the last tensor over it is gone.

    Attributes:
        live: bytes by part, now.
        peak: bytes by part at the moment when their sum was highest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.in_backward = False
        self._part = ACTIVATIONS
        self._part_of: dict[int, tuple[str, int]] = {}
        self._highest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it made."""
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf, BACKWARD if self.in_backward else self._part)
        return result

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is allocated within belongs to this part."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def add(self, tensor: Tensor, part: str) -> None:
        """Count a tensor's storage under `part`, if it is not counted yet."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._part_of:
            return
        self._part_of[key] = part, storage.nbytes()
        self.live[part] += storage.nbytes()
        weakref.finalize(storage, self._remove, key)
        self._note_peak()

    def move(self, tensor: Tensor, part: str) -> None:
        """Count a tensor's storage under another part from now on."""
        key = tensor.untyped_storage()._cdata
        before, size = self._part_of[key]
        self._part_of[key] = part, size
        self.live[before] -= size
        self.live[part] += size

    def forget(self, tensor: Tensor) -> int:
        """Stop counting a tensor's storage, which lives elsewhere; returns its bytes."""
        return self.resize(tensor, 0)

    def resize(self, tensor: Tensor, size: int) -> int:
        """Count a tensor's storage as so many bytes, of which the rest lives elsewhere; returns what it had."""
        key = tensor.untyped_storage()._cdata
        part, before = self._part_of[key]
        self._part_of[key] = part, size
        self.live[part] += size - before
        return before

    def grow(self, part: str, size: int) -> None:
        """Count bytes that no tensor stands for, or take them off again."""
        self.live[part] += size
        self._note_peak()

    def reset_peak(self) -> None:
        """Begin the peak from what is live now."""
        self._highest = 0
        self._note_peak()

    def _remove(self, key: int) -> None:
        part, size = self._part_of.pop(key)
        self.live[part] -= size

    def _note_peak(self) -> None:
        total = self.live.total()
        if total > self._highest:
            self._highest = total
            self.peak = Counter(self.live)
            if self._part != BACKBONE:
                # What is left of the backbone's pass once it is over.
                self.peak[TAPS] += self.peak.pop(BACKBONE, 0)
            self.peak = +self.peak  # parts of no size left out
