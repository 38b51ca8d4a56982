"""One line for what Hydra or OmegaConf refuses: what is wrong, the nearest name, what to do."""

import dataclasses

from ladder_cli.config.catalogue import choices
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.methods import METHOD_KINDS
from ladder_cli.config.options import option_names
from ladder_cli.config.quoting import as_typed
from ladder_cli.config.schema import MOVED, TrainConfig
from ladder_cli.config.using import ChatConfig, ExportConfig
from ladder_cli.config.validation import suggest

DATA_OF = "of-"  # names what a model is trained on by default, in the group `data`
_COMMANDS = {
    "ladder-train": TrainConfig,
    "ladder-eval": EvaluateConfig,
    "ladder-chat": ChatConfig,
    "ladder-export": ExportConfig,
}


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
        if group == "data" and choice.startswith(DATA_OF):
            listed = ", ".join(choices("data"))
            return f"model={choice.removeprefix(DATA_OF)} names no data set of its own: give data=NAME, of: {listed}."
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
            which = f"it is one of {' and '.join(owners)}, to be chosen with method=NAME"
            return f"option '{key}' does not belong to the chosen method: {which}."
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
