"""The page that is printed before training starts, and the same as data for `plan.json`."""

import math
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ladder_cli.data.batching import PackedRows
from ladder_cli.data.prepare import PreparedData


@dataclass(frozen=True)
class Plan:
    """What a run is about to do.

    Attributes:
        steps: optimizer steps.
        effective_batch: rows per optimizer step over all processes.
        flops_per_token: `paper` and `actual`, see `analysis.flops`.
    """

    method: str
    model: str
    quantization: str
    device: str
    dtype: str
    backbone_parameters: int
    trainable_parameters: int
    data: PreparedData
    steps: int
    effective_batch: int
    micro_batch: int
    accumulation: int
    learning_rate: float
    flops_per_token: dict[str, int]

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        return self.steps * self.effective_batch / len(self.data.train_rows)

    def as_dict(self) -> dict[str, Any]:
        """For `plan.json`; memory is not predicted yet, and says so by null."""
        train = self.data.train
        return {
            "rows": {"train": len(train), "validation": len(self.data.validation)},
            "packed_rows": len(self.data.train_rows) if isinstance(self.data.train_rows, PackedRows) else None,
            "tokens": {
                "train": train.tokens,
                "train_counted": train.counted_tokens,
                "longest": train.longest,
                "too_long": train.too_long,
                "dropped": train.dropped,
            },
            "steps": self.steps,
            "epochs": self.epochs,
            "effective_batch": self.effective_batch,
            "backbone_parameters": self.backbone_parameters,
            "trainable_parameters": self.trainable_parameters,
            "flops_per_token": self.flops_per_token,
            "peak_memory_bytes": {"predicted": None},
        }

    def print(self, console: Console) -> None:
        """What is frozen, what is trained, on what, for how long."""
        train = self.data.train
        share = 100 * self.trainable_parameters / self.backbone_parameters
        cut = train.too_long - train.dropped
        table = Table(show_header=False, box=None, padding=(0, 2))
        rows = [
            (
                "backbone",
                f"{self.model}: {self.backbone_parameters:,} parameters, frozen, "
                f"quantization {self.quantization}, {self.dtype}, on {self.device}",
            ),
            ("trained", f"{self.method}: {self.trainable_parameters:,} parameters ({share:.2f}% of the backbone)"),
            (
                "training rows",
                f"{len(train):,} with {train.tokens:,} tokens, of which {train.counted_tokens:,} count for the loss",
            ),
            (
                "too long",
                f"{train.too_long:,} rows: {train.dropped:,} dropped, {cut:,} cut (longest {train.longest:,} tokens)",
            ),
            ("validation rows", f"{len(self.data.validation):,}"),
            (
                "steps",
                f"{self.steps:,} of {self.effective_batch} rows ({self.micro_batch} x {self.accumulation} "
                f"accumulated), {self.epochs:.2f} epochs",
            ),
            ("learning rate", f"{self.learning_rate:g} at its peak"),
            (
                "FLOPs per token",
                f"{self.flops_per_token['actual']:.3g} done, {self.flops_per_token['paper']:.3g} by the paper's count",
            ),
        ]
        if isinstance(self.data.train_rows, PackedRows):
            rows.insert(4, ("packed", f"into {len(self.data.train_rows):,} rows"))
        if self.data.decontaminated:
            rows.insert(4, ("decontaminated", f"{self.data.decontaminated:,} rows that a benchmark asks left out"))
        for label, value in rows:
            table.add_row(Text(label, style="bold"), value)
        console.print(table)


def steps_for(rows: int, effective_batch: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps: `max_steps` if given, else what the epochs need (the last batch may be smaller)."""
    return max_steps or max(1, math.ceil(rows / effective_batch * epochs))
