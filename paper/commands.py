"""Parses the commands of a table: which configurations a sweep runs."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.schema import TrainConfig

TRAIN, EVALUATE = "ladder-train", "ladder-eval"


def runs_of(command: str) -> list[list[str]]:
    """Return the options of every run of a `ladder-train` command, without Hydra's own; empty for other commands.

    Commas inside brackets belong to a value.
    """
    name, *words = shlex.split(command)
    if name != TRAIN:
        return []
    options = [word for word in words if word != "-m" and not word.startswith("hydra.")]
    swept = "-m" in words
    choices = []
    for option in options:
        key, _, values = option.partition("=")
        choices.append([f"{key}={value}" for value in (_split(values) if swept else [values])])
    return [list(run) for run in product(*choices)]


def configs_of(commands: Iterable[str]) -> list[TrainConfig]:
    """Compose every configuration that the training commands among `commands` run.

    Raises:
        UserError: as the command itself.
    """
    return [composed("train", TrainConfig, run) for command in commands for run in runs_of(command)]


def evaluations_of(commands: Iterable[str]) -> list[EvaluateConfig]:
    """Compose the configurations of the `ladder-eval` commands among `commands`.

    Raises:
        UserError: as the command itself.
    """
    found = [shlex.split(command) for command in commands]
    return [composed("evaluate", EvaluateConfig, words[1:]) for words in found if words[0] == EVALUATE]


def _split(values: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@dataclass(frozen=True)
class Cell:
    """The runs of one backbone and method within a table.

    Attributes:
        label: "<backbone> <method>".
        configs: one for each budget and seed.
    """

    label: str
    configs: tuple[TrainConfig, ...]


def cells_of(commands: Iterable[str]) -> list[Cell]:
    """Group the runs of a table's training commands by backbone and method."""
    cells: dict[str, Cell] = {}
    for config in configs_of(commands):
        label = f"{config.model.name} {config.method.name}"
        cell = cells.get(label, Cell(label, ()))
        cells[label] = replace(cell, configs=(*cell.configs, config))
    return list(cells.values())
