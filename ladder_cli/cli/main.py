"""The edge of both commands: help, strict parsing of the composed config, and exit statuses.

Exit status: 0 done; 2 the user's mistake, told in one line on stderr; 130 interrupted with the state saved;
1 anything else. A sweep goes on after a run that failed, and tells of all of them at its end. Nothing here imports
torch, so that help and mistakes are answered at once.
"""

import dataclasses
import errno
import logging
import os
import signal
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ladder_cli.config.quoting import as_typed, quoted_words
from ladder_cli.config.ranks import check_launch, is_main_process, processes
from ladder_cli.errors import Interrupted, RunFailed, UserError
from ladder_cli.run.credentials import holds_secret, redacted
from ladder_cli.run.directory import OUTPUTS
from ladder_cli.run.files import write_failure
from ladder_cli.run.sweep import Place, Sweep, Task, refuse_shared_output, tell
from ladder_cli.streams import shield_streams

if TYPE_CHECKING:
    from ladder_cli.config.schema import ModelConfig

CONFIG_MODULE = "ladder_cli.conf"
_DATA_OF = "of-"  # names what a model is trained on by default, in the group `data`
# Hydra's own.
_FLAGS = (
    *("--help", "-h", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--multirun", "-m", "--info", "-i"),
    *("--version", "--hydra-help", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun"),
)

_MODES = ("--cfg", "-c", "--run", "-r", "--multirun", "-m", "--info", "-i", "--shell-completion", "-sc")


def run(config_name: str, schema: type, task: Task, place: Place, help_text: str, one_each: bool = False) -> int:
    """Compose the config named `config_name`, check it against `schema`, run `task(config, overrides)`.

    Args:
        place: the directory that such a run writes to.
        one_each: of a sweep, every run needs a directory of its own.

    Returns:
        The exit status of the command.
    """
    shield_streams()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text + group_table())
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
        _compose_and_run(config_name, schema, task, place, one_each)
    except UserError as error:
        return _fail(f"error: {error}", 2)
    except RunFailed as error:
        return _fail(f"failed: {error}", 1)
    except (Interrupted, KeyboardInterrupt) as error:
        return _fail(f"\ninterrupted: {str(error) or 'what was finished is kept; the same command goes on'}", 130)
    return 0


def interrupt(number: int, frame: FrameType | None) -> None:
    """End this process as Ctrl-C does."""
    raise KeyboardInterrupt


def heed_signals() -> None:
    """Let SIGTERM, and SIGHUP unless it is ignored (`nohup`), end the process as Ctrl-C does: in order, with a line.

    Not one of several processes: one that waits for another inside of gloo or nccl hears no Python handler.
    """
    if processes() > 1:
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
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


def _compose_and_run(config_name: str, schema: type, task: Task, place: Place, one_each: bool) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _store_generated(config_name, schema)
    words = sys.argv[1:]
    sys.argv[1:] = quoted_words(words, schema, sweep=bool({"-m", "--multirun"} & set(words)))
    sweep = Sweep(one_each)
    if one_each:
        refuse_shared_output(words)
    failures: list[Exception] = []

    def checked_task(config: DictConfig) -> None:
        # A launcher may run this in a process of its own.
        shield_streams()
        # As they were typed: an interpolation in one of them is for `parse` to complain of.
        words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        overrides = [str(word) for word in words]
        # Hydra would print errors in words of its own; so they are kept until its end.
        try:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                sweep.run(lambda: parse(config, schema), overrides, task, place)
            else:
                task(parse(config, schema), overrides)
        except (UserError, RunFailed) as error:
            failures.append(error)
        except Interrupted as interrupted:
            raise KeyboardInterrupt(str(interrupted)) from interrupted
        except Exception as error:
            reason = write_failure(error)
            if reason is None:
                raise
            failures.append(UserError(f"{reason}. {_mend(error)}"))

    decorated = hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name=config_name)
    try:
        try:
            decorated(checked_task)()
        finally:
            outcomes = sweep.close()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, schema)) from error
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


def _store_generated(config_name: str, schema: type) -> None:
    """Put into Hydra's store what the YAML files refer to and do not hold."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    # The first entry of the defaults lists: every option with its default, so that the YAML files need not repeat it.
    store.store(name=f"{config_name}_schema", node=schema, replace=True)
    # `data: of-${model}` in conf/train.yaml (docs/decisions/0013).
    for model in choices("model"):
        node = {"defaults": [default_data(model)]}
        store.store(group="data", name=f"{_DATA_OF}{model}", node=node, replace=True)


def default_data(model: str) -> str:
    """The data set that a model is trained on where `data` is not given: `default_data` of its file in `conf/model`."""
    from ladder_cli.config.schema import ModelConfig

    return _declared("model", model).get("default_data", ModelConfig.default_data)


def _declared(group: str, choice: str) -> dict[str, Any]:
    """The top level of a YAML file in `conf/`, with what it takes over from others of its group."""
    import yaml

    values: dict[str, Any] = yaml.safe_load((files(CONFIG_MODULE) / group / f"{choice}.yaml").read_text()) or {}
    for base in values.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            values = _declared(group, base) | values
    return values


def output_folder() -> Path:
    """Where runs without an `output_dir` go: `outputs`, or `hydra.sweep.dir` in a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else OUTPUTS


def composed(config_name: str, schema: type, overrides: list[str]) -> Any:
    """The typed config that a command would see, for scripts and analyses.

    Raises:
        UserError: as the command itself.
    """
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException

    _store_generated(config_name, schema)
    try:
        with initialize_config_module(CONFIG_MODULE):
            return parse(compose(config_name, overrides), schema)
    except HydraException as error:
        raise UserError(explain(error, schema)) from error


