"""The page that is printed before training starts, and the same as data for `plan.json`."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ladder_cli.data.batching import PackedRows
from ladder_cli.data.passes import rows_after
from ladder_cli.data.prepare import PreparedData
from ladder_cli.plan.preflight import Preflight
from ladder_cli.plan.reading import Reading
from ladder_cli.plan.streaming import Transfer


@dataclass(frozen=True)
class Plan:
    """What a run is about to do.

    Attributes:
        data: None where it cannot be had here (a plan made without a network).
        steps: optimizer steps; None where that depends on the data.
        effective_batch: rows of the data per optimizer step over all processes.
        flops_per_token: `paper` and `actual`, see `methods.base.Cost`.
        pass_per_token: of `actual`, the pass over the backbone, which several runs can share; 0 where it is the run's
            own because gradients pass through it.
        transfer: what streaming the backbone's layers costs; None where they stay.
    """

    method: str
    model: str
    quantization: str
    device: str
    dtype: str
    backbone_parameters: int
    trainable_parameters: int
    data_name: str
    data: PreparedData | None
    steps: int | None
    effective_batch: int
    micro_batch: int
    accumulation: int
    learning_rate: float
    flops_per_token: dict[str, int]
    memory: Preflight
    reading: Reading
    pass_per_token: int = 0
    transfer: Transfer | None = None

    @property
    def epochs(self) -> float | None:
        """Passes over the training rows."""
        if self.data is None or self.steps is None:
            return None
        rows = self.data.passed
        return rows_after(self.steps, rows, self.effective_batch) / rows

    def as_dict(self) -> dict[str, Any]:
        """For `plan.json`."""
        rows = (
            {"rows": None, "notes": None, "packed_rows": None, "tokens": None}
            if self.data is None
            else _rows(self.data)
        )
        return {
            **rows,
            "steps": self.steps,
            "epochs": self.epochs,
            "effective_batch": self.effective_batch,
            "backbone_parameters": self.backbone_parameters,
            "trainable_parameters": self.trainable_parameters,
            "flops_per_token": self.flops_per_token,
            "peak_memory_bytes": self.memory.as_dict(),
            "streaming": self.transfer.as_dict() if self.transfer is not None else None,
            "reading": self.reading.as_dict(),
        }

    def print(self, console: Console) -> None:
        """What is frozen, what is trained, on what, for how long."""
        share = 100 * self.trainable_parameters / self.backbone_parameters
        trained = f"{self.method}: {self.trainable_parameters:,} parameters ({share:.2f}% of the backbone)"
        done, paper = self.flops_per_token["actual"], self.flops_per_token["paper"]
        self.print_shared(
            console,
            ("trained", trained),
            *([("steps", self._steps_line())] if self.steps is not None else []),
            ("learning rate", f"{self.learning_rate:g} at its peak"),
            ("FLOPs per token", f"{done:.3g} done, {paper:.3g} by the paper's count"),
        )

    def print_shared(self, console: Console, trained: tuple[str, str], *more: tuple[str, str]) -> None:
        """Backbone, rows and memory, which runs that are trained together share.

        Args:
            trained: label and line of what is trained.
            more: further ones, for the end of the table.
        """
        table = Table(show_header=False, box=None, padding=(0, 2))
        rows = [
            (
                "backbone",
                f"{self.model}: {self.backbone_parameters:,} parameters, frozen, "
                f"quantization {self.quantization}, {self.dtype}, on {self.device}",
            ),
            trained,
            *(
                _row_lines(self.data, self.data_name)
                if self.data is not None
                else [("training rows", f"not known of {self.data_name}: see below")]
            ),
            *self.reading.lines(),
            *more,
            *([("streamed", self.transfer.line())] if self.transfer is not None else []),
        ]
        for label, value in rows:
            table.add_row(Text(label, style="bold"), value)
        console.print(table)
        console.print()
        self.memory.print(console)

    def _steps_line(self) -> str:
        epochs = "" if self.epochs is None else f", {self.epochs:.2f} epochs"
        batch = f"{self.effective_batch} rows ({self.micro_batch} x {self.accumulation} accumulated)"
        return f"{self.steps:,} of {batch}{epochs}"


def _rows(data: PreparedData) -> dict[str, Any]:
    train = data.train
    return {
        "rows": {"train": train.examples, "validation": data.validation.examples},
        "notes": list(data.notes),
        "packed_rows": len(data.train_rows) if isinstance(data.train_rows, PackedRows) else None,
        "tokens": {
            "train": train.tokens,
            "train_counted": train.counted_tokens,
            "longest": train.longest,
            "too_long": train.too_long,
            "dropped": train.dropped,
        },
    }


def _row_lines(data: PreparedData, name: str) -> list[tuple[str, str]]:
    train = data.train
    cut = train.too_long - train.dropped
    pairs = ", two answers each" if train.rows_each > 1 else ""
    lines = [
        (
            "training rows",
            f"{train.examples:,} of {name}{pairs}: {train.tokens:,} tokens, of which {train.counted_tokens:,} count "
            "for the loss",
        ),
        (
            "too long",
            f"{train.too_long:,} rows: {train.dropped:,} dropped, {cut:,} cut (longest {train.longest:,} tokens)",
        ),
        ("validation rows", f"{data.validation.examples:,}"),
    ]
    if isinstance(data.train_rows, PackedRows):
        lines.append(("packed", f"into {len(data.train_rows):,} rows"))
    if data.decontaminated:
        lines.append(("decontaminated", f"{data.decontaminated:,} rows that a benchmark asks left out"))
    lines += [("note", note) for note in data.notes]
    return lines
