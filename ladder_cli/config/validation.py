"""Refusing option values that cannot be, in one line that names the nearest that can. Imports no torch."""

import math
from difflib import get_close_matches

from ladder_cli.errors import UserError


def suggest(word: str, candidates: list[str]) -> str:
    """` Did you mean 'x'?` if a candidate is near, else nothing."""
    near = get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices, naming the nearest."""
    if value not in choices:
        raise UserError(
            f"{option}={value} is not a choice.{suggest(str(value), list(choices))} Choose from: {', '.join(choices)}."
        )


def at_least(option: str, value: float | None, smallest: float) -> None:
    """Refuse a number below `smallest`, or none that can be counted to; None means unset and passes."""
    if value is not None and not math.isfinite(value):
        raise UserError(f"{option}={value} is no number to work with: it must be finite.")
    if value is not None and value < smallest:
        raise UserError(f"{option}={value} is too small: it must be at least {smallest}.")


def between(option: str, value: float, smallest: float, largest: float) -> None:
    """Refuse a number outside `[smallest, largest]`."""
    if not smallest <= value <= largest:
        raise UserError(f"{option}={value} is out of range: it must lie between {smallest} and {largest}.")
