"""What is told of a run while it trains: log lines, a progress bar, throughput. Trackers: trackers.py."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ladder_cli.plan.measured import PeakMemory
from ladder_cli.run.files import write_text

Line = dict[str, Any]


class Monitor(Protocol):
    """Is told what happens, in the process that prints and writes."""

    def begin(self, step: int, steps: int, history: list[Line]) -> None:
        """Training goes on after `step`, to `steps`; `history` holds the lines logged so far."""
        ...

    def stepped(self, step: int) -> None:
        """A step was taken."""
        ...

    def log(self, line: Line) -> None:
        """A line of the log, with its `step`."""
        ...

    def end(self, train_loss: float | None) -> None:
        """Training is over: `train_loss` is the mean of all steps, None after an error."""
        ...


class MetricsLog:
    """Appends every line to `metrics.jsonl`. After a resume the file is written anew from what the checkpoint
    remembers, so that it holds no line of steps that are taken again, and no half of a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, step: int, steps: int, history: list[Line]) -> None:
        """Write what belongs to the steps before this start."""
        write_text(self._path, "".join(map(self._as_text, history)))

    def stepped(self, step: int) -> None:
        """Nothing."""

    def log(self, line: Line) -> None:
        """Append it."""
        with self._path.open("a") as file:
            file.write(self._as_text(line))

    def end(self, train_loss: float | None) -> None:
        """Nothing: the summary is in `metrics.json`."""

    @staticmethod
    def _as_text(line: Line) -> str:
        return json.dumps(line) + "\n"


class Throughput:
    """Tokens per second of the optimizer steps themselves: no evaluation, no checkpoint, no warm-up steps."""

    WARM_UP_STEPS = 2

    def __init__(self) -> None:
        self._tokens = self._steps = 0
        self._seconds = self._begin = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def end(self, tokens: int) -> None:
        """Stop the clock, after a step over so many tokens."""
        self._steps += 1
        if self._steps > self.WARM_UP_STEPS:
            self._seconds += time.perf_counter() - self._begin
            self._tokens += tokens

    @property
    def tokens_per_second(self) -> float | None:
        """None until a step past the warm-up was taken."""
        return self._tokens / self._seconds if self._seconds else None


class Spent:
    """The seconds of steps by part, as means since they were last told; of this start, as all times are."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._steps = 0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done within a `with` block is of this part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began

    def stepped(self) -> None:
        """A step is over."""
        self._steps += 1

    def told(self) -> dict[str, float]:
        """Seconds a step by part, since the last call."""
        means = {f"{name}_seconds": round(spent / max(1, self._steps), 4) for name, spent in self._seconds.items()}
        self._seconds, self._steps = {}, 0
        return means


class Bars:
    """The progress bars of runs that are trained side by side, one each: a terminal shows one display at a time."""

    def __init__(self, console: Console) -> None:
        self.console, self._shown = console, 0
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}", markup=False),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def add(self, name: str, step: int, steps: int) -> TaskID:
        """Show another bar."""
        if not self._shown:
            self.progress.start()
        self._shown += 1
        return self.progress.add_task(name, total=steps, completed=step, metrics="")

    def leave(self) -> None:
        """Leave a bar as it is; with the last one all are."""
        self._shown -= 1
        if not self._shown:
            self.progress.stop()


class Measures:
    """What is measured over runs that are trained side by side, from its construction on, and where it is shown."""

    def __init__(self, device: torch.device, console: Console) -> None:
        self.started = time.perf_counter()
        self.memory, self.throughput, self.bars = PeakMemory(device), Throughput(), Bars(console)


class ProgressDisplay:
    """A progress bar on a terminal; plain lines, one per log line, elsewhere."""

    def __init__(self, measures: Measures, flops_per_token: int, name: str = "") -> None:
        """`flops_per_token`: as really done; `name`: of the run among those beside it, empty where it is alone."""
        self._bars, self._throughput, self._memory = measures.bars, measures.throughput, measures.memory
        self._flops_per_token, self._name = flops_per_token, name

    def begin(self, step: int, steps: int, history: list[Line]) -> None:
        """Show the bar."""
        self._steps = steps
        self._task = self._bars.add(self._name or "training", step, steps)

    def stepped(self, step: int) -> None:
        """Move the bar."""
        self._bars.progress.update(self._task, completed=step)

    def log(self, line: Line) -> None:
        """Show the newest metrics."""
        named = {"loss": "loss", "eval_loss": "validation loss", "learning_rate": "lr", "grad_norm": "gradient"}
        named |= {"reward_margin": "margin", "reward_accuracy": "preferred"}
        named |= {"eval_reward_margin": "margin", "eval_reward_accuracy": "preferred"}
        named |= {"reward": "reward", "eval_reward": "validation reward", "kl": "kl", "completion_tokens": "tokens"}
        parts = [f"{label} {float(line[key]):.4g}" for key, label in named.items() if key in line]
        speed = self._throughput.tokens_per_second
        if speed is not None:
            parts.append(f"{speed:,.0f} tokens/s")
            parts.append(f"{speed * self._flops_per_token / 1e12:.3g} TFLOP/s")
        if (peak := self._memory.measured()) is not None:
            parts.append(f"peak {peak / 1e9:.2f} GB")
        metrics, console = "  ".join(parts), self._bars.console
        self._bars.progress.update(self._task, metrics=metrics)
        if not console.is_terminal:
            whose = f"{self._name}  " if self._name else ""
            console.print(f"step {line['step']}/{self._steps}  {whose}{metrics}", soft_wrap=True)

    def end(self, train_loss: float | None) -> None:
        """Leave the bar as it is."""
        self._bars.leave()
