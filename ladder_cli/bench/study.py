"""Training runs that are compared with each other: each made once, in a process of its own, with what it cost."""

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ladder_cli.errors import RunFailed, UserError
from ladder_cli.run.directory import RunDir, safe_name, write_json

_RECORD = "cost.json"
_TAPS = "taps"


@dataclass(frozen=True)
class Trained:
    """A run that was made.

    Attributes:
        path: its directory.
        loss: on the validation rows, after the last step.
        curve: step -> validation loss.
        seconds: of the processor, system calls and all threads included.
        peak: bytes that a step takes, as predicted.
    """

    path: str
    loss: float
    curve: dict[int, float]
    seconds: float
    peak: int


@dataclass(frozen=True)
class RunCost:
    """Processor seconds of a run with so many steps.

    Attributes:
        step: of one step.
        rest: of all else: start, data, validation, saving.
    """

    step: float
    rest: float

    def of(self, steps: int) -> float:
        """Of the whole run."""
        return self.rest + steps * self.step


class Study:
    """Runs of `ladder-train` in one folder, one after the other.

    A run is known by its options: one that is there already is not made again, and one with other options is another
    run, whatever its name.
    """

    def __init__(self, folder: Path, common: list[str]) -> None:
        """`common`: options of every run."""
        self.folder, self._common = folder, common

    def run(self, name: str, options: list[str], cached: bool) -> Trained:
        """Train, or read what a run with these options left.

        Args:
            name: begins the name of its folder.
            options: of `ladder-train`, beyond those of every run.
            cached: on taps that the runs of this study share.

        Raises:
            UserError: if `ladder-train` refuses the options, with its line.
            RunFailed: if the run ends in any other way than well, with its last line.
        """
        taps = ["trunk.cache=disk", f"trunk.cache_dir={self.folder / _TAPS}"] if cached else []
        # Of options that are given twice the later one holds, in the command as in the name.
        given = dict(word.split("=", 1) for word in (*self._common, *options, *taps))
        words = [f"{key}={value}" for key, value in given.items()]
        digest = hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:8]
        run = RunDir(self.folder / "runs" / f"{safe_name(name)}-{digest}")
        record = run.path / _RECORD
        if record.is_file():
            found = json.loads(record.read_text())
            return Trained(**{**found, "curve": {int(step): loss for step, loss in found["curve"].items()}})
        seconds = _train([*words, f"output_dir={run.path}", "resume=false"])
        metrics = json.loads(run.metrics.read_text())
        lines = [json.loads(line) for line in run.metrics_log.read_text().splitlines()]
        curve = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
        peak = metrics["peak_memory_bytes"]["predicted"]
        trained = Trained(str(run.path), metrics["eval_loss"], curve, seconds, peak)
        write_json(record, asdict(trained))
        return trained

    def cost(self, name: str, options: list[str], cached: bool, steps: tuple[int, int]) -> RunCost:
        """What a run costs, by a longer and a shorter one, which begin and end alike.

        Raises:
            UserError, RunFailed: as `run`.
            RunFailed: if the longer run took no longer.
        """
        few, many = steps
        bare = ["train.evaluations=1", "data.validation_samples=1"]
        if cached:
            # Both are to find every tap.
            self.run(f"{name}-filled", [*options, *bare, f"train.max_steps={many}"], cached)
        short, long = (
            self.run(f"{name}-{count}", [*options, *bare, f"train.max_steps={count}"], cached) for count in steps
        )
        step = (long.seconds - short.seconds) / (many - few)
        if step <= 0:
            raise RunFailed(f"{many} steps took no longer than {few} ({' '.join(options)}): time more of them.")
        return RunCost(step, short.seconds - few * step)


def mean_and_range(values: list[float]) -> str:
    """`0.7512 (0.7480 to 0.7533)`."""
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _train(words: list[str]) -> float:
    """Run `ladder-train`; gives the processor seconds of the process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # One thread unless it is said otherwise: seconds of several spinning threads are no measure of work.
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    command = [sys.executable, "-m", "ladder_cli.train", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        line = f"{' '.join(words)}: {last}"
        raise UserError(line) if done.returncode == 2 else RunFailed(line)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
