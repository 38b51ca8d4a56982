"""What binds samples to what was asked of which model, so that one evaluation never appears as another."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ladder_cli.config.choices import BenchmarkKind
from ladder_cli.config.evaluation import BenchmarkConfig, DecodeConfig
from ladder_cli.data.benchmarks import Problem
from ladder_cli.data.classification import LABELS
from ladder_cli.errors import UserError
from ladder_cli.evaluate.grading import grader_identity
from ladder_cli.evaluate.samples import Sample
from ladder_cli.evaluate.targets import Target
from ladder_cli.generate.engine import Prompt
from ladder_cli.run.directory import EVALUATION, RESULT, SAMPLES, SETTINGS, RunDir, read_json


def made_under(
    target: Target, benchmark: BenchmarkConfig, decode: DecodeConfig, seed: int, repeat: int
) -> dict[str, Any]:
    """What completions are made under, for settings.json; those made under anything else are never mixed in.

    A label task generates nothing, so that of it neither decoding nor seed is bound.
    """
    renderer = target.renderer_for(benchmark)
    settings: dict[str, Any] = {
        "kind": benchmark.kind,
        "weights": target.identity,
        "engine": target.engine.identity,
        "prompt": renderer.fingerprint,
        "instruction": renderer.instruction,
        "tokenizer": renderer.tokenizer_fingerprint,
        "repeat": repeat,
    }
    if benchmark.kind is BenchmarkKind.LABEL:
        return settings | {"labels": list(LABELS)}
    return settings | {"seed": seed, **target.engine.settings(decode)}


def graded_under(benchmark: BenchmarkConfig, grade_seconds: float) -> dict[str, Any]:
    """What verdicts are made under, for settings.json; a label task has no grader."""
    if benchmark.kind is BenchmarkKind.LABEL:
        return {}
    grader = {f"grader.{key}": value for key, value in grader_identity(grade_seconds).items()}
    return {"rule": benchmark.rule, **grader}


def refuse_other_problems(
    folder: Path, benchmark: BenchmarkConfig, problems: Iterable[Problem], prompts: Mapping[str, Prompt],
    samples: Mapping[str, Sample],
) -> None:  # fmt: skip
    """Refuse samples whose problem is no longer the one they were made of.

    Args:
        prompts: of the problems, by id, as they are rendered now.
        samples: those on disk, by id.

    Raises:
        UserError: with the first problem that differs, and in what.
    """
    for problem in problems:
        sample = samples.get(problem.id)
        if sample is None:
            continue
        compared: list[tuple[str, Any, Any]] = [
            ("gold answer", sample.gold, problem.gold),
            ("prompt", sample.prompt, prompts[problem.id].text),
        ]
        # What older versions did not record is not compared.
        if sample.question_digest is not None:
            compared.insert(1, ("question", sample.question_digest, problem.question_digest))
        if sample.unit is not None:
            compared += [("unit", sample.unit, problem.rule.unit), ("error", sample.error, problem.rule.tolerance)]
        differs = [word for word, before, now in compared if before != now]
        if differs:
            raise UserError(
                f"{folder} holds samples of another version of {benchmark.name} (the {differs[0]} of '{problem.id}' "
                "differs): give another output_dir, or delete that folder."
            )


def refuse_run_directory(folder: Path, own: Path | None = None) -> None:
    """Refuse a folder of results that is a run directory, or the `eval` of another run than `own`.

    What lies there is taken for that run's own, by `compare=` among others.

    Raises:
        UserError: if it is.
    """
    if RunDir(folder).config.is_file():
        raise UserError(
            f"{folder} is a run directory, whose own results go into {RunDir(folder).evaluation}: leave out "
            "output_dir, or give another one."
        )
    holder = folder.resolve().parent
    of_a_run = folder.resolve().name == EVALUATION and RunDir(holder).config.is_file()
    if of_a_run and (own is None or own.resolve() != holder):
        raise UserError(f"{folder} is for the results of the run {holder.name}: give another output_dir.")


def refuse_other_use(folder: Path, weights: str) -> None:
    """Refuse a folder that holds results of anything but these weights.

    Raises:
        UserError: if it holds graded completions, the common results of several runs, or samples of other weights.
    """
    elsewhere = "give another output_dir, or delete that folder."
    if (folder / SAMPLES).is_file():
        raise UserError(f"{folder} holds graded completions, and not samples of a model: {elsewhere}")
    for settings in sorted(folder.glob(f"*/{SETTINGS}")):
        before = read_json(settings).get("weights")
        if before != weights:
            raise UserError(
                f"{folder} holds samples of other settings (weights of {settings.parent.name}: {before} -> "
                f"{weights}): {elsewhere}"
            )
    for result in sorted(folder.glob(f"*/{RESULT}")):
        if not (result.parent / SAMPLES).is_file():
            raise UserError(f"{folder} holds the common results of several runs, and not one model's: {elsewhere}")


def refuse_model_results(folder: Path) -> None:
    """Refuse a folder for graded completions that holds the results of models.

    Raises:
        UserError: if it does.
    """
    if next(folder.glob(f"*/{SAMPLES}"), None) or next(folder.glob(f"*/{RESULT}"), None):
        raise UserError(
            f"{folder} holds samples of a model, and not graded completions: give another output_dir, or delete that "
            "folder."
        )


def refuse_other_runs(folder: Path, runs: Mapping[str, str]) -> None:
    """Refuse a folder of common results that are of none of these runs (name -> weights).

    Raises:
        UserError: if it holds samples of one model or of graded completions, or results of other runs alone.
    """
    elsewhere = "give another output_dir, or delete that folder."
    if (folder / SAMPLES).is_file() or next(folder.glob(f"*/{SAMPLES}"), None):
        raise UserError(f"{folder} holds samples of one model or file, and not results of several runs: {elsewhere}")
    for result in sorted(folder.glob(f"*/{RESULT}")):
        record = read_json(result)
        extent = record.get("extent")
        try:
            # An earlier version recorded no weights; of it the names have to do.
            before = extent["runs"] if extent is not None else {name: name for name in record.get("scores", {})}
            shared = set(before.values()) & set(runs.values() if extent is not None else runs)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{result} is no result of an evaluation ({error!r}): restore or delete it.") from error
        if not shared:
            raise UserError(f"{folder} holds the results of other runs ({', '.join(before)}): {elsewhere}")
