"""Step time and memory of methods against each other: one process each, steps interleaved, medians.

`compare` starts a worker per method and lets them take one training step after the other in turn, so that whatever
else the machine does falls on all of them alike.
"""

import contextlib
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import bitsandbytes
import torch
from torch import nn

from ladder_cli.bench.counts import FlopCount, saved_activation_bytes
from ladder_cli.bench.overlap import transfer_overlap
from ladder_cli.config.choices import Optimizer, Quantization, Residency
from ladder_cli.config.methods import MethodConfig
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.methods.registry import method_for
from ladder_cli.nn.loss import DEFAULT_CHUNK
from ladder_cli.plan.measured import PeakMemory
from ladder_cli.plan.memory import Step, predict_memory
from ladder_cli.streams import quiet_libraries
from ladder_cli.trunk.compilation import compile_layers
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone, parameter_count, planned_dtype
from ladder_cli.trunk.random_weights import random_streamed, random_weights
from ladder_cli.trunk.streamed import StreamedTrunk

WARM_UP_STEPS = 2
REPEATS = 5
_WINDOW = 2  # streamed layers that are there at a time
_READY = "ready"
# glibc keeps freed blocks for later, and the resident set with them; blocks that are mapped one by one go back at
# once, so that the peak is what was in use.
_MEASURABLE = {"MALLOC_MMAP_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Shape:
    """Rows and tokens of every batch; the second half of each row counts for the loss."""

    rows: int
    tokens: int


def compare(
    model: ModelConfig,
    methods: dict[str, MethodConfig],
    shape: Shape,
    reference: str,
    device: str = "cpu",
    random: bool = False,
    cap_gb: float | None = None,
    compiled: Collection[str] = (),
    streamed: Mapping[str, Residency] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure all methods on the same model and batches.

    Args:
        model: the backbone.
        methods: by the name they are reported under.
        shape: of the batches, whose tokens are random.
        reference: the method that the others are reported as a ratio to.
        device: `cpu` or `cuda`.
        random: random weights of the model's published shape, in place of its own.
        cap_gb: memory that CUDA may give to each method, 10^9 bytes.
        compiled: names of methods whose layers go through `torch.compile`.
        streamed: where the layers of some of them are while they do not compute; random weights alone.

    Returns:
        For each method either `error` (it does not fit under the cap, or cannot be compiled), or: `step_seconds`
        (median), `backbone_seconds` (median of the frozen backbone's forward pass alone, embeddings to last layer),
        `tokens_per_second`, `peak_memory_bytes` (of tensors: above what the process held before the model was
        loaded), `predicted_memory_bytes`, `saved_activation_bytes` (kept between forward and backward; None if
        compiled), `trainable_parameters`, `step_flops` and `backbone_flops` (None if compiled or quantised), and as
        ratios (of streamed layers `transfer_seconds` too: a pass that moves them and computes nothing; and on a GPU
        `transfer_overlap`, the share of a step's copying during which it computes, out of a profile)
        `ratio_to_<reference>` of the step time and `flops_ratio_to_<reference>`.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    results: dict[str, dict[str, Any]] = {}
    os.environ.update(_MEASURABLE)
    residencies = streamed or {}
    try:
        for name, method in methods.items():
            ours, theirs = context.Pipe()
            job = _Job(
                model,
                method,
                shape,
                device,
                random,
                cap_gb,
                name in compiled,
                residencies.get(name, Residency.RESIDENT),
            )
            process = context.Process(target=_work, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            # One after the other, so that loading does not disturb anybody's warm-up.
            try:
                ready = ours.recv()
            except EOFError:
                ready = "its process has died"
            if ready == _READY:
                workers[name] = (process, ours)
            else:
                results[name] = {"error": ready}
                process.join()
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
        for _ in range(REPEATS):
            for name, (_, pipe) in workers.items():
                pipe.send("step")
                seconds[name].append(pipe.recv())
        for name, (_, pipe) in workers.items():
            pipe.send("report")
            results[name] = _report(pipe.recv(), seconds[name], shape)
    finally:
        for process, _ in workers.values():
            process.kill()
            process.join()
    for result in results.values():
        if "step_seconds" in result:
            for figure, name in (("step_seconds", "ratio_to_"), ("step_flops", "flops_ratio_to_")):
                mine, base = result[figure], results[reference].get(figure)
                result[name + reference] = mine / base if mine and base else None
    return {name: results[name] for name in methods}


def _report(measured: dict[str, Any], seconds: list[tuple[float, float]], shape: Shape) -> dict[str, Any]:
    steps, backbone = ([pair[k] for pair in seconds] for k in (0, 1))
    median = statistics.median(steps)
    return {
        "step_seconds": median,
        "all_step_seconds": steps,
        "backbone_seconds": statistics.median(backbone),
        "tokens_per_second": shape.rows * shape.tokens / median,
        **measured,
    }


@dataclass(frozen=True)
class _Job:
    model: ModelConfig
    method: MethodConfig
    shape: Shape
    device: str
    random: bool
    cap_gb: float | None
    compiled: bool
    residency: Residency = Residency.RESIDENT


def _work(pipe: Connection, job: _Job) -> None:
    quiet_libraries(downloads=job.model.path is None)
    device = torch.device(job.device)
    if job.cap_gb is not None:
        total = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(job.cap_gb * 1e9 / total, device)
    optimizer_name = Optimizer.ADAMW if device.type == "cpu" else Optimizer.ADAMW_8BIT
    predicted: int | None = None
    try:
        step = Step(job.shape.rows, job.shape.tokens, 1, optimizer_name, DEFAULT_CHUNK, residency=job.residency)
        predicted = predict_memory(job.model, method_for(job.method), planned_dtype(job.model, device), step).total
        gc.collect()
        memory = PeakMemory(device)
        torch.manual_seed(0)
        measured = _Measured(job, device, optimizer_name)
        for _ in range(WARM_UP_STEPS):
            measured.step()
    except torch.OutOfMemoryError:
        told = f" (predicted {predicted / 1e9:.2f} GB)" if predicted is not None else ""
        pipe.send(f"out of memory under {job.cap_gb} GB{told}")
        return
    except UserError as error:
        pipe.send(str(error))
        return
    peak = (memory.measured() or 0) - memory.baseline
    # A compiled layer cannot be looked into.
    countable = not job.compiled
    saved = measured.saved_bytes() if countable else None
    flops = measured.flops() if countable and job.model.quantization is Quantization.NONE else (None, None)
    pipe.send(_READY)
    with contextlib.suppress(EOFError):
        while pipe.recv() == "step":
            pipe.send((measured.step(), measured.backbone_forward()))
        pipe.send(
            {
                "peak_memory_bytes": peak,
                "predicted_memory_bytes": predicted,
                "saved_activation_bytes": saved,
                "trainable_parameters": parameter_count(measured.model, trained=True),
                "step_flops": flops[0],
                "backbone_flops": flops[1],
                "transfer_seconds": measured.transfer_seconds(),
                "transfer_overlap": measured.transfer_overlap(),
            }
        )


# What is measured: the one on a CPU, the other on a GPU.
_OPTIMIZERS: dict[Optimizer, Any] = {
    Optimizer.ADAMW: torch.optim.AdamW,
    Optimizer.ADAMW_8BIT: bitsandbytes.optim.AdamW8bit,
}


class _Measured:
    """A model, an optimizer and one batch: random tokens, of which the second half of each row counts."""

    def __init__(self, job: _Job, device: torch.device, optimizer: Optimizer) -> None:
        load = random_weights if job.random else load_backbone
        self._device = device
        self._trunk: LiveTrunk
        if job.residency is Residency.RESIDENT:
            self._trunk = LiveTrunk(load(job.model, device))
        else:
            self._trunk = random_streamed(job.model, device, job.residency, _WINDOW)
        self._backbone = self._trunk.whole()
        self.model: nn.Module = method_for(job.method).attach(self._trunk).train()
        if job.compiled:
            compile_layers(self.model, device)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._optimizer = _OPTIMIZERS[optimizer](trained, lr=1e-4)
        vocabulary = self._backbone.config.vocab_size
        self._ids = torch.randint(10, vocabulary - 10, (job.shape.rows, job.shape.tokens), device=device)
        self._labels = self._ids.clone()
        self._labels[:, : job.shape.tokens // 2] = -100

    def step(self) -> float:
        """One optimizer step; seconds."""
        _synchronize(self._device)
        started = time.perf_counter()
        self.model(input_ids=self._ids, labels=self._labels).loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        _synchronize(self._device)
        return time.perf_counter() - started

    def backbone_forward(self) -> float:
        """The decoder stack alone, without gradients; seconds."""
        _synchronize(self._device)
        started = time.perf_counter()
        with torch.no_grad():
            self._backbone.get_decoder()(input_ids=self._ids, use_cache=False)
        _synchronize(self._device)
        return time.perf_counter() - started

    def transfer_seconds(self) -> float | None:
        """A pass that moves all streamed layers and computes nothing; None where none is streamed."""
        if not isinstance(self._trunk, StreamedTrunk):
            return None
        _synchronize(self._device)
        started = time.perf_counter()
        for number in sorted(self._trunk.streamed):
            self._trunk.window.arrive(number)
            self._trunk.window.leave(number)
        _synchronize(self._device)
        return time.perf_counter() - started

    def transfer_overlap(self) -> float | None:
        """See `overlap.transfer_overlap`; None where no layer is streamed to a GPU."""
        return transfer_overlap(self.step, self._device) if isinstance(self._trunk, StreamedTrunk) else None

    def flops(self) -> tuple[int, int]:
        """FLOPs of a step, and of the backbone's forward pass alone."""
        with FlopCount() as step:
            self.step()
        with FlopCount() as backbone:
            self.backbone_forward()
        return step.total, backbone.total

    def saved_bytes(self) -> int:
        """Kept between forward and backward."""
        return saved_activation_bytes(self.model, self._ids, self._labels)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
