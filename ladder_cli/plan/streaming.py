"""What streaming a backbone's layers costs, before a weight is read: bytes, seconds, and where the layers should be."""

import os
import time
from dataclasses import dataclass
from typing import Any

import torch

from ladder_cli.config.choices import Residency
from ladder_cli.config.schema import HardwareConfig, TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.plan.preflight import preflight, streamable
from ladder_cli.ranks import processes_here

_SECONDS = 0.3  # that a measurement takes, each
_COPY_BYTES = {"cpu": 2**26, "cuda": 2**28}
_MATRIX = {"cpu": 1024, "cuda": 8192}
_PINNED_SHARE = 0.8  # of the host's free memory, that layers may be locked in


@dataclass(frozen=True)
class Speeds:
    """Of a machine.

    Attributes:
        flops: that matrix products reach, in a second.
        bytes: of layers that reach the device, in a second.
    """

    flops: float
    bytes: float


@dataclass(frozen=True)
class Transfer:
    """What a streamed step moves, and what that costs.

    Attributes:
        residency: where the layers are.
        moved_bytes: in every pass over the backbone.
        passes: of an optimizer step, in each process.
        tokens: of a pass.
        pass_flops: per token, of the backbone's forward pass.
        step_flops: per token, of all that a step does.
        speeds: None where nobody has measured or said them.
    """

    residency: Residency
    moved_bytes: int
    passes: int
    tokens: int
    pass_flops: float
    step_flops: float
    speeds: Speeds | None

    @property
    def hidden_from(self) -> int | None:
        """Tokens of a pass from which on moving hides behind computing."""
        if self.speeds is None or not self.pass_flops:
            return None
        return round(self.moved_bytes / self.speeds.bytes * self.speeds.flops / self.pass_flops)

    def _seconds(self, streamed: bool) -> float | None:
        if self.speeds is None:
            return None
        computing = self.tokens * self.pass_flops / self.speeds.flops
        rest = self.tokens * (self.step_flops - self.pass_flops) / self.speeds.flops
        return max(computing, self.moved_bytes / self.speeds.bytes if streamed else 0.0) + rest

    @property
    def tokens_per_second(self) -> float | None:
        """Predicted, streamed."""
        seconds = self._seconds(streamed=True)
        return self.tokens / seconds if seconds else None

    @property
    def share_of_resident(self) -> float | None:
        """Of the speed that resident layers would have."""
        streamed, resident = self._seconds(streamed=True), self._seconds(streamed=False)
        return resident / streamed if streamed and resident is not None else None

    def as_dict(self) -> dict[str, Any]:
        """For `plan.json`."""
        return {
            "residency": self.residency.value,
            "moved_bytes_per_pass": self.moved_bytes,
            "passes_per_step": self.passes,
            "moved_bytes_per_step": self.moved_bytes * self.passes,
            "hidden_from_tokens": self.hidden_from,
            "tokens_per_second": self.tokens_per_second,
            "share_of_resident_speed": self.share_of_resident,
            "flops_per_second": self.speeds.flops if self.speeds else None,
            "bytes_per_second": self.speeds.bytes if self.speeds else None,
        }

    def line(self) -> str:
        """For the page."""
        per_step = f" x {self.passes} a step" if self.passes > 1 else ""
        moved = f"{self.moved_bytes / 1e9:.1f} GB a pass{per_step} from {_PLACES[self.residency]}"
        if self.speeds is None or self.tokens_per_second is None or self.share_of_resident is None:
            return f"{moved}; give hardware.tflops and hardware.host_gb_s for a prediction of its speed"
        return (
            f"{moved} at {self.speeds.bytes / 1e9:.1f} GB/s; about {self.tokens_per_second:,.0f} tokens/s at "
            f"{self.speeds.flops / 1e12:.3g} TFLOP/s, {self.share_of_resident:.0%} of resident; hidden from "
            f"{self.hidden_from:,} tokens a pass on (here {self.tokens:,})"
        )


_PLACES = {Residency.HOST: "the host's memory", Residency.DISK: "files"}


def speeds_of(hardware: HardwareConfig, device: torch.device, residency: Residency) -> Speeds | None:
    """Of the machine: what the config says, else measured in under a second; None where the device is not here."""
    here = device.type == "cpu" or torch.cuda.is_available()
    flops = hardware.tflops * 1e12 if hardware.tflops else (_measured_flops(device) if here else None)
    host = hardware.host_gb_s * 1e9 if hardware.host_gb_s else (_measured_copies(device) if here else None)
    reading = hardware.disk_gb_s * 1e9 if hardware.disk_gb_s and residency is Residency.DISK else None
    known = [speed for speed in (host, reading) if speed is not None]
    return Speeds(flops, min(known)) if flops and known else None


def _measured_flops(device: torch.device) -> float:
    size = _MATRIX[device.type]
    one = torch.ones(size, size, dtype=torch.bfloat16, device=device)
    return 2.0 * size**3 * _per_second(lambda: one @ one, device)


def _measured_copies(device: torch.device) -> float:
    """From the host's memory to the device; on a CPU, reading memory once."""
    source = torch.ones(_COPY_BYTES[device.type], dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty_like(source, device=device)
    return source.nbytes * _per_second(lambda: target.copy_(source, non_blocking=True), device)


def _per_second(work: Any, device: torch.device) -> float:
    """How often in a second something can be done."""
    _settled(work, device)
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        _settled(work, device)
        times += 1
    return times / (time.perf_counter() - began)


def _settled(work: Any, device: torch.device) -> None:
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def settled_residency(config: TrainConfig, device: torch.device) -> Residency:
    """Where the layers will be: what the config says, or for `auto` the first of resident, host and disk that fits.

    Raises:
        UserError: if layers are to be streamed that gradients pass through.
    """
    chosen, streams = config.trunk.residency, streamable(config.method)
    if chosen is Residency.AUTO:
        resident = preflight(config, device, residency=Residency.RESIDENT, remedies=False)
        if resident.fits or not streams:
            return Residency.RESIDENT
        if device.type == "cpu":
            return Residency.DISK
        host = preflight(config, device, residency=Residency.HOST, remedies=False)
        # Each process of a machine locks a copy; of files they share the pages.
        locked = host.prediction.host * processes_here()
        return Residency.HOST if locked <= _PINNED_SHARE * _free_host_memory() else Residency.DISK
    if chosen is not Residency.RESIDENT and not streams:
        raise UserError(
            f"method={config.method.name} sends gradients through the whole backbone (to train, or once for its first "
            f"weights), and trunk.residency={chosen} streams it: use trunk.residency=resident, or a method that only "
            "reads (ladder, xladder, branch, suffix; method.init other than pruned_fisher)."
        )
    if chosen is Residency.HOST and device.type == "cpu":
        raise UserError(
            "trunk.residency=host is for GPUs: a CPU computes in the host's memory. Use trunk.residency=resident or "
            "disk."
        )
    return chosen


def _free_host_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
