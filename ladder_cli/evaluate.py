"""`ladder-eval`: trained runs, a backbone alone, or ready completions, graded by Math-Verify."""

import sys
from pathlib import Path

from ladder_cli import cli
from ladder_cli.config import EvaluateConfig
from ladder_cli.evaluation.modes import AUDIT, BACKBONE, COMPARE, COMPLETIONS, mode_of, refuse_unread
from ladder_cli.run_dir import OUTPUTS, RunDir

HELP = """ladder-eval: evaluate trained adapters, backbones or ready completions on mathematical benchmarks.

  ladder-eval [key=value]

  ladder-eval run=outputs/ladder-tiny-arithmetic                     a trained run (or several: run='outputs/*')
  ladder-eval model=qwen2.5-math-1.5b benchmarks=[math500] limit=50   a backbone alone
  ladder-eval completions=answers.jsonl output_dir=graded            rows of id, gold, completion; no model needed
  ladder-eval compare=[outputs/a,outputs/b]                          two evaluated runs, problem by problem
  ladder-eval audit=true benchmarks=all data_dir=MIRROR              are the gold answers themselves in order?

Often used: benchmarks=[...] or all, limit, decode.max_new_tokens, decode.batch_size, output_dir, data_dir, model.path.
An option that is not read by what is asked for is refused.
`ladder-eval --cfg job` prints every option with its value.

"""


def results_path(config: EvaluateConfig, overrides: list[str]) -> Path:
    """The folder that an evaluation of one model writes to."""
    if config.output_dir is None and config.run is not None:
        return RunDir(config.run).evaluation
    return Path(config.output_dir or OUTPUTS / f"eval-{config.model.name}")


def evaluate(config: EvaluateConfig, overrides: list[str]) -> None:
    """Evaluate whatever the config names.

    Raises:
        UserError: for whatever is wrong with it; among it an option that is not read by what is asked for.
    """
    refuse_unread(config, overrides)
    mode = mode_of(config)
    if mode in (AUDIT, BACKBONE):
        cli.check_folders(config.model, config.data_dir)
    cli.quiet_libraries(config.model)
    from ladder_cli.console import make_console
    from ladder_cli.evaluation.audit import audit
    from ladder_cli.evaluation.comparison_report import report_comparison
    from ladder_cli.evaluation.completions import grade_completions
    from ladder_cli.evaluation.run import evaluate_models

    console = make_console()
    if mode == AUDIT:
        audit(config, console)
    elif mode == COMPLETIONS:
        grade_completions(config, console)
    elif mode == COMPARE:
        report_comparison(config, console)
    else:
        evaluate_models(config, overrides, console)


def main() -> None:
    """The console script."""
    sys.exit(cli.run("evaluate", EvaluateConfig, evaluate, results_path, HELP))


if __name__ == "__main__":
    main()
