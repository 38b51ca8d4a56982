"""What happens around a training step: log lines, the progress bar, throughput, and a stop that loses nothing."""

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ladder_cli.cli.main import interrupt
from ladder_cli.plan.measured import PeakMemory
from ladder_cli.run.files import write_text

# A launcher such as torchrun passes on a Ctrl-C that the terminal has sent to everyone already.
_SAME_SIGNAL_SECONDS = 2.0
# They end a process that does not heed them: a closed terminal, a batch system's notice, a limit on processor time.
_DEADLY = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


class MetricsLog(TrainerCallback):
    """Appends every log step to `metrics.jsonl`. After a resume the file is written anew from what the checkpoint
    remembers, so that it holds no line of steps that are taken again, and no half of a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep what belongs to the steps before this start."""
        if state.is_world_process_zero:
            write_text(self._path, "".join(map(self._line, state.log_history)))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """One line; the trainer's closing summary is left to `metrics.json`."""
        if state.is_world_process_zero and "train_loss" not in logs:
            with self._path.open("a") as file:
                file.write(self._line({"step": state.global_step, **logs}))

    @staticmethod
    def _line(entry: dict[str, Any]) -> str:
        return json.dumps({"step": entry["step"], **entry}) + "\n"


class Throughput(TrainerCallback):
    """Tokens per second of the optimizer steps themselves: no evaluation, no checkpoint, no warm-up steps."""

    WARM_UP_STEPS = 2

    def __init__(self) -> None:
        self._tokens = self._seconds = self._steps = 0.0
        self._begin = 0.0
        self._seen = 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._begin, self._seen = time.perf_counter(), int(state.num_input_tokens_seen)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the clock."""
        self._steps += 1
        if self._steps > self.WARM_UP_STEPS:
            self._seconds += time.perf_counter() - self._begin
            self._tokens += int(state.num_input_tokens_seen) - self._seen

    @property
    def tokens_per_second(self) -> float | None:
        """None until a step past the warm-up was taken."""
        return self._tokens / self._seconds if self._seconds else None


class ProgressDisplay(TrainerCallback):
    """A progress bar on a terminal; plain lines, one per log step, elsewhere."""

    def __init__(self, console: Console, throughput: Throughput, flops_per_token: int, memory: PeakMemory) -> None:
        """`flops_per_token`: as really done; `memory`: has measured since before the model was loaded."""
        self._console, self._throughput = console, throughput
        self._flops_per_token, self._memory = flops_per_token, memory
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        self._progress.start()
        self._task = self._progress.add_task("", total=state.max_steps, completed=state.global_step, figures="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the newest figures."""
        named = {"loss": "loss", "eval_loss": "validation loss", "learning_rate": "lr", "grad_norm": "gradient"}
        parts = [f"{label} {float(logs[key]):.4g}" for key, label in named.items() if key in logs]
        speed = self._throughput.tokens_per_second
        if not parts:
            return
        if speed is not None:
            parts.append(f"{speed:,.0f} tokens/s")
            parts.append(f"{speed * self._flops_per_token / 1e12:.3g} TFLOP/s")
        if (peak := self._memory.measured()) is not None:
            parts.append(f"peak {peak / 1e9:.2f} GB")
        figures = "  ".join(parts)
        self._progress.update(self._task, figures=figures)
        if not self._console.is_terminal:
            self._console.print(f"step {state.global_step}/{state.max_steps}  {figures}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class StopOnSignal(TrainerCallback):
    """Ctrl-C, SIGTERM and whatever else would end the process (a terminal that is closed, the warnings of a batch
    system) end the run after the current step, with a checkpoint; a second signal ends it at once.

    A signal that was ignored before (`nohup`) or that someone else handles (a launcher) is left alone, Ctrl-C and
    SIGTERM excepted. Of several processes, all stop at the same step as soon as one was told to.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0

    def __enter__(self) -> "StopOnSignal":
        heeded = [signal.SIGINT, signal.SIGTERM]
        heeded += [number for number in _DEADLY if signal.getsignal(number) in (signal.SIG_DFL, interrupt)]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and time.monotonic() - self._when > _SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        self.received, self._when = number, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint and the end."""
        if args.world_size > 1:
            told = torch.tensor(self.received or 0, device=args.device)
            distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
            self.received = int(told.item()) or None
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
