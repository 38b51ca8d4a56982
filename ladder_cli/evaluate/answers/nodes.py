r"""Expressions: nested tuples whose first item is the kind. Imports no torch.

| kind | items |
| --- | --- |
| `number` | exact value (Fraction), digits after the point as written (None: not a decimal) |
| `symbol` | name with its subscript |
| `constant` | `pi`, `e`, `i`, `infinity` |
| `+`, `*` | terms or factors |
| `/`, `^`, `pm`, `mp` | left, right (`pm`: left ± right) |
| `-` | term |
| `function` | name, arguments |
| `apply` | name of an unknown function, arguments |
| `percent`, `degree` | value |
| `unit` | value, unit in words |
| `based` | digits, base |
| `tuple` | opening and closing bracket, items |
| `set`, `list` | items (`{..}`, and without brackets) |
| `groups` | lists that semicolons separate |
| `relation` | terms, operators between them |
| `cup`, `cap`, `setminus` | left, right |
| `numbers` | letter of ℝ, ℤ, ℚ, ℕ, ℂ |
| `matrix` | environment, rows |
| `ratio` | terms |
| `clock` | hour, minute |
| `mod` | expression, modulus |
| `sum`, `prod` | body, variable, from, to |
"""

from fractions import Fraction
from typing import Any

Node = tuple[Any, ...]


class Unreadable(Exception):
    """The string cannot be read whole; the message says where it stopped."""


def number(value: int | str) -> Node:
    """Make an exact number, or a decimal if it is written with a point."""
    text = str(value)
    return ("number", Fraction(text), len(text.partition(".")[2]) if "." in text else None)


def walk(node: Any) -> Any:
    """Yield every expression in an expression, itself first."""
    if isinstance(node, tuple):
        if node and isinstance(node[0], str):
            yield node
        for item in node:
            yield from walk(item)


def symbols(node: Node) -> set[str]:
    """Return the names of the symbols and unknown functions in an expression."""
    return {
        item[1] for item in walk(node) if item[0] in ("symbol", "apply") and len(item) > 1 and isinstance(item[1], str)
    }


def is_name(node: Node) -> bool:
    r"""Can it stand before an equals sign to name what follows: x, f(x), I_{max}, (p, q), AB, |AB|, A:B, \angle A?"""
    kind = node[0]
    if kind in ("symbol", "apply"):
        return True
    if kind == "constant":
        return node[1] in ("e", "i")
    if kind == "*":
        return all(is_name(part) for part in node[1])
    if kind == "/":
        return is_name(node[1]) and is_name(node[2])
    if kind == "function":
        return node[1] in ("abs", "norm") and is_name(node[2][0])
    if kind in ("tuple", "list", "ratio"):
        return all(is_name(part) for part in node[-1])
    return False
