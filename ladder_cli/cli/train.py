"""`ladder-train`: compose, load, print the plan, train, write the adapter. Each step lives in its own room."""

import contextlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladder_cli import hub
from ladder_cli.cli import main as cli
from ladder_cli.cli.cache import cache_command
from ladder_cli.config.compose import given_options, output_folder, sweep_job
from ladder_cli.config.objective import check_objective
from ladder_cli.config.sampling import check_sampling
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.unread import refuse_unread
from ladder_cli.ranks import check_launch, processes
from ladder_cli.run.directory import RunDir, default_path
from ladder_cli.run.sweep import Placed, Sweep
from ladder_cli.run.together import candidates, refuse_together
from ladder_cli.streams import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from ladder_cli.train.member import Member

HELP = """ladder-train: fine-tune a frozen language model at low memory: LoRA on its upper layers, ladders, QLoRA.

  ladder-train [group=choice] [key=value] [-m]

  ladder-train                                                    the embedded model and task, a few minutes on a CPU
  ladder-train method=suffix                                      the same: LoRA on the upper half, the rest is read
  ladder-train method=xladder model=qwen2.5-math-1.5b             a real model on a GPU, on its own data set (s1k)
  ladder-train -m method=ladder,qlora data.train_samples=1000,2000,4000     a sweep, one run directory each
  ladder-train -m experiment=scaling hydra.sweep.dir=outputs/scaling ...    a sweep in a folder of its own
  ladder-train trunk.cache=disk train.epochs=3                    what is read of the backbone is kept, for all runs
  ladder-train data=jsonl data.path=FILE data.format=preference objective=dpo     learn which of two answers is better
  ladder-train objective=grpo data.train_samples=1000             learn from rewards of the model's own answers
  ladder-train cache=list                                         what the cache holds; cache=prune makes it smaller

Often used: seed, output_dir, dry_run, resume, data_dir, model.path, model.quantization (none, int8, nf4),
  train.max_steps, train.epochs, train.micro_batch_size, train.learning_rate, data.train_samples, data.max_length.
`ladder-train --cfg job` prints every option with its value; docs/options.md says what each is, its unit and bounds.
A path needs no quotes but the shell's.

"""


def run_path(config: TrainConfig, overrides: list[str]) -> Path:
    """The directory of a run."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    config = _named(config, given_options(overrides))
    names = (config.method.name, config.model.name, config.data.name)
    return default_path(*names, overrides, output_folder())


def _named(config: TrainConfig, given: list[str]) -> TrainConfig:
    """The config with the name that its backbone goes by rightly."""
    from ladder_cli.trunk.naming import named_by_content

    return replace(config, model=named_by_content(config.model, given))


def check_options(config: TrainConfig, given: list[str]) -> None:
    """Refuse options that nothing reads, and batches that do not add up; looks at no file.

    Args:
        given: as `given_options` gives them.

    Raises:
        UserError: for the first of them.
    """
    from ladder_cli.data.formats import fields_read, format_of
    from ladder_cli.data.formats import refuse_unread as refuse_unread_data

    refuse_unread_data(config.data, [name.removeprefix("data.") for name in given if name.startswith("data.")])
    check_objective(config.objective, config.method, format_of(config.data), config.data.packing)
    check_sampling(config)
    refuse_unread(config, given, reads_mirror="hub_id" in fields_read(config.data))
    config.train.accumulation(processes())


def train(config: TrainConfig, overrides: list[str]) -> tuple[RunDir, dict[str, Any]]:
    """Run, resume or only plan one training.

    Returns:
        The run's directory, and its `metrics.json`; of a dry run its `plan.json`; of a preparation where its files
        are.
    """
    refuse_together(config, given_options(overrides), sweep_job())
    return _one(config, overrides, run_path(config, overrides))


def train_several(waiting: list[Placed], sweep: Sweep) -> None:
    """The runs of a sweep: those that share backbone and rows side by side, the others one after the other.

    Raises:
        Interrupted: after a signal, which ends the sweep.
    """
    for alike in candidates(waiting):
        if len(alike) > 1:
            _several(alike, sweep)
            continue
        (placed,) = alike
        with sweep.recorded(placed):
            sweep.begin(placed)
            if placed.config.cache is not None:
                cache_command(placed.config, given_options(placed.overrides))
            else:
                _one(placed.config, placed.overrides, placed.path)


def _one(config: TrainConfig, overrides: list[str], path: Path) -> tuple[RunDir, dict[str, Any]]:
    config, run = _checked(config, overrides, path)
    from ladder_cli.console import make_console

    if config.prepare:
        return run, _prepare(config, make_console())
    from ladder_cli.train.run import plan_only, run_training
    from ladder_cli.train.sharding import sharding_settled

    console = make_console()
    with sharding_settled(config, console) as settled:
        if settled.dry_run:
            return run, plan_only(settled, run, console)
        metrics = run_training(settled, run, console)
    _report(metrics, run, console)
    return run, metrics


def _several(alike: list[Placed], sweep: Sweep) -> None:
    """Runs of a sweep side by side, as far as they can."""
    asked, runs = [], []
    for placed in alike:
        with sweep.recorded(placed, over=False):
            asked.append(_checked(placed.config, placed.overrides, placed.path))
            runs.append(placed)
    from ladder_cli.console import make_console
    from ladder_cli.train.run import run_together
    from ladder_cli.train.sharding import sharding_settled

    console = make_console()

    def ended(member: "Member") -> None:
        sweep.end(runs[member.number], member.failure)
        if member.metrics is not None:
            _report(member.metrics, member.run, console)

    with contextlib.ExitStack() as settled:
        several = [(settled.enter_context(sharding_settled(config, console)), run) for config, run in asked]
        run_together(several, console, lambda member: sweep.begin(runs[member.number]), ended)


def _checked(config: TrainConfig, overrides: list[str], path: Path) -> tuple[TrainConfig, RunDir]:
    """Config and directory of a run, once all mistakes are told that need no torch; that is imported from here on."""
    check_launch(planned=config.dry_run)
    given = given_options(overrides)
    check_options(config, given)
    cli.check_folders(config.model, config.data_dir)
    if config.model.path is None and not config.dry_run:
        hub.require_model(config.model.name, config.model.location, config.model.revision)
    config, run = _named(config, given), RunDir(path)
    run.refuse_other_folder()
    quiet_libraries(downloads=config.model.path is None)
    return config, run


def _prepare(config: TrainConfig, console: "Console") -> dict[str, Any]:
    """Make layer files; nothing is trained."""
    from ladder_cli.trunk.layer_folder import prepare_layers
    from ladder_cli.trunk.loading import resolve_device

    place = Path(config.trunk.layer_files) if config.trunk.layer_files is not None else None
    folder = prepare_layers(config.model, resolve_device(config.hardware.device), place)
    size = sum(file.stat().st_size for file in folder.path.iterdir())
    console.print(
        f"prepared {folder.layers} layers of {config.model.name}, {size / 1e9:.2f} GB, in {folder.path}: train with "
        "trunk.residency=disk",
        soft_wrap=True,
    )
    return {"layer_files": str(folder.path), "layers": folder.layers, "bytes": size}


def command(config: TrainConfig, overrides: list[str]) -> None:
    """What the console script does: train, or look after the cache of taps."""
    if config.cache is not None:
        cache_command(config, given_options(overrides))
    else:
        train(config, overrides)


def _report(metrics: dict[str, Any], run: RunDir, console: "Console") -> None:
    # Of a few steps there is no speed to report.
    speed = f"{metrics['tokens_per_second']:,.0f} tokens/s   " if metrics["tokens_per_second"] else ""
    kept = ("reward", "eval_reward") if "eval_reward" in metrics else ("loss", "eval_loss")
    console.print(
        f"train loss {metrics['train_loss']:.4f}   validation {kept[0]} {metrics[kept[1]]:.4f} (step "
        f"{metrics['best_step']})   {speed}{metrics['wall_seconds']:.0f} s\n"
        f"adapter: {run.adapter}\nevaluate it with: ladder-eval {_typed(run.path)}",
        soft_wrap=True,
    )


def _typed(path: Path) -> str:
    """`run=PATH` as it is typed into a shell."""
    return f"run='{path}'" if shlex.quote(str(path)) == str(path) else shlex.quote(f"run={path}")


def main() -> None:
    """The console script."""
    help_text = HELP + cli.default_data_lines()
    sys.exit(cli.run("train", TrainConfig, command, run_path, help_text, one_each=True, several=train_several))


if __name__ == "__main__":
    main()
