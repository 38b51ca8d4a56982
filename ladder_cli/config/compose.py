"""From the files of `conf/` and a command line to a typed config: the one module that knows how Hydra composes.

Prints nothing. Imports no torch, and Hydra itself only where something is composed.
"""

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ladder_cli.config.methods import METHOD_KINDS
from ladder_cli.config.options import choices_of, flat, hints_of
from ladder_cli.config.quoting import as_typed
from ladder_cli.config.schema import MOVED, OUTPUTS, EvaluateConfig, ModelConfig, TrainConfig, option_names
from ladder_cli.config.using import ChatConfig, ExportConfig
from ladder_cli.config.validation import suggest
from ladder_cli.errors import UserError

CONFIG_MODULE = "ladder_cli.conf"
_DATA_OF = "of-"  # names what a model is trained on by default, in the group `data`
_HARDWARE = "hardware"  # the group whose files set options of other groups too
_COMMANDS = {
    "ladder-train": TrainConfig,
    "ladder-eval": EvaluateConfig,
    "ladder-chat": ChatConfig,
    "ladder-export": ExportConfig,
}
# Groups that files of conf/hardware set options of, although the command does not have them (`_leave_out_presets`).
PRESET_GROUPS: dict[type, tuple[str, ...]] = {
    TrainConfig: (),
    EvaluateConfig: ("method", "train"),
    ChatConfig: ("method", "train"),
    ExportConfig: ("method", "train"),
}


IN_PROCESS = "basic"  # the launcher that runs the jobs of a sweep in this process, one after the other


@dataclasses.dataclass(frozen=True)
class SweepJob:
    """What Hydra says of one run of a sweep (`-m`).

    Attributes:
        number: of the run within the sweep, from 0.
        folder: of the sweep.
        launcher: that starts it, by its name in the group `hydra/launcher`.
        workers: processes of this machine among which the launcher shares the sweep; 1 where it does not say.
    """

    number: int
    folder: str
    launcher: str
    workers: int = 1


@dataclasses.dataclass(frozen=True)
class Composed:
    """What Hydra made of the command line, for one run.

    Attributes:
        typed: gives the typed config, or raises what is wrong with it (a UserError).
        overrides: the options that made it, as they were given.
        job: of the sweep that it belongs to; None for a run by itself.
    """

    typed: Callable[[], Any]
    overrides: list[str]
    job: SweepJob | None = None


def run_composed(config_name: str, schema: type, work: Callable[[Composed], None]) -> None:
    """Compose the config that `sys.argv` asks for and work on it; in a sweep once for each of its runs, wherever the
    launcher starts them.

    Raises:
        UserError: if Hydra cannot compose it; whatever `work` raises.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _store_generated(config_name, schema)

    def task(config: DictConfig) -> None:
        # As they were typed: an interpolation in one of them is for `parse` to complain of.
        words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        overrides = [str(word) for word in words]
        work(Composed(lambda: _parse_composed(config, schema, overrides), overrides, sweep_job()))

    try:
        hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name=config_name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, schema)) from error


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
            return _parse_composed(compose(config_name, overrides), schema, overrides)
    except HydraException as error:
        raise UserError(explain(error, schema)) from error


def _parse_composed(config: Any, schema: type, overrides: list[str]) -> Any:
    from omegaconf import OmegaConf

    OmegaConf.set_struct(config, False)
    _leave_out_presets(config, schema, given_options(overrides))
    return parse(config, schema)


def _leave_out_presets(config: Any, schema: type, given: list[str]) -> None:
    """Take out, in place, what the files of conf/hardware set of groups and options that this command or method does
    not have. What was given on the command line stays, and is refused as any other unknown option.
    """
    known = {item.name for item in dataclasses.fields(schema)}
    for group, options in preset_options().items():
        own: list[str] = options if group in known else []
        if group == "method" and group in known:
            kind = METHOD_KINDS.get(str(config.method.get("kind")))
            own = option_names(kind) if kind is not None else options
        for name in options:
            if name not in own and f"{group}.{name}" not in given and config.get(group):
                config[group].pop(name, None)
        if group not in known and not config.get(group):
            config.pop(group, None)


@cache
def preset_options() -> dict[str, list[str]]:
    """The options outside of their own group that files of conf/hardware set, by group."""
    found: dict[str, dict[str, None]] = {}
    for choice in choices(_HARDWARE):
        for group, options in _declared(_HARDWARE, choice).items():
            if group != _HARDWARE:
                found.setdefault(group, {}).update(dict.fromkeys(options))
    return {group: list(options) for group, options in found.items()}


def given_options(overrides: list[str]) -> list[str]:
    """The dotted options that a command line gives a value: `+a.b=1` and `a={b: 1}` both give `a.b`. Choices of groups
    (`data=jsonl`) are among them.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    names: dict[str, None] = {}
    for override in OverridesParser.create().parse_overrides(overrides):
        if not override.is_delete():
            value: Any = override.value()
            names |= dict.fromkeys(flat(value, f"{override.key_or_group}."))
    return list(names)


