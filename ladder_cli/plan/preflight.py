"""Whether a training step fits the device's memory, told before any weight is read, and what would make it fit."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console

from ladder_cli.config.choices import EngineKind, Init, Optimizer, Quantization, Residency
from ladder_cli.config.methods import MethodConfig
from ladder_cli.config.schema import HardwareConfig, ModelConfig, TrainConfig
from ladder_cli.data.formats import rows_each
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.plan.memory import MemoryPrediction, Step, predict_memory
from ladder_cli.plan.reading import settled_passes
from ladder_cli.plan.sampling import ENGINE, engine_bytes
from ladder_cli.ranks import processes
from ladder_cli.trunk.loading import planned_dtype

# CUDA's context, the libraries' workspaces and what the allocator loses to fragments: an allowance, not a measurement.
CUDA_ALLOWANCE = 600_000_000
_BAR = 40
_SMALL_CHUNK = 128


@dataclass(frozen=True)
class Preflight:
    """The peak of a step against the memory there is.

    Attributes:
        prediction: bytes of tensors at the peak, by part.
        step: the step that was predicted.
        capacity: bytes of the device; None where nobody says.
        remedies: settings in rising order of what they cost, with the peak that each and those before it lead to,
            up to the first that fits; empty if nothing has to be done.
    """

    prediction: MemoryPrediction
    step: Step
    capacity: int | None
    allowance: int
    remedies: tuple[tuple[str, int], ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the peak and the allowance stay within the capacity; true where that is unknown."""
        return _fits(self.prediction.total, self.capacity, self.allowance)

    def as_dict(self) -> dict[str, Any]:
        """For `plan.json` and `metrics.json`, bytes throughout."""
        return {
            "predicted": self.prediction.total,
            "parts": self.prediction.parts,
            "host": self.prediction.host,
            "moved": self.prediction.moved,
            "capacity": self.capacity,
            "allowance": self.allowance,
            "fits": self.fits,
        }

    def print(self, console: Console) -> None:
        """The peak, its parts, and what would help."""
        room = f" of {_size(self.capacity)}" if self.capacity is not None else ""
        shared = f", layers shared by {self.step.shards} processes" if self.step.shards > 1 else ""
        if self.step.residency is not Residency.RESIDENT:
            shared = f", {self.step.window} streamed layers at a time"
        console.print(
            f"memory of one step ({self.step.rows} x {self.step.tokens:,} tokens, {self.step.optimizer}{shared}): "
            f"{_size(self.prediction.total)} at its peak{room}",
            style="bold",
        )
        most = max(self.prediction.parts.values())
        for part, size in sorted(self.prediction.parts.items(), key=lambda item: -item[1]):
            if size:
                bar = "█" * round(_BAR * size / most)
                console.print(f"  {part:<12} {_size(size):>10}  {bar}", highlight=False)
        if self.prediction.moved:
            console.print(f"  moved to the device in every pass: {_size(self.prediction.moved)}", highlight=False)
        if self.prediction.host:
            console.print(f"  in the host's memory: {_size(self.prediction.host)}", highlight=False)
        if not self.fits:
            console.print(
                f"  [bold red]does not fit[/] with {_size(self.allowance)} for the device's own libraries", markup=True
            )
            for setting, total in self.remedies:
                console.print(f"  {setting:<60} {_size(total):>10}", highlight=False, markup=False)
        console.print()

    def refuse(self) -> None:
        """Stop a run that cannot fit.

        Raises:
            UserError: with the settings to change.
        """
        if self.fits:
            return
        last = self.remedies[-1][1] if self.remedies else self.prediction.total
        # Of two values for one option the later one counts.
        words = dict(word.split("=", 1) for setting, _ in self.remedies for word in setting.split())
        settings = " ".join(f"{option}={value}" for option, value in words.items())
        enough = _fits(last, self.capacity, self.allowance)
        advice = (
            f"it would fit with {settings}"
            if enough
            else f"the smallest that was tried is {_size(last)} ({settings or 'no setting helps'})"
        )
        raise UserError(
            f"a step needs {_size(self.prediction.total)} and {_size(self.allowance)} for the device's libraries, and "
            f"there are {_size(self.capacity or 0)}: {advice}. preflight=warn starts all the same."
        )


def preflight(
    config: TrainConfig,
    device: torch.device,
    longest: int | None = None,
    cached: int = 0,
    absent: int = 0,
    residency: Residency = Residency.RESIDENT,
    remedies: bool = True,
) -> Preflight:
    """Predict the peak of a training step on `device`.

    Args:
        config: the run.
        device: where it will run; need not be there.
        longest: tokens of the longest row, if the data is known; else `data.max_length` stands in.
        cached: bytes of taps that lie in the host's memory beside it.
        absent: layers that are not loaded, from the first on; what is loaded is then resident.
        residency: where the backbone's layers will be; never `auto`.
        remedies: look for settings that would make it fit.

    Raises:
        UserError: if the backbone's shape cannot be read.
    """
    residency = Residency.RESIDENT if absent else residency
    step = replace(_step(config, device, longest, residency), cached=cached, absent=absent)
    model, method, dtype = config.model, config.method, planned_dtype(config.model, device)
    capacity = memory_of(config.hardware, device)
    engine = engine_bytes(config, device, capacity, dtype)
    prediction = _beside(predict_memory(model, method_for(method), dtype, step), engine)
    allowance = CUDA_ALLOWANCE if device.type == "cuda" else 0
    tried = []
    if remedies and not _fits(prediction.total, capacity, allowance):
        for setting, smaller, leaner, changed in _remedies(model, method, step):
            total = predict_memory(smaller, method_for(leaner), dtype, changed).total + engine
            tried.append((setting, total))
            if _fits(total, capacity, allowance):
                break
    return Preflight(prediction, step, capacity, allowance, tuple(tried))


