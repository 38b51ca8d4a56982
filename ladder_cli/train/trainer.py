"""Transformers' `Trainer`, with adapter-only checkpoints that are whole, and a stop on a loss that is not finite."""

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerState, TrainingArguments

from ladder_cli.config.schema import HardwareConfig, OptimizationConfig, TrackingConfig
from ladder_cli.data.batching import LengthGroupedSampler
from ladder_cli.data.passes import BLANK, EvenSampler, Passes
from ladder_cli.errors import UserError
from ladder_cli.methods.method import Method
from ladder_cli.nn.loss import counted_positions
from ladder_cli.train.bad_batch import ROW, BadBatch, NumberedRows, with_row_numbers
from ladder_cli.train.checkpoints import Checkpoints, Progress
from ladder_cli.trunk.sharding import is_sharded

_OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}


class AdapterTrainer(Trainer):
    """Trains whatever part of a model its method left trainable.

    A run that is continued from a checkpoint ends as if it had never stopped: weights, optimizer, data order, random
    states, the best step, early stopping, and the losses that are logged.
    """

    def __init__(self, method: Method, model: nn.Module, bad_batch: BadBatch, **trainer_options: Any) -> None:
        """`bad_batch`: is told the rows of every step."""
        self._method, self._trained, self._bad_batch = method, model, bad_batch
        args: TrainingArguments = trainer_options["args"]
        self._rows_at_once = args.per_device_train_batch_size * args.world_size
        self._passes = Passes(
            len(trainer_options["train_dataset"]), self._rows_at_once * args.gradient_accumulation_steps
        )
        trainer_options["callbacks"] = [self._passes, *trainer_options.get("callbacks", [])]
        trainer_options["train_dataset"] = NumberedRows(trainer_options["train_dataset"])
        trainer_options["data_collator"] = with_row_numbers(trainer_options["data_collator"])
        # Every process loads the same frozen weights by itself: nothing of them need be sent.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            model, [*(name for name, _ in model.named_buffers()), *_frozen_names(model)]
        )
        super().__init__(model=model, **trainer_options)
        self._checkpoints = Checkpoints(Path(str(self.args.output_dir)))
        self._restored: Progress | None = None
        self._staging = False

    def train_from(self, step: int | None) -> float:
        """Train to the end, from the checkpoint of a step if there is one, and load the best weights.

        Returns:
            The mean training loss over all steps, those before the checkpoint included.

        Raises:
            RunFailed: on a loss or gradient that is not finite, before the optimizer could spread it.
            UserError: if the checkpoint belongs to another run.
        """
        if step is None:
            return self.train().training_loss
        checkpoint = self._checkpoints.at(step)
        self._restored = self._checkpoints.progress(checkpoint)
        if not self._restored.finished:
            return self.train(resume_from_checkpoint=str(checkpoint)).training_loss
        # Killed between its last checkpoint and its end. Transformers would take one more step.
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self.callback_handler.on_train_begin(self.args, self.state, self.control)
        self._load_best_model()
        self.callback_handler.on_train_end(self.args, self.state, self.control)
        return (self._restored.total_loss + self._restored.pending_loss) / self.state.global_step

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One micro-batch forward and backward.

        Raises:
            RunFailed: on a loss that is not finite.
        """
        self._continue()
        numbers = inputs.pop(ROW)
        rows = numbers.tolist()
        self._bad_batch.seen(self.state.global_step, rows)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if BLANK in rows and "attention_mask" in inputs:
            # Transformers counts the tokens that were seen after this: blanks are none.
            inputs["attention_mask"] = inputs["attention_mask"] * (numbers != BLANK)[:, None]
        if not torch.isfinite(loss):
            self._bad_batch.refuse("loss", loss.item(), rows)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm, which every step asks for before its optimizer."""
        norm = super()._get_grad_norm(model, grad_norm)
        if not torch.isfinite(torch.as_tensor(norm)):
            self._bad_batch.refuse("gradient norm", float(norm))
        return norm

    def _continue(self) -> None:
        """Take over from the checkpoint, once, what Transformers does not: the sums of losses, and the best step."""
        if self._restored is not None:
            self._total_loss_scalar = self._restored.total_loss
            self._tr_loss += self._restored.pending_loss
            self._globalstep_last_logged = self._restored.last_logged
            self._initial_global_step = 0
            self._find_best()
            self._restored = None

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Mean cross-entropy per counted token over the whole validation set, whatever the batches."""
        loader = self.get_eval_dataloader(eval_dataset)
        own = len(self._own_batches(loader.dataset))
        model = self.accelerator.unwrap_model(self.model)
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        model.eval()
        with torch.no_grad():
            for number, inputs in enumerate(loader):
                inputs = self._prepare_inputs({name: value for name, value in inputs.items() if name != ROW})
                count = counted_positions(inputs["labels"]).sum()
                loss = model(**inputs, num_items_in_batch=1).loss
                if number < own:
                    total += torch.stack([loss.double(), count.double()])
        total = self.accelerator.reduce(total, "sum")
        metrics = {f"{metric_key_prefix}_loss": (total[0] / total[1]).item()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Batches of this process. Where they do not come out even, one more that does not count: a sharded layer is
        gathered by all processes or by none (`trunk.sharding`).
        """
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        batches, own = self._batches(rows), self._own_batches(rows)
        idle = math.ceil(len(batches) / self.args.world_size) - len(own)
        return DataLoader(rows, batch_sampler=[*own, *batches[:idle]], collate_fn=self.data_collator)

    def _batches(self, rows: Any) -> list[list[int]]:
        size = self.args.per_device_eval_batch_size
        return [list(range(at, min(at + size, len(rows)))) for at in range(0, len(rows), size)]

    def _own_batches(self, rows: Any) -> list[list[int]]:
        """Every n-th, none of them in two processes."""
        return self._batches(rows)[self.args.process_index :: self.args.world_size]

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: DataLoader | None = None) -> nn.Module:
        # accelerate wraps no model that has shards in it. Here they are all frozen, and DDP was told to ignore them.
        if training and is_sharded(model) and not isinstance(model, DistributedDataParallel):
            return DistributedDataParallel(model)
        return super()._wrap_model(model, training, dataloader)

    def _get_train_sampler(self, train_dataset: Any = None) -> EvenSampler:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        order = LengthGroupedSampler(rows.lengths, self.args.per_device_train_batch_size, self.args.seed)
        # One process takes a smaller batch at the end of an epoch; several must all have one.
        self._passes.sampler = EvenSampler(order, self._rows_at_once if self.args.world_size > 1 else 1)
        return self._passes.sampler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Every line of the log says how many rows were passed."""
        super().log({**logs, "rows_seen": self._passes.rows_seen(self.state)}, start_time)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoints.staging if self._staging else self._checkpoints.folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = False
        pending = self.accelerator.reduce(self._tr_loss.clone(), "mean").item()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            progress = Progress(self._finished(), self._total_loss_scalar, pending, self._globalstep_last_logged)
            self._checkpoints.commit(self.state.global_step, progress)
            self._checkpoints.rotate(self.state.best_global_step)
        self._find_best()
        self.accelerator.wait_for_everyone()

    def _find_best(self) -> None:
        # Transformers remembers a path, which is that of the staging folder, or wrong once the run directory has moved.
        best = self.state.best_global_step
        self.state.best_model_checkpoint = str(self._checkpoints.at(best)) if best else None

    def _finished(self) -> bool:
        stoppers = (call for call in self.callback_handler.callbacks if isinstance(call, EarlyStoppingCallback))
        return self.state.global_step >= self.state.max_steps or any(
            call.early_stopping_patience_counter >= call.early_stopping_patience for call in stoppers
        )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # The adapter alone: no pickled arguments beside it.
        if self.args.should_save:
            self._trained.save_pretrained(output_dir or self.args.output_dir)  # type: ignore[operator]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._method.load_weights(self._trained, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{checkpoint} is of another run or damaged ({reason}): delete it, or start over with resume=false."
            ) from error

    def _load_best_model(self) -> None:
        if self.state.best_global_step:
            self._method.load_weights(self._trained, self._checkpoints.at(self.state.best_global_step))


def _frozen_names(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


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
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        include_num_input_tokens_seen="non_padding",
        dataloader_num_workers=hardware.workers,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=False,
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        report_to="none" if tracking.wandb == "off" else "wandb",
    )
