"""Transformers' `Trainer`, with adapter-only checkpoints, a loss per token, and a stop on a loss that is not finite."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from ladder_cli.config import HardwareConfig, OptimizationConfig, TrackingConfig
from ladder_cli.data.batching import LengthGroupedSampler
from ladder_cli.errors import RunFailed
from ladder_cli.models.loss import counted_positions
from ladder_cli.models.method import Method

_OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}


class AdapterTrainer(Trainer):
    """Trains whatever part of a model its method left trainable."""

    def __init__(self, method: Method, model: nn.Module, **trainer_options: Any) -> None:
        self._method, self._trained = method, model
        super().__init__(model=model, **trainer_options)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch forward and backward.

        Raises:
            RunFailed: on a loss that is not finite, before the optimizer could spread it.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise RunFailed(
                f"the loss became {loss.item()} at step {self.state.global_step + 1}; that step was not taken. Lower "
                "train.learning_rate or raise train.warmup_ratio, and start again with resume=false."
            )
        return loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Mean cross-entropy per counted token over the whole validation set, whatever the batches."""
        loader = self.get_eval_dataloader(eval_dataset)
        model = self.accelerator.unwrap_model(self.model)
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        model.eval()
        with torch.no_grad():
            for inputs in loader:
                inputs = self._prepare_inputs(inputs)
                count = counted_positions(inputs["labels"]).sum()
                loss = model(**inputs, num_items_in_batch=1).loss
                total += torch.stack([loss.double(), count.double()])
        total = self.accelerator.reduce(total, "sum")
        metrics = {f"{metric_key_prefix}_loss": (total[0] / total[1]).item()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        lengths = rows.lengths if hasattr(rows, "lengths") else [len(row["input_ids"]) for row in rows]
        return LengthGroupedSampler(lengths, self.args.per_device_train_batch_size, self.args.seed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._method.load_weights(self._trained, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._method.load_weights(self._trained, Path(self.state.best_model_checkpoint))


def optimizer_name(wanted: str, device: torch.device) -> str:
    """What `auto` stands for on a device: 8-bit AdamW on a GPU, AdamW elsewhere."""
    if wanted != "auto":
        return wanted
    return "adamw_8bit" if device.type == "cuda" else "adamw"


def training_arguments(
    train: OptimizationConfig,
    hardware: HardwareConfig,
    tracking: TrackingConfig,
    *,
    learning_rate: float,
    accumulation: int,
    steps: int,
    seed: int,
    device: torch.device,
    checkpoints: Path,
    run_name: str,
) -> TrainingArguments:
    """Our settings in Transformers' words.

    The model computes in the type of its backbone by itself, so no mixed precision is asked for here.
    """
    every = max(1, steps // train.evaluations)
    return TrainingArguments(
        output_dir=str(checkpoints),
        run_name=run_name,
        max_steps=steps,
        per_device_train_batch_size=train.micro_batch_size,
        per_device_eval_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=learning_rate,
        lr_scheduler_type=train.scheduler,
        warmup_steps=round(train.warmup_ratio * steps),
        optim=_OPTIMIZERS[optimizer_name(train.optimizer, device)],
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=train.logging_steps,
        logging_first_step=True,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        include_num_input_tokens_seen="non_padding",
        dataloader_num_workers=hardware.workers,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        report_to="none" if tracking.wandb == "off" else "wandb",
    )
