"""Paths inside a run directory, and how its files are written. No other module knows either.

config.yaml     the resolved config that ran
run.json        status (running, done, failed, interrupted), versions, device, data fingerprint, seed
plan.json       what a dry run found
metrics.jsonl   one line per log step
metrics.json    the run's figures
bad_batch.json  the rows of a step whose loss or gradient was not finite
checkpoints/    what resuming needs
adapter/        adapter_config.json, adapter_model.safetensors, prompt.json, SHA256SUMS
.lock           held by the process that writes here
eval/           <benchmark>/samples.jsonl, settings.json and result.json, with repeat-2/, repeat-3/ ... beside them,
                which have samples and settings of their own; summary.json
"""

import contextlib
import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from ladder_cli.errors import UserError
from ladder_cli.files import move_into_place, remove_folder, seal, write_text

OUTPUTS = Path("outputs")
TOKEN_CACHE = OUTPUTS / ".cache" / "tokens"
# Inside a folder of evaluations, and inside that of each benchmark.
SUMMARY = "summary.json"
EVALUATION = "eval"
PROMPT = "prompt.json"
SAMPLES, SETTINGS, RESULT = "samples.jsonl", "settings.json", "result.json"
# Options that do not change what is learned, and so neither name a run nor forbid to resume it.
INCIDENTAL = (
    *("output_dir", "data_dir", "resume", "dry_run", "preflight", "tracking", "train.logging_steps"),
    *("model.path", "model.shape", "data.cache"),
    *("hardware.name", "hardware.workers", "hardware.memory_gb", "hardware.eval_batch_size"),
    "hardware.shard_backbone",
)
_SET_ASIDE = re.compile(r"\.old-\d+$")
_LARGEST_CONFIG = 2**20  # characters
_GROUPS = ("method", "model", "data", "experiment", "hardware")


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
            return OmegaConf.create(text)
        except UserError as error:
            raise UserError(f"{self.config} {error}") from error
        except Exception as error:  # yaml's and OmegaConf's errors share no base class
            raise UserError(f"{self.config} cannot be read: {' '.join(str(error).split())[:200]}.") from error

    def refuse_other_config(self, config: dict[str, Any]) -> None:
        """Refuse to continue a run under another config than it started with.

        Raises:
            UserError: with every difference that matters.
        """
        before = _flat(OmegaConf.to_container(self.read_config()))
        now = _flat(config)
        differences = [
            f"{key}: {before.get(key)} -> {now.get(key)}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and not key.startswith(INCIDENTAL)
        ]
        if differences:
            raise UserError(
                f"{self.path} holds a run of another config ({'; '.join(differences)}): give another output_dir, or "
                "resume=false to set that run aside."
            )

    def experiment(self) -> str:
        """What the runs of one experiment have in common: their config without the seed and incidental options."""
        config = _flat(OmegaConf.to_container(self.read_config()))
        return json.dumps({key: config[key] for key in sorted(config) if not key.startswith(("seed", *INCIDENTAL))})

    def set_aside(self) -> Path | None:
        """Rename the directory to the first free `<name>.old-N`; nothing is deleted."""
        if not self.path.exists():
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


def safe_name(name: str) -> str:
    """A name that stays one name inside a path: no separator in it, no leading dot."""
    return re.sub(r"[^\w.,=@+-]+", "_", name).lstrip(".")[:180] or "_"


def default_path(method: str, model: str, data: str, overrides: list[str], folder: Path = OUTPUTS) -> Path:
    """`<folder>/<method>-<model>-<data>[,option=value...]`: other options, another directory; no timestamps."""
    extras = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if (key in _GROUPS and key != "experiment") or key.startswith(INCIDENTAL):
            continue
        extras.append(f"{key.rpartition('.')[2]}={value}")
    name = ",".join([f"{method}-{model}-{data}", *sorted(extras)])
    return folder / safe_name(name)


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


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat
