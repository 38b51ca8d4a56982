"""The files of `conf/`: which groups and choices there are, and what they declare. Imports neither torch nor Hydra."""

from functools import cache
from importlib.resources import files
from typing import Any

from ladder_cli.config.schema import ModelConfig

CONFIG_MODULE = "ladder_cli.conf"
_HARDWARE = "hardware"  # the group whose files set options of other groups too


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


@cache
def preset_options() -> dict[str, list[str]]:
    """The options outside of their own group that files of conf/hardware set, by group."""
    found: dict[str, dict[str, None]] = {}
    for choice in choices(_HARDWARE):
        for group, options in declared(_HARDWARE, choice).items():
            if group != _HARDWARE:
                found.setdefault(group, {}).update(dict.fromkeys(options))
    return {group: list(options) for group, options in found.items()}


def default_data(model: str) -> str:
    """The data set that a model is trained on where `data` is not given: `default_data` of its file in `conf/model`."""
    return declared("model", model).get("default_data", ModelConfig.default_data)


def declared(group: str, choice: str) -> dict[str, Any]:
    """The top level of a YAML file in `conf/`, with what it takes over from others of its group."""
    import yaml

    values: dict[str, Any] = yaml.safe_load((files(CONFIG_MODULE) / group / f"{choice}.yaml").read_text()) or {}
    for base in values.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            values = declared(group, base) | values
    return values
