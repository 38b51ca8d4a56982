"""The training run itself: steps, batches, rates, validations (the key `train`)."""

from dataclasses import dataclass

from ladder_cli.config.choices import Optimizer, Scheduler, Together
from ladder_cli.config.options import incidental, option, settle
from ladder_cli.errors import UserError


@dataclass
class OptimizationConfig:
    """The training run itself (the key `train`)."""

    epochs: float = option(1.0, "passes over the rows", at_least=0.0)
    max_steps: int | None = option(None, "null: as many as the epochs need", unit="optimizer steps", at_least=1)
    global_batch_size: int = option(
        16, "per optimizer step over all processes; belongs to the experiment", unit="rows", at_least=1
    )
    micro_batch_size: int = option(4, "per forward pass and process; belongs to the hardware", unit="rows", at_least=1)
    gradient_accumulation: int | None = option(
        None, "per optimizer step; null: derived from the two above", unit="micro-batches", at_least=1
    )
    learning_rate: float | None = option(
        None,
        "peak; null: the method's, times `model.learning_rate_scale` and `objective.learning_rate_scale`",
        at_least=0.0,
        at_most=1.0,
    )
    scheduler: Scheduler = option(Scheduler.LINEAR, "course of the learning rate")
    warmup_ratio: float = option(
        0.03, "while the learning rate rises", unit="share of all steps", at_least=0.0, at_most=1.0
    )
    optimizer: Optimizer = option(
        Optimizer.AUTO, "auto: 8-bit AdamW on a GPU, AdamW elsewhere; muon: of matrices, AdamW of the rest"
    )
    weight_decay: float = option(0.01, "of AdamW and Muon", at_least=0.0, at_most=1.0)
    max_grad_norm: float = option(1.0, "longer gradients are clipped to it; 0: no clipping", at_least=0.0)
    evaluations: int = option(5, "validation losses and checkpoints over the run, at least", at_least=1)
    early_stopping: int | None = option(
        None, "without improvement before stopping; null: never", unit="evaluations", at_least=1
    )
    logging_steps: int = incidental(10, "between two lines of the log", unit="optimizer steps", at_least=1)
    loss_chunk: int = option(512, "whose logits exist at the same time", unit="counted tokens", at_least=1)
    compile: bool = option(False, "layers through torch.compile: takes a minute at the start, and rounds differently")
    # What it can change, the order of rows under another seed's, is recorded by itself (`order_of_seed` in run.json).
    together: Together = incidental(
        Together.AUTO,
        "runs of a sweep that share backbone and rows go side by side on one pass; auto: those of the same seed, which "
        "changes no result; true: other seeds too, all in one order of the rows",
    )

    def __post_init__(self) -> None:
        # YAML and Hydra read a truth value, and write it with a capital.
        self.together = str(self.together).lower()  # type: ignore[assignment]
        settle(self, "train.")
        if self.epochs == 0 and self.max_steps is None:
            raise UserError("train.epochs=0 trains nothing: give the passes over the rows, or train.max_steps.")

    def accumulation(self, processes: int) -> int:
        """Micro-batches per optimizer step.

        Raises:
            UserError: if the global batch cannot be cut into micro-batches of this size.
        """
        if self.gradient_accumulation is not None:
            return self.gradient_accumulation
        rows = self.micro_batch_size * processes
        if self.global_batch_size % rows:
            raise UserError(
                f"train.global_batch_size={self.global_batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} x {processes} process(es): change train.micro_batch_size, or give "
                "train.gradient_accumulation yourself."
            )
        return self.global_batch_size // rows
