"""Odd paths and texts on the command line: quoted for Hydra before it reads them, or shown as they must be typed.

Hydra's grammar has no é, =, ~ or brackets outside of quotes, takes `2026_11_25` for a number and `a,b` for a sweep. The
shell has taken its own quotes away by then. Imports no torch.
"""

import glob
import os
import re
import shlex
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ladder_cli.errors import UserError

# Options that name a file or folder, whatever it looks like.
PLACES = frozenset(
    {
        "output_dir",
        "data_dir",
        "run",
        "completions",
        "model.path",
        "data.path",
        "hydra.sweep.dir",
        "output",
        "converter",
    }
)
# Options that list files or folders: `report=a,b`, `compare=a,b`.
_LISTED = frozenset({"report", "compare"})
# Texts for a model, which are taken letter by letter.
_LITERAL = frozenset({"prompt", "system"})
# Hydra's own functions for sweeps, and its casts.
_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|int|float|bool|str|json_str|extend_list)\(.*\)")


def quoted_words(words: list[str], schema: type, sweep: bool) -> list[str]:
    """The words of a command line, those quoted that Hydra could not read or would take for something else.

    Args:
        schema: the dataclass of the whole config; its options that are texts may be quoted.
        sweep: several values at once, divided by commas, are meant as such.
    """
    texts = set(_text_options(schema))
    return [_quoted_word(word, texts, sweep) for word in words]


def quote(text: str) -> str:
    """`text` as Hydra's grammar takes it, in double quotes."""
    body = re.sub(r'(\\*)"', lambda found: found.group(1) * 2 + '\\"', text)
    return '"' + re.sub(r"\\+$", lambda found: found.group() * 2, body) + '"'


def unquoted(value: str) -> str:
    """The text that Hydra reads from a value in quotes; any other value as it is."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if value[:1] not in ("'", '"'):
        return value
    try:
        return str(OverridesParser.create().parse_override(f"key={value}").value())
    except HydraException:
        return value


def as_typed(key: str, value: str) -> str | None:
    """An option as it is to be typed, quoted for Hydra and the shell; None if its brackets or quotes leave open how."""
    inside = value[1:-1] if value[:1] == "[" and value[-1:] == "]" else None
    if set(value if inside is None else inside) & set("[]{}\"'"):
        return None
    value = quote(value) if inside is None else f"[{','.join(quote(part.strip()) for part in inside.split(','))}]"
    return shlex.quote(f"{key}={value}")


def _quoted_word(word: str, texts: set[str], sweep: bool) -> str:
    key, equals, value = word.partition("=")
    option = key.lstrip("+")
    if equals and option in _LISTED:
        return f"{key}={_listed(word, value)}"
    if not equals or key.startswith("-") or option not in texts | PLACES:
        return word
    if option in _LITERAL:
        return f"{key}={_literal(option, value)}"
    if option in PLACES and value.startswith("~"):
        _check_home(word, value)
    parts = [value]
    if sweep and "," in value and not set(value) & set("\"'[]{}()") and not (option in PLACES and _exists(value)):
        parts = value.split(",")
    return f"{key}={','.join(_quoted_value(part, option in PLACES) for part in parts)}"


def _listed(word: str, value: str) -> str:
    """Paths divided by commas, as a list of texts: names may hold commas themselves, so that each path is the longest
    one that is there. Brackets around them change nothing; quotes are left to Hydra.
    """
    inside = value[1:-1] if value[:1] == "[" and value[-1:] == "]" and not glob.glob(value) else value
    if not inside or inside == "null" or set(inside) & set("\"'"):
        return value
    paths, parts = [], inside.split(",")
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((end for end in ends if _matches(",".join(parts[:end]).strip())), 1)
        paths.append(",".join(parts[:end]).strip())
        parts = parts[end:]
    for path in paths:
        if path.startswith("~"):
            _check_home(word, path)
    return f"[{','.join(map(quote, paths))}]"


def _matches(path: str) -> bool:
    """Whether there is such a path, or the glob finds one."""
    try:
        return _exists(path) or bool(glob.glob(os.path.expanduser(path)))
    except (OSError, ValueError):
        return False


def _literal(option: str, value: str) -> str:
    """A text as it is, whatever Hydra would read in it.

    Raises:
        UserError: for what OmegaConf would take for a reference, which quotes do not keep from it.
    """
    if "${" in value:
        more = "; give it on standard input, prompt=-" if option == "prompt" else ""
        raise UserError(f"{option}= holds ${{, which an option's value reads as a reference{more}.")
    return quote(value)


def _quoted_value(value: str, place: bool) -> str:
    """A value, in quotes if Hydra would not take it for the text that it is."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if value[:1] in ("'", '"'):
        return value
    try:
        override = OverridesParser.create().parse_override(f"key={value}")
        read: Any = value if override.is_sweep_override() else override.value()
        if override.is_sweep_override() and not (place and _exists(value)):
            return value
    except HydraException:
        # No other meaning is lost: Hydra refuses it.
        return value if _FUNCTION.fullmatch(value) else quote(value)
    if not place or read is None or (read == value and not override.is_sweep_override()):
        return value
    # `2026_11_25`, `1e3`, `true`, or a space at the end; brackets and escapes only if there is such a file.
    plain = isinstance(read, int | float) or (isinstance(read, str) and read.strip() == value.strip())
    return quote(value) if plain or _exists(value) else value


def _check_home(word: str, value: str) -> None:
    try:
        Path(value).expanduser()
    except RuntimeError as error:
        raise UserError(f"{word} names the home of nobody: there is no user {value.partition('/')[0]}.") from error


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(Path(path).expanduser())
    except (OSError, RuntimeError, ValueError):
        return False


def _text_options(schema: type, prefix: str = "") -> list[str]:
    """Dotted names of the options that are texts."""
    names, hints = [], get_type_hints(schema)
    for item in fields(schema):
        hint = hints[item.name]
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        if str in kinds and set(kinds) <= {str, type(None)}:
            names.append(prefix + item.name)
        elif isinstance(hint, type) and is_dataclass(hint):
            names += _text_options(hint, f"{prefix}{item.name}.")
    return names
