"""Paths inside a run directory, and how its files are written. No other module knows either.

config.yaml     the resolved config that ran
run.json        status (running, done, failed, interrupted), identity (of weights, rows, prompt), versions, device,
                seed, order_of_seed, and together: the runs that shared its pass over the backbone
plan.json       what a dry run found
metrics.jsonl   one line per log step
metrics.json    the run's figures
completions.jsonl    what a run that learns from rewards has sampled, step by step
bad_batch.json  the rows of a step whose loss or gradient was not finite
checkpoints/    what resuming needs
adapter/        adapter_config.json, adapter_model.safetensors, prompt.json, backbone.json, SHA256SUMS
.lock           held by the process that writes here
eval/           <benchmark>/samples.jsonl, settings.json and result.json, with repeat-2/, repeat-3/ ... beside them,
                which have samples and settings of their own; summary.json
"""

import contextlib
import glob
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ladder_cli.config.methods import METHOD_KINDS
from ladder_cli.config.options import Role, covers, option_names, options_of
from ladder_cli.config.quoting import unquoted
from ladder_cli.config.schema import MOVED, OUTPUTS, TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.run.files import move_into_place, remove_folder, seal, temporary_for, write_text
from ladder_cli.run.identity import RunIdentity

TOKEN_CACHE = OUTPUTS / ".cache" / "tokens"
TAP_CACHE = OUTPUTS / ".cache" / "taps"
# Inside a folder of evaluations, and inside that of each benchmark.
SUMMARY = "summary.json"
EVALUATION = "eval"
PROMPT = "prompt.json"
BACKBONE = "backbone.json"  # of the adapter: the identity of the weights that it was trained on
ORDER_OF_SEED = "order_of_seed"  # of run.json
SAMPLES, SETTINGS, RESULT = "samples.jsonl", "settings.json", "result.json"
_SET_ASIDE = re.compile(r"\.old-\d+$")
_LARGEST_CONFIG = 2**20  # characters
# Of a name: bytes, since file systems count those. What is cut off or changed is stood for by a hash.
_LONGEST_NAME = 180
_HASH_DIGITS = 8
# What a run directory may hold before it has a run.json.
_OWN = frozenset(
    {
        *("config.yaml", "run.json", "plan.json", "metrics.jsonl", "metrics.json", "bad_batch.json"),
        "completions.jsonl",
        *(
            "checkpoints",
            "tensorboard",
            "adapter",
            ".adapter",
            ".discarded-adapter",
            ".discarded-.adapter",
            ".lock",
            EVALUATION,
        ),
    }
)


