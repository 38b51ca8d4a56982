"""What a run directory says of its training: losses over the rows, memory, settings, identity."""

import json
import math
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from ladder_cli.config.options import flat
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir, read_json

_MOST_POINTS = 500  # of a curve; a line that is wider than any screen shows no more
_FIGURES = (
    *("eval_loss", "train_loss", "best_step", "trainable_parameters", "backbone_parameters", "tokens_seen"),
    *("tokens_per_second", "wall_seconds"),
)


@dataclass(frozen=True)
class Training:
    """One finished training.

    Attributes:
        curves: `loss` and `eval_loss`, each as pairs of rows seen and value; thinned evenly where it is long.
        thinned: whether it was.
        memory: `predicted`, `measured`, `baseline` (bytes, None where not known) and `kind`.
        figures: of metrics.json.
        settings: of config.yaml, flat.
        identity: of weights, rows, tokenizer and prompt, versions, device and commit, flat.
    """

    curves: dict[str, list[tuple[float, float]]]
    thinned: bool
    memory: dict[str, Any]
    figures: dict[str, Any]
    settings: dict[str, Any]
    identity: dict[str, Any]
    order_of_seed: int | None


def read_training(run: RunDir) -> Training:
    """Read it.

    Raises:
        UserError: if a file is missing or cannot be read.
    """
    for path in (run.config, run.run, run.metrics, run.metrics_log):
        if not path.is_file():
            raise UserError(f"report: {path} is missing, although the run is done: restore it, or train again.")
    metrics, record = read_json(run.metrics), read_json(run.run)
    peak = metrics.get("peak_memory_bytes")
    if not isinstance(peak, dict):
        raise UserError(f"report: {run.metrics} is damaged (no peak_memory_bytes): restore it, or train again.")
    curves, thinned = _curves(run)
    settings: Any = OmegaConf.to_container(run.read_config())
    told = {key: record[key] for key in ("identity", "versions", "device", "git_commit", "started") if key in record}
    return Training(
        curves=curves,
        thinned=thinned,
        memory={name: peak.get(name) for name in ("predicted", "measured", "baseline", "kind")},
        figures={name: metrics.get(name) for name in _FIGURES},
        settings=flat(settings),
        identity=flat(told),
        order_of_seed=run.order_of_seed(),
    )


def _curves(run: RunDir) -> tuple[dict[str, list[tuple[float, float]]], bool]:
    curves: dict[str, list[tuple[float, float]]] = {"loss": [], "eval_loss": []}
    for number, line in enumerate(run.metrics_log.read_text().splitlines(), start=1):
        try:
            values = json.loads(line)
            for name, points in curves.items():
                if name in values and math.isfinite(values[name]):
                    points.append((float(values["rows_seen"]), float(values[name])))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"report: {run.metrics_log}, line {number} is damaged ({error!r}): restore it, or train again."
            ) from error
    thinned = any(len(points) > _MOST_POINTS for points in curves.values())
    return {name: _thinned(points) for name, points in curves.items()}, thinned


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_MOST_POINTS`, evenly drawn, the first and the last among them."""
    if len(points) <= _MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(index * last / (_MOST_POINTS - 1))] for index in range(_MOST_POINTS)]
