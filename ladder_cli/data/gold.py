"""Gold answers and ids of rows as text, and the rule by which a gold answer is read.

Benchmarks and ready completions are read alike. `evaluate/answers/verdict.py` applies the rule.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ladder_cli.config.choices import GoldReading
from ladder_cli.data.sources import Row
from ladder_cli.errors import UserError

# `evaluate/answers/verdict.py` says what each does, and docs/evaluation.md why.
EXPRESSION, PHYSICAL, SEVERAL = GoldReading.EXPRESSION, GoldReading.PHYSICAL, GoldReading.SEVERAL


@dataclass(frozen=True)
class GoldRule:
    """A rule and what the row itself says about its gold answer.

    Attributes:
        name: one of `choices.GoldReading`.
        unit: of the answer, which may or may not be written; empty for none.
        tolerance: the absolute difference that a numerical answer may have; None: none.
    """

    name: GoldReading = EXPRESSION
    unit: str = ""
    tolerance: float | None = None


AS_EXPRESSION = GoldRule()


def gold_column(row: Row, column: str, where: str) -> str:
    """Return the gold answer of a row as text: numbers as they are written, lists joined by commas.

    Raises:
        UserError: if the column is missing, or holds nothing, a nested list, an object, NaN or an infinity.
    """
    if column not in row:
        raise UserError(f"{where} has no column '{column}'; it has: {', '.join(map(str, row))}.")
    value = row[column]
    if not isinstance(value, list):
        return _one(value, column, where)
    if not value:
        raise UserError(f"{where}: column '{column}' holds an empty list.")
    return ", ".join(_one(item, column, where) for item in value)


def _one(value: Any, column: str, where: str) -> str:
    match value:
        case str() if value.strip():
            return value
        case None | str():
            raise UserError(f"{where}: column '{column}' holds no text.")
        case bool():
            return str(value)
        case int():
            return str(value)
        case float() | Decimal():
            return number_text(value, f"{where}: column '{column}'")
    raise UserError(f"{where}: column '{column}' must hold a text, a number or a list of them, not {_short(value)}.")


def number_text(value: float | Decimal, where: str) -> str:
    """Write a finite number as people do: `27` for 27.0, `0.5`, `1e-7`, `4.5e33`.

    Raises:
        UserError: for NaN and the infinities.
    """
    if not math.isfinite(value):
        raise UserError(f"{where} holds {value}, which is no number: write an infinity as the text '\\infty'.")
    text = repr(value) if isinstance(value, float) else str(value).lower()
    mantissa, exponent, power = text.partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}" if exponent else mantissa


def row_name(row: Row, column: str | None, number: int, where: str) -> str:
    """Return the id of a row, or its number if it has no id (no such column, null, or an empty text).

    Raises:
        UserError: if the id is neither a text nor a whole number.
    """
    value = row.get(column) if column is not None else None
    match value:
        case None | "":
            return str(number)
        case bool():
            pass
        case str() | int():
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
    raise UserError(f"{where}: column '{column}' must hold a text or a whole number, not {_short(value)}.")


def row_names(rows: list[Row], column: str | None, where: str) -> list[str]:
    """Return the ids of all rows. Rows may share an id, but an id must not equal the number of a row without one.

    Args:
        column: the column of ids; None: there is none, and rows are numbered from 1.
        where: the file or data set, for messages.

    Raises:
        UserError: naming the row, if an id is invalid, or equals the number of a row without an id.
    """
    names = [row_name(row, column, number, f"{where}, row {number}") for number, row in enumerate(rows, start=1)]
    unnamed = {
        name: number
        for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1)
        if column is None or row.get(column) in (None, "")
    }
    for number, name in enumerate(names, start=1):
        if name in unnamed and unnamed[name] != number:
            raise UserError(
                f"{where}, row {number}: id '{name}' is also the name of row {unnamed[name]}, which has no id and is "
                "named by its number: give every row an id, or none."
            )
    return names


def _short(value: Any) -> str:
    text = str(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"
