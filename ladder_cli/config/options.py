"""An option of the config: what its field says of it, and the one check of values that follows from that.

A field carries its help, unit and bounds; its annotation carries its type, and its choices where they are an
enumeration (choices.py). Imports no torch.
"""

import os
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from ladder_cli.config.choices import parse_choice
from ladder_cli.config.validation import at_least as refuse_below
from ladder_cli.config.validation import between as refuse_outside

_OPTION = "option"


class Role(StrEnum):
    """What an option means for the identity of a run; an option without a role is a setting, and can change results."""

    INCIDENTAL = "incidental"  # changes no result: neither names a run nor keeps it from being continued
    PLACE = "place"  # says where or under what name content lies: names a run, but only the content is compared


@dataclass(frozen=True)
class Option:
    """What a field says of its option.

    Attributes:
        help: one line.
        unit: of its value.
        at_least, at_most: bounds, both allowed themselves.
        role: see `Role`.
        needs: another option of the same group and the value, or several, without which this one is not read.
        unless: another option of the same group and the value with which this one is not read.
    """

    help: str
    unit: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    role: Role | None = None
    needs: tuple[str, str | tuple[str, ...]] | None = None
    unless: tuple[str, Any] | None = None

    @property
    def readers(self) -> tuple[str, ...]:
        """The values of the other option that read this one; none where it needs no other."""
        if self.needs is None:
            return ()
        value = self.needs[1]
        return value if isinstance(value, tuple) else (value,)


def option(default: Any, help: str, **told: Any) -> Any:
    """A field with its `Option`.

    Args:
        default: a value, or a function that makes one where it is a list, a mapping or a group of options.
        told: the other attributes of `Option`.
    """
    metadata = {_OPTION: Option(help, **told)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def incidental(default: Any, help: str, **told: Any) -> Any:
    """An option that cannot change the result of a run."""
    return option(default, help, role=Role.INCIDENTAL, **told)


def place(default: Any, help: str, **told: Any) -> Any:
    """An option that says where content lies (weights, rows); what is there is compared by itself (identity.py)."""
    return option(default, help, role=Role.PLACE, **told)


def told_of(item: Any) -> Option:
    """What a dataclass field says of its option."""
    return item.metadata[_OPTION]


@cache
def hints_of(schema: type) -> dict[str, Any]:
    """The type of each field of a schema."""
    return get_type_hints(schema)


def choices_of(hint: Any) -> type[StrEnum] | None:
    """The enumeration that a type is, or is where it is not None; None for every other type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)), None)


def settle(values: Any, prefix: str) -> None:
    """Turn the choices among a dataclass's values into their members, and refuse what cannot be.

    Args:
        values: a dataclass whose fields are options; changed in place.
        prefix: what stands before their names in messages, `train.`.

    Raises:
        UserError: for a text that is no choice, and a number out of bounds.
    """
    schema: type = type(values)
    hints = hints_of(schema)
    for item in fields(values):
        name, value, told = prefix + item.name, getattr(values, item.name), told_of(item)
        choices = choices_of(hints[item.name])
        if choices is not None and value is not None:
            setattr(values, item.name, parse_choice(name, value, choices))
        if value is None or value == MISSING or told.at_least is None:
            continue
        if told.at_most is None:
            refuse_below(name, value, told.at_least)
        else:
            refuse_outside(name, value, told.at_least, told.at_most)


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested containers as one mapping of dotted keys."""
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        flattened |= flat(value, f"{prefix}{key}.")
    return flattened


def option_names(schema: type, prefix: str = "") -> list[str]:
    """Every dotted option of a schema, for suggestions."""
    names = []
    for item in fields(schema):
        names.append(prefix + item.name)
        if isinstance(item.default_factory, type) and is_dataclass(item.default_factory):
            names += option_names(item.default_factory, f"{prefix}{item.name}.")
    return names


def options_of(schema: type, role: Role, prefix: str = "") -> list[str]:
    """The dotted options of a schema that have a role themselves, or lie in a group that has it."""
    names = []
    for item in fields(schema):
        if told_of(item).role == role:
            names.append(prefix + item.name)
        elif isinstance(item.default_factory, type) and is_dataclass(item.default_factory):
            names += options_of(item.default_factory, role, f"{prefix}{item.name}.")
    return names


def covers(options: list[str], key: str) -> bool:
    """Whether a dotted key is one of the options, or lies inside one; names that merely begin alike do not count."""
    return any(key == option or key.startswith(f"{option}.") for option in options)


def expanded(path: str | None) -> str | None:
    """A path with `~` and `~name` replaced; one whose owner is unknown stays as it is, and is then not found."""
    return path if path is None else os.path.expanduser(path)
