"""The edge of both commands: help, signals, how a command is run, and exit statuses.

Exit status: 0 done; 2 the user's mistake, told in one line on stderr; 130 interrupted with the state saved;
1 anything else. A sweep goes on after a run that failed, and tells of all of them at its end. Nothing here imports
torch, so that help and mistakes are answered at once.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ladder_cli import __version__
from ladder_cli.config.catalogue import choices, default_data, groups_of
from ladder_cli.config.compose import IN_PROCESS, Composed, run_composed
from ladder_cli.config.quoting import quoted_words
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import Interrupted, RunFailed, UserError
from ladder_cli.ranks import check_launch, interrupt, is_main_process, processes
from ladder_cli.run.credentials import holds_secret, redacted
from ladder_cli.run.files import write_failure
from ladder_cli.run.sweep import Place, Placed, Sweep, Task, refuse_shared_output, tell
from ladder_cli.streams import shield_streams

# Hydra's own.
_FLAGS = (
    *("--help", "-h", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m", "--info", "-i"),
    *("--version", "--hydra-help", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun"),
)

_MODES = ("--cfg", "-c", "--run", "-r", "--multirun", "-m", "--info", "-i", "--shell-completion", "-sc")


# Works on the runs of a sweep that the launcher would run in this process.
Several = Callable[[list[Placed], Sweep], None]


def run(
    config_name: str,
    schema: type,
    task: Task,
    place: Place,
    help_text: str,
    one_each: bool = False,
    several: Several | None = None,
) -> int:
    """Compose the config named `config_name`, check it against `schema`, run `task(config, overrides)`.

    Args:
        place: the directory that such a run writes to.
        one_each: of a sweep, every run needs a directory of its own.
        several: takes the place of `task` for a sweep in this process, once all of its runs are composed.

    Returns:
        The exit status of the command.
    """
    shield_streams()
    if "--version" in sys.argv[1:]:
        print(f"ladder-side-tuning {__version__}")
        return 0
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text + group_table(config_name))
        return 0
    try:
        # WORLD_SIZE alone may be a question of a dry run, which only the config can tell.
        check_launch(planned=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    heed_signals()
    for word in sys.argv[1:]:
        if word.startswith("="):
            return _fail(f"error: cannot read '{word}': options look like key=value.", 2)
        group, equals, choice = word.lstrip("+").partition("=")
        if equals and {"", "null"} & set(choice.split(",")) and group in groups_of(config_name):
            listed = ", ".join(choices(group))
            return _fail(f"error: {group}={choice} is no choice: leave it out, or give one of: {listed}.", 2)
        if not _is_unicode(word):
            shown = os.fsencode(word).decode(errors="backslashreplace")
            return _fail(
                f"error: '{shown}' is not {sys.getfilesystemencoding()}: rename it, or let LC_ALL name the encoding it "
                "is written in (LC_ALL=C.UTF-8).",
                2,
            )
        # Before Hydra sees it, which writes the overrides of a sweep to disk.
        if holds_secret(word):
            return _fail(
                f"error: option '{word.partition('=')[0]}' holds a token or password, which would be written to "
                "config.yaml: leave it out, and give it in the environment (HF_TOKEN, WANDB_API_KEY).",
                2,
            )
    unknown = [word for word in sys.argv[1:] if word.startswith("-") and word.partition("=")[0] not in _FLAGS]
    if unknown:
        return _fail(f"error: unknown flag '{unknown[0]}': options look like key=value; flags: {', '.join(_FLAGS)}.", 2)
    modes = [word for word in sys.argv[1:] if word in _MODES]
    if len(modes) > 1:
        return _fail(f"error: {' and '.join(modes)} do not go together: give one of them.", 2)
    # Hydra prints errors itself, several lines each, unless it is asked for the bare exception.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        _compose_and_run(config_name, schema, task, place, one_each, several)
    except UserError as error:
        return _fail(f"error: {error}", 2)
    except RunFailed as error:
        return _fail(f"failed: {error}", 1)
    except (Interrupted, KeyboardInterrupt) as error:
        return _fail(f"\ninterrupted: {str(error) or 'what was finished is kept; the same command goes on'}", 130)
    return 0


def heed_signals() -> None:
    """Let SIGTERM, and SIGHUP unless it is ignored (`nohup`), end the process as Ctrl-C does: in order, with a line.

    Not one of several processes: one that waits for another inside of gloo or nccl hears no Python handler.
    """
    if processes() > 1:
        return
    # Windows has no SIGHUP.
    for number in filter(None, (signal.SIGTERM, getattr(signal, "SIGHUP", None))):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, interrupt)


def _is_unicode(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fail(line: str, status: int) -> int:
    """Print the last line of a command that did not succeed; returns its exit status."""
    if not is_main_process():
        torch = sys.modules.get("torch")
        if status == 130 or torch is None or not torch.distributed.is_initialized():
            # All processes stop together, and all make the same mistake before they meet: one of them tells it.
            return status
        line = f"process {os.environ['RANK']}: {line.strip()}"
    print(redacted(line), file=sys.stderr)
    return status


def _compose_and_run(
    config_name: str, schema: type, task: Task, place: Place, one_each: bool, several: Several | None
) -> None:
    words = sys.argv[1:]
    sys.argv[1:] = quoted_words(words, schema, sweep=bool({"-m", "--multirun"} & set(words)))
    sweep = Sweep(one_each)
    if one_each:
        refuse_shared_output(words)
    failures: list[Exception] = []
    waiting: list[Placed] = []

    def guarded(work: Callable[[], object]) -> None:
        # Hydra would print errors in words of its own; so they are kept until its end.
        try:
            work()
        except (UserError, RunFailed) as error:
            failures.append(error)
        except Interrupted as interrupted:
            raise KeyboardInterrupt(str(interrupted)) from interrupted
        except Exception as error:
            reason = write_failure(error)
            if reason is None:
                raise
            failures.append(UserError(f"{reason}. {_mend(error)}"))

    def work_on(run: Composed) -> None:
        # A launcher may run this in a process of its own.
        shield_streams()
        job = run.job
        if job is None:
            guarded(lambda: task(run.typed(), run.overrides))
        elif several is not None and job.launcher == IN_PROCESS:
            guarded(lambda: waiting.extend(sweep.place(job, run.typed, run.overrides, place, waiting)))
        else:
            guarded(lambda: sweep.run(job, run.typed, run.overrides, task, place))

    try:
        run_composed(config_name, schema, work_on)
        if several is not None and not failures:
            guarded(lambda: several(waiting, sweep))
    finally:
        outcomes = sweep.close()
    if failures:
        raise failures[0]
    tell(outcomes)


def _mend(error: Exception) -> str:
    """What to do about something that could not be written."""
    name = getattr(error, "filename", None)
    here = isinstance(name, str) and not Path(name).is_absolute()
    if here and isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"This folder ({Path.cwd()}) cannot be written: start in another, or give output_dir=DIR and, in training, "
            "data.cache=false; in a sweep hydra.sweep.dir=DIR."
        )
    return "Nothing that was there is damaged: mend it and start again."


def group_table(config_name: str) -> str:
    """The groups that a command composes and their choices, for the end of its help text."""
    lines = [f"  {group:<12}{', '.join(choices(group))}" for group in groups_of(config_name)]
    return "Groups (group=choice):\n" + "\n".join(lines) + "\n"


def default_data_lines() -> str:
    """Which models are trained on what where `data` is not given, for the help text."""
    own: dict[str, list[str]] = {}
    for model in choices("model"):
        own.setdefault(default_data(model), []).append(model)
    own.pop(ModelConfig.default_data, None)
    named = [f"{data} for {', '.join(models)}" for data, models in sorted(own.items())]
    return f"Without data=: {', '.join([*named, f'{ModelConfig.default_data} for every other model'])}.\n"


def check_folders(model: ModelConfig, data_dir: str | None) -> None:
    """Refuse folders that do not exist, before anything slow is imported.

    Raises:
        UserError: for `model.path` or `data_dir`.
    """
    _ = model.location
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"data_dir={data_dir} is not a folder: give the mirror that holds <name>/<split>.jsonl.")