def leaner_settings(config: TrainConfig, device: torch.device, residency: Residency = Residency.RESIDENT) -> list[str]:
    """Settings that take less memory than those of a run, the cheapest first."""
    step = _step(config, device, residency=residency)
    return [setting for setting, *_ in _remedies(config.model, config.method, step)]


def _step(
    config: TrainConfig, device: torch.device, longest: int | None = None, residency: Residency = Residency.RESIDENT
) -> Step:
    each, sampled = rows_each(config.data), config.objective.max_new_tokens if config.objective.samples else 0
    return Step(
        rows=config.train.micro_batch_size * each,
        tokens=(config.data.max_length if longest is None else min(longest, config.data.max_length)) + sampled,
        accumulation=config.train.accumulation(processes()),
        optimizer=config.train.optimizer.on(device.type),
        loss_chunk=config.train.loss_chunk,
        shards=processes() if config.hardware.shard_backbone else 1,
        residency=residency,
        window=config.trunk.window,
        passes=settled_passes(config.trunk, device.type, config.hardware.shard_backbone),
        on_host=device.type == "cpu",
        objective=config.objective,
        rows_each=each,
        sampled=_sampled_at_a_time(config),
    )


def _beside(prediction: MemoryPrediction, engine: int) -> MemoryPrediction:
    """With what another process takes on the device all the while."""
    return replace(prediction, parts=prediction.parts | {ENGINE: engine}) if engine else prediction


def _sampled_at_a_time(config: TrainConfig) -> int:
    """Completions that the model itself generates at a time."""
    if not config.objective.samples or config.objective.engine is not EngineKind.TRANSFORMERS:
        return 0
    step = config.train.micro_batch_size * config.train.accumulation(processes())
    return min(step, config.objective.sample_batch or step)


def memory_of(hardware: HardwareConfig, device: torch.device) -> int | None:
    """Bytes of the device: what the config says, else what the device says."""
    if hardware.memory_gb is not None:
        return int(hardware.memory_gb * 1e9)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] if torch.cuda.is_available() else None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _remedies(
    model: ModelConfig, method: MethodConfig, step: Step
) -> Iterator[tuple[str, ModelConfig, MethodConfig, Step]]:
    """Changes in rising order of their cost in time and exactness, each on top of those before it."""
    if step.rows > step.rows_each:
        accumulation = step.accumulation * step.rows // step.rows_each
        step = replace(step, rows=step.rows_each, accumulation=accumulation)
        yield f"train.micro_batch_size=1 train.gradient_accumulation={step.accumulation}", model, method, step
    if step.sampled > 1:
        step = replace(step, sampled=max(1, step.sampled // 8))
        yield f"objective.sample_batch={step.sampled}", model, method, step
    if step.loss_chunk > _SMALL_CHUNK:
        step = replace(step, loss_chunk=_SMALL_CHUNK)
        yield f"train.loss_chunk={_SMALL_CHUNK}", model, method, step
    if step.optimizer in (Optimizer.ADAMW, Optimizer.MUON):
        step = replace(step, optimizer=Optimizer.ADAMW_8BIT)
        yield "train.optimizer=adamw_8bit", model, method, step
    for setting, cheaper in method_for(method).cheaper():
        method = cheaper.config
        yield setting, model, method, step
    if processes() > step.shards == 1:
        step = replace(step, shards=processes())
        yield "hardware.shard_backbone=true", model, method, step
    if model.head_quantization is Quantization.NONE or not model.embeddings_on_cpu:
        model = replace(model, head_quantization=Quantization.NF4, embeddings_on_cpu=True)
        yield "model.head_quantization=nf4 model.embeddings_on_cpu=true", model, method, step
    if model.quantization is not Quantization.NF4:
        model = replace(model, quantization=Quantization.NF4)
        yield "model.quantization=nf4", model, method, step
    if step.residency is Residency.RESIDENT and streamable(method) and not step.objective.samples:
        whole = " hardware.shard_backbone=false" if step.shards > 1 else ""
        step = replace(step, residency=Residency.DISK, shards=1)
        yield f"trunk.residency=disk{whole}", model, method, step
    if step.objective.samples and (new := step.objective.max_new_tokens // 2):
        shorter = replace(step.objective, max_new_tokens=new)
        step = replace(step, tokens=step.tokens - step.objective.max_new_tokens + new, objective=shorter)
        yield f"objective.max_new_tokens={new}", model, method, step
    elif step.tokens > 1:
        step = replace(step, tokens=step.tokens // 2)
        yield f"data.max_length={step.tokens}", model, method, step


def streamable(method: MethodConfig) -> bool:
    """Whether layers that do not learn are only read, in training and for first weights."""
    return method.reads_taps and getattr(method, "init", None) is not Init.PRUNED_FISHER


def _fits(total: int, capacity: int | None, allowance: int) -> bool:
    return capacity is None or total + allowance <= capacity


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**29 else f"{size / 2**20:.1f} MiB"