def parse(config: Any, schema: type) -> Any:
    """Merge a composed config strictly into its dataclass.

    Raises:
        UserError: for an unknown option, a wrong type, a missing or an impossible value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from ladder_cli.config.methods import METHOD_KINDS

    try:
        OmegaConf.resolve(config)
        values: Any = OmegaConf.to_container(config)
        method = None
        if "method" in values:
            method_values = values.pop("method")
            kind = METHOD_KINDS.get(str(method_values.get("kind")))
            if kind is None:
                raise UserError(
                    f"method.kind={method_values.get('kind')} is unknown: choose from {', '.join(METHOD_KINDS)}."
                )
            method = merge_strictly(kind, method_values, "method.")
            values["method"] = {}
        typed = merge_strictly(schema, values, "")
        if method is not None:
            typed.method = method
    except OmegaConfBaseException as error:
        raise UserError(explain(error, schema)) from error
    return typed


def merge_strictly(schema: type, values: Any, prefix: str) -> Any:
    """Merge values into one dataclass; an unknown option or a wrong type is an error that carries its full name.

    Raises:
        UserError: in the words of `explain`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(values)))
    except OmegaConfBaseException as error:
        raise UserError(explain(error, schema, prefix)) from error


def explain(error: Exception, schema: type, prefix: str = "") -> str:
    """One line for an error of Hydra or OmegaConf: what is wrong, the nearest name, what to do."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

    from ladder_cli.config.methods import METHOD_KINDS
    from ladder_cli.config.schema import option_names
    from ladder_cli.config.validation import suggest

    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        typed = as_typed(key, value) if equals and value else None
        advice = f"; in quotes for Hydra and the shell: {typed}" if typed else "; close quotes and brackets"
        return f"cannot read '{error.override}': options look like key=value{advice}."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher":
            return (
                f"no launcher '{choice}': in the checkout of this toolkit, pip install -e '.[parallel]' brings joblib, "
                "and pip install -e '.[slurm]' submitit_slurm and submitit_local."
            )
        if group == "data" and choice.startswith(_DATA_OF):
            listed = ", ".join(choices("data"))
            return f"model={choice.removeprefix(_DATA_OF)} names no data set of its own: give data=NAME, of: {listed}."
        options = [option for option in choices(group) if option]
        return (
            f"no option '{error.missing_cfg_file}'.{suggest(choice, options)} "
            f"Choose from: {', '.join(options) or 'nothing'}."
        )
    cause = error if not isinstance(error.__cause__, Exception) else error.__cause__
    key = prefix + str(getattr(cause, "full_key", None) or "")
    if isinstance(cause, MissingMandatoryValue):
        return f"option '{key}' has no value: give {key}=VALUE."
    unknown = isinstance(cause, ConfigKeyError | ConfigAttributeError)
    if unknown or str(error).startswith("Could not override"):
        if str(error).startswith("Could not override '"):
            key = str(error).split("'")[1]
        if prefix:
            names = option_names(schema, prefix)
        else:
            names = option_names(schema)
            if "method" in names:
                names += [
                    "experiment",
                    *(name for kind in METHOD_KINDS.values() for name in option_names(kind, "method.")),
                ]
        if key in names:
            owners = [kind for kind, options in METHOD_KINDS.items() if key in option_names(options, "method.")]
            return f"option '{key}' does not belong to the chosen method: it is one of {' and '.join(owners)}."
        parent = key.rpartition(".")[0]
        siblings = sorted({name for name in names if name.rpartition(".")[0] == parent})
        listed = f" Options here: {', '.join(siblings)}." if siblings else ""
        return f"unknown option '{key}'.{suggest(key, names)}{listed}"
    reason = str(cause).splitlines()[0].rstrip(".")
    if reason.startswith("Ambiguous value"):
        reason += ": several values at once are a sweep, which needs the flag -m"
    return f"option '{key}': {reason}." if key else f"{reason}."


def groups() -> list[str]:
    """The config groups, in alphabetical order."""
    return sorted(entry.name for entry in files(CONFIG_MODULE).iterdir() if entry.is_dir() and choices(entry.name))


def choices(group: str) -> list[str]:
    """The YAML files of a group, without suffix; empty if there is no such group."""
    folder = files(CONFIG_MODULE)
    for part in group.split("/") if group else []:
        folder = folder / part
    if not folder.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def group_table() -> str:
    """The groups and their choices, for the end of the help text."""
    lines = [f"  {group:<12}{', '.join(choices(group))}" for group in groups()]
    return "Groups (group=choice):\n" + "\n".join(lines) + "\n"


def default_data_lines() -> str:
    """Which models are trained on what where `data` is not given, for the help text."""
    from ladder_cli.config.schema import ModelConfig

    own: dict[str, list[str]] = {}
    for model in choices("model"):
        own.setdefault(default_data(model), []).append(model)
    own.pop(ModelConfig.default_data, None)
    named = [f"{data} for {', '.join(models)}" for data, models in sorted(own.items())]
    return f"Without data=: {', '.join([*named, f'{ModelConfig.default_data} for every other model'])}.\n"


def check_folders(model: "ModelConfig", data_dir: str | None) -> None:
    """Refuse folders that do not exist, before anything slow is imported.

    Raises:
        UserError: for `model.path` or `data_dir`.
    """
    _ = model.location
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"data_dir={data_dir} is not a folder: give the mirror that holds <name>/<split>.jsonl.")


def quiet_libraries(model: "ModelConfig") -> None:
    """Keep the console for what this toolkit says itself; to be called before torch and Transformers are imported.

    Progress bars stay where a model may have to be downloaded.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if model.path is not None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # It says at import which kernels it lacks, and prints a line per int8 product.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")


def as_dict(config: Any) -> dict[str, Any]:
    """A typed config as plain containers, for files."""
    return dataclasses.asdict(config)
