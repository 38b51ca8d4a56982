"""From the files of `conf/` and a command line to a typed config: the one module that knows how Hydra composes.

Prints nothing. Imports no torch, and Hydra itself only where something is composed.
"""

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from ladder_cli.config.catalogue import CONFIG_MODULE, choices, default_data, preset_options
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.explaining import DATA_OF, explain
from ladder_cli.config.methods import METHOD_KINDS
from ladder_cli.config.options import choices_of, flat, hints_of, option_names
from ladder_cli.config.schema import OUTPUTS, TrainConfig
from ladder_cli.config.using import ChatConfig, ExportConfig
from ladder_cli.errors import UserError

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


def _store_generated(config_name: str, schema: type) -> None:
    """Put into Hydra's store what the YAML files refer to and do not hold."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    # The first entry of the defaults lists: every option with its default, so that the YAML files need not repeat it.
    store.store(name=f"{config_name}_schema", node=_as_texts(schema, *PRESET_GROUPS[schema]), replace=True)
    # `data: of-${model}` in conf/train.yaml (docs/decisions/0013).
    for model in choices("model"):
        node = {"defaults": [default_data(model)]}
        store.store(group="data", name=f"{DATA_OF}{model}", node=node, replace=True)


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
