"""Peak memory of a run: what the GPU's allocator gave out, or the resident set of the process on a CPU."""

import contextlib
from pathlib import Path

import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Measures the peak from its construction on.

    On a GPU: bytes allocated by torch. On a CPU: the highest resident set of this process (Linux), which includes
    the interpreter and its libraries; `baseline` is what was resident at the start.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.baseline = torch.cuda.memory_allocated(device)
        else:
            _reset_resident_peak()
            self.baseline = _status_bytes("VmRSS")

    @property
    def kind(self) -> str:
        """What is measured."""
        return "cuda allocated" if self._device.type == "cuda" else "resident set"

    def measured(self) -> int | None:
        """Peak bytes so far; None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _status_bytes("VmHWM") or None

    def reserved(self) -> int | None:
        """Peak bytes that CUDA's allocator took from the card, used or not; None on a CPU."""
        return torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else None


def _reset_resident_peak() -> None:
    # Not on Linux, or not allowed: the peak then counts from the start of the process.
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")


def _status_bytes(field: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)