class RunDir:
    """One run's directory."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def run(self) -> Path:
        """Status and provenance."""
        return self.path / "run.json"

    @property
    def plan(self) -> Path:
        """What a dry run found."""
        return self.path / "plan.json"

    @property
    def metrics_log(self) -> Path:
        """One JSON line per log step."""
        return self.path / "metrics.jsonl"

    @property
    def metrics(self) -> Path:
        """The run's figures."""
        return self.path / "metrics.json"

    @property
    def completions(self) -> Path:
        """What was sampled to learn from, with its rewards."""
        return self.path / "completions.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """Folder of the trained adapter."""
        return self.path / "adapter"

    @property
    def prompt(self) -> Path:
        """The prompt rendering that the adapter was trained with."""
        return self.adapter / PROMPT

    @property
    def backbone(self) -> Path:
        """The weights that the adapter was trained on."""
        return self.adapter / BACKBONE

    @property
    def bad_batch(self) -> Path:
        """The rows of a step that was refused because its loss or gradient was not finite."""
        return self.path / "bad_batch.json"

    @property
    def evaluation(self) -> Path:
        """Folder of evaluations."""
        return self.path / EVALUATION

    @contextlib.contextmanager
    def new_adapter(self) -> Iterator[Path]:
        """A folder to fill, which becomes the adapter, whole and with checksums, when nothing was raised."""
        staged = self.path / ".adapter"
        remove_folder(staged)
        staged.mkdir(parents=True)
        yield staged
        seal(staged)
        move_into_place(staged, self.adapter)

    def status(self) -> str | None:
        """`running`, `done`, `failed`, `interrupted`, or None where nothing ran yet."""
        return read_json(self.run).get("status") if self.run.is_file() else None

    def order_of_seed(self) -> int | None:
        """The seed whose order its rows came in, perhaps that of a run beside it; None where nobody recorded it."""
        recorded = read_json(self.run).get(ORDER_OF_SEED) if self.run.is_file() else None
        return recorded if isinstance(recorded, int) else None

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the resolved config."""
        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(config)))

    def read_config(self) -> Any:
        """The config that ran, as an OmegaConf container.

        Raises:
            UserError: if this is no run directory.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path} is not a run directory: it has no config.yaml.")
        try:
            text = self.config.read_text(encoding="utf-8")
            _check_plain(text)
            config = OmegaConf.create(text)
            if not isinstance(config, DictConfig):
                raise UserError("holds no options but a list: restore it.")
            _leave_out_moved(config)
            return config
        except UserError as error:
            raise UserError(f"{self.config} {error}") from error
        except Exception as error:  # yaml's and OmegaConf's errors share no base class
            raise UserError(f"{self.config} cannot be read: {' '.join(str(error).split())[:200]}.") from error

    def identity(self) -> RunIdentity:
        """What ran here; of an old directory, which recorded no identity, all but weights and prompt.

        Raises:
            UserError: if config.yaml or run.json is missing or cannot be read.
        """
        record = read_json(self.run) if self.run.is_file() else {}
        content = record.get("identity", {"rows": record.get("data_fingerprint")})
        try:
            return RunIdentity.of_config(OmegaConf.to_container(self.read_config()), content)  # type: ignore[arg-type]
        except ValueError as error:
            raise UserError(f"{self.run} cannot be read ({error}): restore it, or delete it to start over.") from error

    def refuse_other(self, now: RunIdentity) -> None:
        """Refuse to go on with another run than the one that stands here.

        Raises:
            UserError: with every part that differs, before -> now.
        """
        if differences := self.identity().differences(now):
            raise UserError(
                f"{self.path} holds another run ({'; '.join(differences)}): give another output_dir, or resume=false "
                "to set that run aside."
            )

    def experiment(self) -> str:
        """What the runs of one experiment have in common: all that identifies them but the seed."""
        return json.dumps(self.identity().experiment(), sort_keys=True)

    def refuse_other_folder(self) -> None:
        """Refuse to write into what is no folder, or into a folder that holds anything but a run.

        Raises:
            UserError: naming what is there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"output_dir={self.path} is a file: give the name of a folder.")
        if foreign := self._foreign():
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise UserError(
                f"output_dir={self.path} is a folder with other things in it ({shown}) and no run: give the name of a "
                "folder that is new, empty, or a run's."
            )

    def _foreign(self) -> list[str]:
        """What lies in the folder and is no run's; nothing in a run directory, whatever else is beside its files."""
        if not self.path.is_dir():
            return []
        if self.run.is_file() and (self.config.is_file() or "status" in read_json(self.run)):
            return []
        # A write that was cut off leaves its temporary file.
        return sorted(item.name for item in self.path.iterdir() if temporary_for(item.name) not in _OWN)

    def set_aside(self) -> Path | None:
        """Rename the directory to the first free `<name>.old-N`; nothing is deleted.

        Raises:
            UserError: if it is no run directory, or this process works inside it.
        """
        if not self.path.exists():
            return None
        self.refuse_other_folder()
        whole = self.path.resolve()
        if Path.cwd().is_relative_to(whole):
            raise UserError(f"output_dir={self.path} cannot be set aside from inside: change to the folder above it.")
        if not whole.is_dir() or not any(item.name != ".lock" for item in whole.iterdir()):
            return None
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        return self.path.rename(target)


def is_set_aside(path: Path | str) -> bool:
    """Whether `RunDir.set_aside` gave this folder its name: an earlier run, which no pattern means."""
    return _SET_ASIDE.search(Path(path).name) is not None


def match_folders(pattern: str) -> tuple[list[str], list[str]]:
    """The folders that a path or glob names, in order, and those of them that are left out as set aside.

    A pattern that itself says `.old-` means the ones that were set aside.
    """
    if Path(pattern).is_dir():
        return [pattern], []
    found = sorted(path for path in glob.glob(pattern) if Path(path).is_dir())
    if ".old-" in pattern:
        return found, []
    return [path for path in found if not is_set_aside(path)], [path for path in found if is_set_aside(path)]


def find_runs(pattern: str) -> list[RunDir]:
    """Run directories by path or glob, without those that were set aside (`NAME.old-1`).

    Raises:
        UserError: if there is none.
    """
    found, _ = match_folders(pattern)
    runs = [RunDir(path) for path in found if RunDir(path).config.is_file()]
    if not runs:
        raise UserError(f"run={pattern} names no run directory (a folder with config.yaml).")
    return runs


