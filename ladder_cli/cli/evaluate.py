"""`ladder-eval`: trained runs, a backbone alone, or ready completions, graded by whole, exact reading."""

import glob
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ladder_cli import hub
from ladder_cli.cli import main as cli
from ladder_cli.config.catalogue import choices
from ladder_cli.config.compose import given_options, parse
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.unread import refuse_unread_model
from ladder_cli.evaluate.modes import Mode, mode_of, refuse_unread
from ladder_cli.ranks import check_launch
from ladder_cli.run.directory import OUTPUTS, RunDir, match_folders, pattern_name, safe_name
from ladder_cli.streams import quiet_libraries

HELP = """ladder-eval: evaluate trained adapters, backbones or ready completions on mathematical benchmarks.

  ladder-eval [key=value]

  ladder-eval run=outputs/ladder-tiny-arithmetic                     a trained run (or several: run='outputs/*')
  ladder-eval model=qwen2.5-math-1.5b benchmarks=[math500] limit=50   a backbone alone
  ladder-eval completions=answers.jsonl output_dir=graded            rows of id, gold, completion; no model needed
  ladder-eval compare=[outputs/a,outputs/b]                          two evaluated runs, problem by problem
  ladder-eval report=outputs/a,outputs/b output=report.html          scores, tests, curves, samples: one HTML page
  ladder-eval audit=true benchmarks=all data_dir=MIRROR              are the gold answers themselves in order?

Without benchmarks=: the test set of what the run was trained on, or the model's own (model.default_benchmarks).
Often used: benchmarks=[...] or all, limit, decode.max_new_tokens, decode.batch_size, output_dir, data_dir, model.path.
An option that is not read by what is asked for is refused.
`ladder-eval --cfg job` prints every option with its value; docs/options.md says what each is, its unit and bounds.

"""


def results_path(config: EvaluateConfig, overrides: list[str]) -> Path:
    """The folder that an evaluation writes to; of an audit and a report, which have none, their options: a sweep goes
    by those.

    Raises:
        UserError: if the sides of a comparison, whose names are the folder's, cannot be read.
    """
    if config.output_dir is not None:
        return Path(config.output_dir)
    mode = mode_of(config)
    if mode in (Mode.AUDIT, Mode.REPORT):
        return Path(" ".join(overrides))
    if mode is Mode.COMPLETIONS:
        from ladder_cli.evaluate.completions import completions_folder

        return completions_folder(config)
    if mode is Mode.COMPARE:
        from ladder_cli.evaluate.comparison_report import comparison_folder, read_sides

        return comparison_folder(config, *read_sides(config))
    if config.run is not None:
        found, _ = match_folders(config.run)
        return RunDir(found[0]).evaluation if len(found) == 1 else OUTPUTS / f"eval-{pattern_name(config.run)}"
    return OUTPUTS / safe_name(f"eval-{_named(config, overrides).model.name}")


def _named(config: EvaluateConfig, overrides: list[str]) -> EvaluateConfig:
    """The config with the name that its backbone goes by rightly; a run's own and none are left as they are."""
    from ladder_cli.trunk.naming import named_by_content

    if mode_of(config) is not Mode.BACKBONE:
        return config
    return replace(config, model=named_by_content(config.model, given_options(overrides)))


def default_benchmarks(config: EvaluateConfig) -> list[str]:
    """What is evaluated where `benchmarks` is not given: the test set of what the runs were trained on, where that is a
    benchmark too, else what their models name (`model.default_benchmarks`).
    """
    if config.run is None:
        return config.model.default_benchmarks
    names: list[str] = []
    for path in sorted(glob.glob(config.run)) if not Path(config.run).is_dir() else [config.run]:
        run = RunDir(path)
        if run.config.is_file():
            trained = parse(run.read_config(), TrainConfig)
            own = trained.data.name in choices("benchmark")
            names += [trained.data.name] if own else trained.model.default_benchmarks
    return list(dict.fromkeys(names)) or config.model.default_benchmarks


def evaluate(config: EvaluateConfig, overrides: list[str]) -> Any:
    """Evaluate whatever the config names.

    Returns:
        What the mode makes: metrics of runs or a backbone, a comparison, the file of a report; None of the others.

    Raises:
        UserError: for whatever is wrong with it; among it an option that is not read by what is asked for.
    """
    check_launch()
    refuse_unread(config, overrides)
    mode = mode_of(config)
    if mode in (Mode.AUDIT, Mode.BACKBONE):
        cli.check_folders(config.model, config.data_dir)
        refuse_unread_model(config.model, given_options(overrides))
        if config.model.path is None and not config.audit:
            hub.require_model(config.model.name, config.model.location, config.model.revision)
    if config.benchmarks is None:
        config.benchmarks = default_benchmarks(config)
    config = _named(config, overrides)
    quiet_libraries(downloads=config.model.path is None)
    from ladder_cli.console import make_console
    from ladder_cli.evaluate.audit.check import audit
    from ladder_cli.evaluate.comparison_report import report_comparison
    from ladder_cli.evaluate.completions import grade_completions
    from ladder_cli.evaluate.run import evaluate_models
    from ladder_cli.report.page import write_report

    console = make_console()
    work: dict[Mode, Callable[[], object]] = {
        Mode.AUDIT: lambda: audit(config, console),
        Mode.COMPLETIONS: lambda: grade_completions(config, console),
        Mode.COMPARE: lambda: report_comparison(config, console),
        Mode.REPORT: lambda: write_report(config, console),
        Mode.RUN: lambda: evaluate_models(config, overrides, console),
        Mode.BACKBONE: lambda: evaluate_models(config, overrides, console),
    }
    return work[mode]()


def benchmark_line() -> str:
    """What `benchmarks=` may name, for the help text."""
    return f"Benchmarks (benchmarks=[NAME,...], or all with an answer to grade): {', '.join(choices('benchmark'))}\n"


def main() -> None:
    """The console script."""
    sys.exit(cli.run("evaluate", EvaluateConfig, evaluate, results_path, HELP + benchmark_line()))


if __name__ == "__main__":
    main()
