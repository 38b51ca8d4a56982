"""Predicts the peak memory of a model under several methods, over batch and context (figure 3b)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from ladder_cli.config.choices import Optimizer
from ladder_cli.config.schema import TrainConfig
from ladder_cli.methods.registry import method_for
from ladder_cli.plan.memory import Step, predict_memory


@dataclass(frozen=True)
class MemoryPoint:
    """Peak memory of one training step.

    Attributes:
        method: as the figure calls it.
        rows, tokens: shape of a micro-batch.
        bytes: predicted, on the device.
        parts: of them (`plan.memory`).
    """

    method: str
    rows: int
    tokens: int
    bytes: int
    parts: dict[str, int]


def memory_points(
    configs: dict[str, TrainConfig],
    shapes: Sequence[tuple[int, int]],
    known: Iterable[MemoryPoint] = (),
    progress: Callable[[MemoryPoint], Any] = lambda point: None,
) -> list[MemoryPoint]:
    """Predict every method at every shape, in bfloat16 and with 8-bit AdamW; no weights are read.

    Args:
        configs: by what the figure calls the method.
        shapes: rows and tokens of a micro-batch.
        known: points that are not predicted again.
        progress: is called with each new point.

    Raises:
        UserError: if the model has no shape, or the method does not fit it.
    """
    done = {(point.method, point.rows, point.tokens): point for point in known}
    points = []
    for (name, config), (rows, tokens) in product(configs.items(), shapes):
        point = done.get((name, rows, tokens))
        if point is None:
            step = Step(rows, tokens, 1, Optimizer.ADAMW_8BIT, config.train.loss_chunk)
            found = predict_memory(config.model, method_for(config.method), torch.bfloat16, step)
            point = MemoryPoint(name, rows, tokens, found.total, found.parts)
            progress(point)
        points.append(point)
    return points