def run_names(runs: Sequence[RunDir]) -> dict[Path, str]:
    """A name for each run: that of its folder, and as many of those above it as tell the runs apart."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return {run.path: name for run, name in zip(runs, names, strict=True)}


def repeat_folder(benchmark: Path, repeat: int) -> Path:
    """Where the samples of a benchmark's repeat go; the first one, 0, has no folder of its own."""
    return benchmark / f"repeat-{repeat + 1}" if repeat else benchmark


def pattern_name(pattern: str) -> str:
    """`outputs/sweep/*` is `sweep`, `outputs/ladder-*` is `ladder`."""
    parts = [re.sub(r"\[[^]]*\]|[*?]", "", part).strip(",-_=. ") for part in Path(pattern).parts]
    return next((part for part in reversed(parts) if part), "runs")


def _check_plain(text: str) -> None:
    """Refuse what `write_config` never writes: interpolations, which read the environment, and aliases, by which a few
    lines stand for gigabytes.
    """
    if len(text) > _LARGEST_CONFIG:
        raise UserError("is no config of a run: it is too large.")
    if "${" in text:
        raise UserError("holds an interpolation (${...}), but the config of a run is resolved: restore it.")
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise UserError("holds YAML aliases (*name), which no run writes: restore it.")


def _leave_out_moved(config: DictConfig) -> None:
    """Take out, in place, what options were called before they moved: their values stand under the new names too."""
    for old in MOVED:
        group, _, name = old.partition(".")
        if isinstance(config.get(group), DictConfig):
            config[group].pop(name, None)


def safe_name(name: str, exact: str | None = None) -> str:
    """A name that stays one name inside a path: no separator in it, no leading dot, at most 180 bytes.

    Where anything had to be changed or cut off, a hash of `exact` (by default the name itself) stands at the end, so
    that different names stay different.

    Args:
        exact: what the name stands for, if it is an abridgement already; the hash is then always there.
    """
    safe = re.sub(r"[^\w.,=@+-]+", "_", name).lstrip(".") or "_"
    if exact is None and safe == name and len(safe.encode()) <= _LONGEST_NAME:
        return safe
    mark = "@" + hashlib.sha256((exact if exact is not None else name).encode()).hexdigest()[:_HASH_DIGITS]
    return safe.encode()[: _LONGEST_NAME - len(mark)].decode(errors="ignore") + mark


def default_path(method: str, model: str, data: str, overrides: list[str], folder: Path = OUTPUTS) -> Path:
    """`<folder>/<method>-<model>-<data>[,option=value...][@hash]`: other options, another directory; no timestamps.

    Options that cannot change the result take no part, and neither do quotes around a value. A place (`model.path`) is
    shortened to its last component; a hash of the options stands at the end where the name alone would not tell them
    apart.
    """
    incidental, places = (options_of(TrainConfig, role) for role in (Role.INCIDENTAL, Role.PLACE))
    chosen = {"method": method, "model": model, "data": data}
    last: dict[str, str] = {}
    for override in overrides:
        # Later ones win, as in Hydra.
        key, _, typed = override.lstrip("+").partition("=")
        last[key] = unquoted(typed)
    given = {key: value for key, value in last.items() if chosen.get(key) != value and not covers(incidental, key)}
    extras, exact = [], True
    for key, value in given.items():
        shown = value
        if covers(places, key):
            shown = Path(value).name or value
        extras.append(f"{_short(key)}={shown}")
        exact = exact and shown == value and not set(",=@") & set(value)
    name = ",".join([f"{method}-{model}-{data}", *sorted(extras)])
    options = json.dumps([method, model, data, sorted(given.items())])
    return folder / safe_name(name, None if exact and safe_name(name) == name else options)


def _short(key: str) -> str:
    """The last part of a dotted option, where no other option ends alike."""
    last = key.rpartition(".")[2]
    options = [
        *option_names(TrainConfig),
        *{name for kind in METHOD_KINDS.values() for name in option_names(kind, "method.")},
    ]
    return last if sum(option.rpartition(".")[2] == last for option in options) <= 1 else key


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: if the file cannot be read as one.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore it, or delete it to start over.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object.")
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object whole or not at all."""
    write_text(path, json.dumps(values, indent=2) + "\n")
