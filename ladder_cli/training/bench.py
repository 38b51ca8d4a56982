"""Step time and memory of methods against each other: one process each, steps interleaved, medians.

`compare` starts a worker per method and lets them take one training step after the other in turn, so that whatever
else the machine does falls on all of them alike.
"""

import contextlib
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from ladder_cli.analysis.backward_memory import saved_activation_bytes
from ladder_cli.config import MethodConfig, ModelConfig
from ladder_cli.models.backbone import load_backbone, parameter_count
from ladder_cli.models.method import method_for
from ladder_cli.training.memory import PeakMemory

WARM_UP_STEPS = 2
REPEATS = 7


@dataclass(frozen=True)
class Shape:
    """Rows and tokens of every batch; the second half of each row counts for the loss."""

    rows: int
    tokens: int


def compare(
    model: ModelConfig, methods: dict[str, MethodConfig], shape: Shape, reference: str, device: str = "cpu"
) -> dict[str, dict[str, Any]]:
    """Measure all methods on the same model and batches.

    Args:
        model: the backbone.
        methods: by the name they are reported under.
        shape: of the batches, whose tokens are random.
        reference: the method that the others are reported as a ratio to.
        device: `cpu` or `cuda`.

    Returns:
        For each method: `step_seconds` (median), `tokens_per_second`, `peak_memory_bytes`, `saved_activation_bytes`
        (kept between forward and backward), `trainable_parameters`, and `ratio_to_<reference>` of the step time.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    try:
        for name, method in methods.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, model, method, shape, device), daemon=True)
            process.start()
            theirs.close()
            ours.recv()  # one after the other, so that loading does not disturb anybody's warm-up
            workers[name] = (process, ours)
        seconds: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(REPEATS):
            for name, (_, pipe) in workers.items():
                pipe.send("step")
                seconds[name].append(pipe.recv())
        results = {}
        for name, (_, pipe) in workers.items():
            pipe.send("report")
            results[name] = _report(pipe.recv(), seconds[name], shape)
    finally:
        for process, _ in workers.values():
            process.kill()
            process.join()
    for result in results.values():
        result[f"ratio_to_{reference}"] = result["step_seconds"] / results[reference]["step_seconds"]
    return results


def _report(measured: dict[str, Any], seconds: list[float], shape: Shape) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "step_seconds": median,
        "all_step_seconds": seconds,
        "tokens_per_second": shape.rows * shape.tokens / median,
        **measured,
    }


def _work(pipe: Connection, model: ModelConfig, method: MethodConfig, shape: Shape, device: str) -> None:
    torch.manual_seed(0)
    target = torch.device(device)
    memory = PeakMemory(target)
    backbone = load_backbone(model, target)
    trained = method_for(method).attach(backbone, model)
    trained.train()
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    ids = torch.randint(10, backbone.config.vocab_size - 10, (shape.rows, shape.tokens), device=target)
    labels = ids.clone()
    labels[:, : shape.tokens // 2] = -100

    def step() -> float:
        _synchronize(target)
        started = time.perf_counter()
        trained(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        _synchronize(target)
        return time.perf_counter() - started

    for _ in range(WARM_UP_STEPS):
        step()
    saved = saved_activation_bytes(trained, ids, labels)
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while pipe.recv() == "step":
            pipe.send(step())
        pipe.send(
            {
                "peak_memory_bytes": memory.measured(),
                "saved_activation_bytes": saved,
                "trainable_parameters": parameter_count(trained, trained=True),
            }
        )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