def parse(config: Any, schema: type) -> Any:
    """Merge a resolved or composed config strictly into its dataclass.

    Raises:
        UserError: for an unknown option, a wrong type, a missing or an impossible value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

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
        UserError: in the words of `explain`, or of the dataclass itself.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(OmegaConf.structured(_as_texts(schema)), OmegaConf.create(values))
        texts = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, schema, prefix)) from error
    return _typed(schema, texts)


@cache
def _as_texts(schema: type, *more: str) -> type:
    """A dataclass as OmegaConf is to see it: with texts for choices, which OmegaConf would look up by the names of
    their members and not by their values.

    Args:
        more: groups that a file may set options of, although the command does not have them.
    """
    columns = []
    for item in dataclasses.fields(schema):
        hint, default = hints_of(schema)[item.name], item.default_factory
        if choices_of(hint) is not None:
            hint = str | None if item.default is None else str
        if isinstance(default, type) and dataclasses.is_dataclass(default):
            hint = default = _as_texts(default)
        told: dict[str, Any] = {"default": item.default}
        if default is not dataclasses.MISSING:
            told = {"default_factory": default}
        elif isinstance(item.default, StrEnum):
            told = {"default": item.default.value}
        columns.append((item.name, hint, dataclasses.field(**told)))
    columns += [(name, Any, dataclasses.field(default=None)) for name in more]
    made = dataclasses.make_dataclass(f"_{schema.__name__}AsTexts", columns)
    # Launchers of sweeps pickle what Hydra stores: by name, since a pickled copy of a dataclass loses its defaults.
    made.__module__, made.__qualname__ = __name__, made.__name__
    globals()[made.__name__] = made
    return made


def _typed(schema: type, texts: Any) -> Any:
    """The dataclass itself from what `_as_texts` made of it."""
    values = {}
    for item in dataclasses.fields(schema):
        value, default = getattr(texts, item.name), item.default_factory
        if isinstance(default, type) and dataclasses.is_dataclass(default):
            value = _typed(default, value)
        values[item.name] = value
    return schema(**values)


def explain(error: Exception, schema: type, prefix: str = "") -> str:
    """One line for an error of Hydra or OmegaConf: what is wrong, the nearest name, what to do."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

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
        group, _, name = key.rpartition(".")
        in_file = f"write `{name}:` into its file of conf/{group}" if choices(group) else ""
        typed = f"give {key}=VALUE" if not prefix else ""
        return f"option '{key}' has no value: {' or '.join(filter(None, (in_file, typed)))}."
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
        if key in MOVED:
            return _moved(key, schema)
        owners = [kind for kind, options in METHOD_KINDS.items() if key in option_names(options, "method.")]
        if owners:
            return f"option '{key}' does not belong to the chosen method: it is one of {' and '.join(owners)}."
        parent = key.rpartition(".")[0]
        siblings = sorted({name for name in names if name.rpartition(".")[0] == parent})
        listed = f" Options here: {', '.join(siblings)}." if siblings else ""
        return f"unknown option '{key}'.{suggest(key, names)}{listed}"
    reason = str(cause).splitlines()[0].rstrip(".")
    if reason.startswith("Ambiguous value"):
        reason += ": several values at once are a sweep, which needs the flag -m"
    return f"option '{key}': {reason}." if key else f"{reason}."


def _moved(old: str, schema: type) -> str:
    """The line about an option that has another name now."""
    new = MOVED[old]
    group = new.partition(".")[0]
    if group in {item.name for item in dataclasses.fields(schema)}:
        return f"option '{old}' has moved: give {new}=VALUE."
    owners = [name for name, other in _COMMANDS.items() if group in {item.name for item in dataclasses.fields(other)}]
    return f"option '{old}' has moved: it is {new} of {' and '.join(owners)} now."


def _store_generated(config_name: str, schema: type) -> None:
    """Put into Hydra's store what the YAML files refer to and do not hold."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    # The first entry of the defaults lists: every option with its default, so that the YAML files need not repeat it.
    store.store(name=f"{config_name}_schema", node=_as_texts(schema, *PRESET_GROUPS[schema]), replace=True)
    # `data: of-${model}` in conf/train.yaml (docs/decisions/0013).
    for model in choices("model"):
        node = {"defaults": [default_data(model)]}
        store.store(group="data", name=f"{_DATA_OF}{model}", node=node, replace=True)


def default_data(model: str) -> str:
    """The data set that a model is trained on where `data` is not given: `default_data` of its file in `conf/model`."""
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
    job = sweep_job()
    return Path(job.folder) if job is not None else OUTPUTS


def sweep_job() -> SweepJob | None:
    """What Hydra says of the run of a sweep that it is at; None outside of a sweep, and where Hydra runs nothing."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    if not HydraConfig.initialized():
        return None  # composed from Python
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or OmegaConf.is_missing(hydra.job, "num"):
        return None
    launcher, workers = str(hydra.runtime.choices["hydra/launcher"]), hydra.launcher.get("n_jobs")
    return SweepJob(int(hydra.job.num), str(hydra.sweep.dir), launcher, int(workers) if workers is not None else 1)


def groups() -> list[str]:
    """The config groups, in alphabetical order."""
    return sorted(entry.name for entry in files(CONFIG_MODULE).iterdir() if entry.is_dir() and choices(entry.name))


def groups_of(config_name: str) -> list[str]:
    """The groups of which a command takes a choice (conf/train.yaml, conf/evaluate.yaml), in alphabetical order."""
    import yaml

    entries = yaml.safe_load((files(CONFIG_MODULE) / f"{config_name}.yaml").read_text())["defaults"]
    named = {key for entry in entries if isinstance(entry, dict) for key in entry}
    return [group for group in groups() if group in named]


def choices(group: str) -> list[str]:
    """The YAML files of a group, without suffix; empty if there is no such group."""
    folder = files(CONFIG_MODULE)
    for part in group.split("/") if group else []:
        folder = folder / part
    if not folder.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def as_dict(config: Any) -> dict[str, Any]:
    """A typed config as plain containers and texts, for files."""
    values: dict[str, Any] = _plain(dataclasses.asdict(config))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


# For the processes that a launcher starts: what they are sent names these classes.
for _schema, _groups in PRESET_GROUPS.items():
    _as_texts(_schema, *_groups)
