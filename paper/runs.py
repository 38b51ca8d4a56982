"""Reads finished runs from their directories, for tables and figures."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder_cli.data.sources import read_jsonl
from ladder_cli.errors import UserError
from ladder_cli.run.directory import SAMPLES, SUMMARY, RunDir, read_json


@dataclass(frozen=True)
class Run:
    """One finished run, or a backbone that was evaluated alone (`config` and `metrics` are then empty).

    Attributes:
        path: of the run directory.
        model, method: names of the presets; the method of a bare backbone is `backbone`.
        rows: training rows, at most as many as there were; None if the data set was used whole.
        config: as it ran.
        metrics: of `metrics.json`.
        scores: of `eval/summary.json`, by benchmark; empty before the run is evaluated.
        evaluation: folder of the evaluations.
    """

    path: Path
    model: str
    method: str
    rows: int | None
    config: dict[str, Any]
    metrics: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    evaluation: Path

    @property
    def label(self) -> str:
        """Return backbone and method as one text."""
        return f"{self.model} {self.method}"

    @property
    def flops_per_row(self) -> dict[str, float]:
        """Return the FLOPs of training on one row once, by each way of counting (`methods.base.Cost`)."""
        # A run may end before or after `train.epochs`: by `train.max_steps`, or by early stopping. Old runs recorded
        # only what was asked for.
        epochs = float(self.metrics.get("epochs", self.config["train"]["epochs"]))
        rows = self.metrics.get("rows", {}).get("train", self.rows or 1)
        tokens = self.metrics["tokens_seen"] / (rows * epochs)
        return {count: flops * tokens for count, flops in self.metrics["flops_per_token"].items()}

    def samples(self, benchmark: str) -> list[dict[str, Any]]:
        """Read the graded completions of one benchmark."""
        return read_jsonl(self.evaluation / benchmark / SAMPLES)


BACKBONE = "backbone"


def read_runs(folders: Iterable[Path | str]) -> list[Run]:
    """Read the finished runs in and below some folders, ordered by name; skip unfinished ones.

    A folder `backbone-<model>` with a summary counts as an evaluation of the bare backbone.

    Raises:
        UserError: if a folder is missing, or a file in it cannot be read.
    """
    found: list[Run] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder of runs.")
        for config in sorted(folder.rglob("config.yaml")):
            run = RunDir(config.parent)
            if run.status() == "done" and run.metrics.is_file() and ".old-" not in run.path.name:
                found.append(_read(run))
        found += _backbones(folder)
    return found


def by_label(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Group runs by backbone and method; bare backbones come first."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.model, run.method != BACKBONE)):
        groups.setdefault(run.label, []).append(run)
    return groups


def _read(run: RunDir) -> Run:
    config: dict[str, Any] = dict(run.read_config())
    summary = run.evaluation / SUMMARY
    metrics = read_json(run.metrics)
    return Run(
        path=run.path,
        model=config["model"]["name"],
        method=config["method"]["name"],
        rows=_rows(config["data"]["train_samples"], metrics),
        config=config,
        metrics=metrics,
        scores=read_json(summary) if summary.is_file() else {},
        evaluation=run.evaluation,
    )


def _rows(asked: int | None, metrics: dict[str, Any]) -> int | None:
    """Return the rows that a run with `train_samples` trained on; old runs recorded only what they asked for."""
    return None if asked is None else int(metrics.get("rows", {}).get("train", asked))


def _backbones(folder: Path) -> Iterator[Run]:
    for summary in sorted(folder.rglob(f"{BACKBONE}-*/{SUMMARY}")):
        name = summary.parent.name.removeprefix(f"{BACKBONE}-")
        yield Run(summary.parent, name, BACKBONE, None, {}, {}, read_json(summary), summary.parent)
