"""The commands as functions: the same options, and what they write is also returned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FineTuned:
    """A finished training run.

    Attributes:
        path: its directory; the adapter is in `path / "adapter"`.
        metrics: of `metrics.json`.
    """

    path: Path
    metrics: dict[str, Any]


def finetune(*options: str) -> FineTuned:
    """Train, or continue, or return what is already done: `ladder-train` with these options.

    Args:
        options: as on the command line: `"method=xladder"`, `"train.max_steps=100"`.

    Raises:
        UserError: for a mistake in options, data or directory.
        Interrupted: after a signal, with a checkpoint written; the same call continues.
        RunFailed: if the loss or gradient became infinite or not a number.
    """
    run, metrics = _train(*options)
    return FineTuned(run, metrics)


def plan_run(*options: str) -> dict[str, Any]:
    """What a run would do and take, as in `plan.json`: `ladder-train dry_run=true`. No weight is read.

    Raises:
        UserError: for a mistake in the options or the data.
    """
    return _train(*options, "dry_run=true")[1]


def evaluate_model(*options: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Evaluate trained runs (`"run=DIR"`) or a backbone alone (`"model=NAME"`): `ladder-eval` with these options.

    Returns:
        The metrics of each pair (run or experiment, benchmark), as in `result.json`.

    Raises:
        UserError: for a mistake in options, runs or benchmarks.
    """
    from ladder_cli.evaluate.modes import Mode

    metrics: dict[tuple[str, str], dict[str, Any]] = _evaluate((Mode.RUN, Mode.BACKBONE), *options)
    return metrics


def compare_runs(first: str | Path, second: str | Path, *options: str) -> dict[str, Any]:
    """Compare two evaluated runs (or patterns of several) problem by problem: `ladder-eval compare=[DIR,DIR]`.

    Returns:
        The comparison, as in `comparison.json`.

    Raises:
        UserError: if a side has no samples, the two share none, or they were measured differently.
    """
    from ladder_cli.config.quoting import quote
    from ladder_cli.evaluate.modes import Mode

    sides = ",".join(quote(str(side)) for side in (first, second))
    comparison: dict[str, Any] = _evaluate((Mode.COMPARE,), f"compare=[{sides}]", *options)
    return comparison


def _train(*options: str) -> tuple[Path, dict[str, Any]]:
    from ladder_cli.cli.train import train
    from ladder_cli.config.schema import TrainConfig

    words, config = _composed("train", TrainConfig, options)
    run, metrics = train(config, words)
    return run.path, metrics


def _evaluate(modes: tuple[str, ...], *options: str) -> Any:
    from ladder_cli.cli.evaluate import evaluate
    from ladder_cli.config.evaluation import EvaluateConfig
    from ladder_cli.errors import UserError
    from ladder_cli.evaluate.modes import mode_of

    words, config = _composed("evaluate", EvaluateConfig, options)
    if (mode := mode_of(config)) not in modes:
        raise UserError(f"this function takes {' or '.join(f'{each}=' for each in modes)}, not {mode}=.")
    return evaluate(config, words)


def _composed(command: str, schema: type, options: tuple[str, ...]) -> tuple[list[str], Any]:
    """The options as Hydra reads them, and the config that they come to."""
    from ladder_cli.config.compose import composed
    from ladder_cli.config.quoting import quoted_words

    words = quoted_words(list(options), schema, sweep=False)
    return words, composed(command, schema, words)
