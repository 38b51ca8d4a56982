"""The page that is printed before training starts, and the same as data for `plan.json`."""

import math
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from ladder_cli.data.batching import IGNORED_LABEL, EncodedSet


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
    train: EncodedSet
    validation: EncodedSet
    steps: int
    effective_batch: int
    micro_batch: int
    accumulation: int
    learning_rate: float
    flops_per_token: dict[str, int]

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        return self.steps * self.effective_batch / len(self.train.rows)

    def as_dict(self) -> dict[str, Any]:
        """For `plan.json`; memory is not predicted yet, and says so by null."""
        return {
            "rows": {"train": len(self.train.rows), "validation": len(self.validation.rows)},
            "tokens": {
                "train": self.train.tokens,
                "train_counted": self.train.counted_tokens,
                "longest": self.train.longest,
                "too_long": self.train.too_long,
                "dropped": self.train.dropped,
            },
            "steps": self.steps,
            "epochs": self.epochs,
            "effective_batch": self.effective_batch,
            "backbone_parameters": self.backbone_parameters,
            "trainable_parameters": self.trainable_parameters,
            "flops_per_token": self.flops_per_token,
            "peak_memory_bytes": {"predicted": None},
        }

    def print(self, console: Console, tokenizer: PreTrainedTokenizerBase) -> None:
        """One page: what is frozen, what is trained, how long, and the first example with counted tokens marked."""
        share = 100 * self.trainable_parameters / self.backbone_parameters
        cut = self.train.too_long - self.train.dropped
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
                f"{len(self.train.rows):,} with {self.train.tokens:,} tokens, of which "
                f"{self.train.counted_tokens:,} count for the loss",
            ),
            (
                "too long",
                f"{self.train.too_long:,} rows: {self.train.dropped:,} dropped, {cut:,} cut "
                f"(longest {self.train.longest:,} tokens)",
            ),
            ("validation rows", f"{len(self.validation.rows):,}"),
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
        for label, value in rows:
            table.add_row(Text(label, style="bold"), value)
        console.print(table)
        console.print("first example (counted tokens [bold green]marked[/]; without colours: between » and «)")
        console.print(marked_example(self.train.rows[0], tokenizer), soft_wrap=True)
        console.print()


def steps_for(rows: int, effective_batch: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps: `max_steps` if given, else what the epochs need (the last batch may be smaller)."""
    return max_steps or max(1, math.ceil(rows / effective_batch * epochs))


def marked_example(row: dict[str, list[int]], tokenizer: PreTrainedTokenizerBase) -> Text:
    """The row as text, with the tokens that count for the loss between » and « and in colour."""
    text, counted = Text(), False
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if (label != IGNORED_LABEL) != counted:
            counted = not counted
            text.append("»" if counted else "«", style="bold")
        text.append(str(tokenizer.decode([token])), style="bold green" if counted else "dim")
    if counted:
        text.append("«", style="bold")
    return text
