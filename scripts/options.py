"""Every option of all commands with its default, unit, bounds and help, out of the fields that declare them.

python scripts/options.py            writes docs/options.md
"""

from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from ladder_cli.config.evaluation import DecodeConfig, EvaluateConfig
from ladder_cli.config.methods import METHOD_KINDS, MethodConfig
from ladder_cli.config.options import choices_of, hints_of, told_of
from ladder_cli.config.schema import TrainConfig
from ladder_cli.config.using import ChatConfig, ExportConfig

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
_HEAD = """# Options

Every option of the commands, made by `python scripts/options.py` out of the fields that declare them
(in `ladder_cli/config/`). A default is that of the field: files in `conf/` set others for their model, method, data or
machine (`--cfg job` prints what a command line comes to).
"""


def page() -> str:
    """The whole text of docs/options.md."""
    train = {item.name: item for item in fields(TrainConfig)}
    tables = [("ladder-train", _own(TrainConfig, ""))]
    tables += [
        (f"{name}: {told_of(item).help}", _own(item.default_factory, f"{name}."))
        for name, item in train.items()
        if _is_group(item)
    ]
    shared = {item.name for item in fields(MethodConfig)}
    tables.append(("method: every kind", _own(MethodConfig, "method.")))
    tables += [
        (f"method: kind {kind}", [item for item in _own(schema, "method.") if item[0] not in shared])
        for kind, schema in METHOD_KINDS.items()
    ]
    tables.append(("ladder-eval (with the groups model and hardware of above)", _own(EvaluateConfig, "")))
    tables.append(("decode: how completions are generated (ladder-eval, ladder-chat)", _own(DecodeConfig, "decode.")))
    tables.append(("ladder-export (with the groups model and hardware of above)", _own(ExportConfig, "")))
    tables.append(("ladder-chat (with the groups model, hardware and decode of above)", _own(ChatConfig, "")))
    return _HEAD + "".join(_table(title, rows) for title, rows in tables)


def _is_group(item: Field) -> bool:
    return isinstance(item.default_factory, type) and is_dataclass(item.default_factory)


def _own(schema: Any, prefix: str) -> list[tuple[str, str]]:
    """Name and row of every option of a schema itself, without those of its groups."""
    return [(item.name, _row(schema, item, prefix)) for item in fields(schema) if not _is_group(item)]


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    lines = ["| option | default | unit | values | meaning |", "|---|---|---|---|---|", *(row for _, row in rows)]
    return f"\n## {title}\n\n" + "\n".join(lines) + "\n"


def _row(schema: Any, item: Field, prefix: str) -> str:
    told = told_of(item)
    needs = f" (read with `{prefix}{told.needs[0]}={' or '.join(told.readers)}`)" if told.needs else ""
    if told.unless:
        needs = f" (not read with `{prefix}{told.unless[0]}={told.unless[1]}`)"
    cells = (
        f"`{prefix}{item.name}`",
        _default(item),
        told.unit or "",
        ", ".join(_values(schema, item)),
        told.help + needs,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(item: Field) -> str:
    value = item.default if item.default is not NO_DEFAULT else item.default_factory()  # type: ignore[misc]
    if isinstance(value, str) and value == MISSING:
        return ""
    if value is None or isinstance(value, bool):
        return f"`{ {None: 'null', True: 'true', False: 'false'}[value] }`".replace(" ", "")
    return f"`{value.value if isinstance(value, StrEnum) else value}`"


def _values(schema: Any, item: Field) -> Iterator[str]:
    choices, told = choices_of(hints_of(schema)[item.name]), told_of(item)
    if choices is not None:
        yield from (f"`{member.value}`" for member in choices)
    if told.at_least is not None and told.at_most is not None:
        yield f"{told.at_least} to {told.at_most}"
    elif told.at_least is not None:
        yield f"at least {told.at_least}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
