"""Computes the value of an expression: exactly if it is rational, else to any number of digits. Imports no torch.

Nothing here may run long: powers, factorials and sums beyond a size raise `Undefined` before they are computed.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from mpmath import mp, mpc, mpf

from ladder_cli.evaluate.answers.nodes import Node

# Sizes beyond which nothing is computed: bits of an exact number, bits of a number's exponent, terms of a sum.
_EXACT_BITS = 20_000
_EXPONENT_BITS = 10_000_000
_FACTORIAL = 3_000
_GAMMA = 1e6
_TERMS = 2_000

# C(10, 3) and P(10, 3).
_COUNTS = {"C": "binomial", "P": "permutations"}

Env = Mapping[str, Any]


class Undefined(Exception):
    """The expression has no value here: a division by zero, a number that is too large, something that is no number."""


def exact(node: Node) -> Fraction | None:
    """Return the exact value of an expression; None if it is not rational, or too large to write out."""
    kind = node[0]
    if kind == "number":
        value = node[1]
        return value if _small(value) else None
    if kind == "-":
        inner = exact(node[1])
        return None if inner is None else -inner
    if kind in ("+", "*"):
        total = Fraction(0 if kind == "+" else 1)
        for part in node[1]:
            value = exact(part)
            if value is None:
                return None
            total = total + value if kind == "+" else total * value
            if not _small(total):
                return None
        return total
    if kind == "/":
        left, right = exact(node[1]), exact(node[2])
        return None if left is None or not right else left / right
    if kind == "^":
        return _exact_power(exact(node[1]), exact(node[2]))
    if kind in ("degree", "unit"):
        return None
    if kind == "based":
        return based(node)
    if kind == "function":
        return _exact_function(node[1], [exact(argument) for argument in node[2]])
    if kind == "apply" and node[1] in _COUNTS and len(node[2]) == 2:
        return _exact_function(_COUNTS[node[1]], [exact(argument) for argument in node[2]])
    return None


def based(node: Node) -> Fraction | None:
    """Return the value of a number in another base; None if it has a digit that the base lacks."""
    try:
        return Fraction(int(node[1], node[2]))
    except ValueError:
        return None


def _small(value: Fraction) -> bool:
    return value.numerator.bit_length() + value.denominator.bit_length() < _EXACT_BITS


def _exact_power(base: Fraction | None, exponent: Fraction | None) -> Fraction | None:
    if base is None or exponent is None:
        return None
    if exponent.denominator == 1:
        size = base.numerator.bit_length() + base.denominator.bit_length()
        if (base == 0 and exponent <= 0) or abs(exponent) * size > _EXACT_BITS:
            return Fraction(1) if base in (1,) else None
        return base ** int(exponent)
    root = _exact_root(base, exponent.denominator)
    return None if root is None else _exact_power(root, Fraction(exponent.numerator))


def _exact_root(value: Fraction, order: int) -> Fraction | None:
    if order < 1 or order > 64 or not _small(value):
        return None
    if value < 0:
        if order % 2 == 0:
            return None
        root = _exact_root(-value, order)
        return None if root is None else -root
    top, bottom = _whole_root(value.numerator, order), _whole_root(value.denominator, order)
    return Fraction(top, bottom) if top is not None and bottom is not None else None


def _whole_root(value: int, order: int) -> int | None:
    if value in (0, 1):
        return value
    low, high = 0, 1 << (value.bit_length() // order + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**order < value:
            low = middle + 1
        else:
            high = middle
    return low if low**order == value else None


def _exact_function(name: str, arguments: list[Fraction | None]) -> Fraction | None:
    if any(argument is None for argument in arguments) or not arguments:
        return None
    values = [argument for argument in arguments if argument is not None]
    first = values[0]
    whole = all(value.denominator == 1 for value in values)
    match name:
        case "abs":
            return abs(first)
        case "floor":
            return Fraction(math.floor(first))
        case "ceil":
            return Fraction(math.ceil(first))
        case "max":
            return max(values)
        case "min":
            return min(values)
        case "root" if len(values) == 2 and values[1].denominator == 1:
            return _exact_root(first, int(values[1]))
        case "factorial" if whole and 0 <= first <= _FACTORIAL:
            return Fraction(math.factorial(int(first)))
        case "doublefactorial" if whole and 0 <= first <= _FACTORIAL:
            return Fraction(math.prod(range(int(first), 0, -2)))
        case "binomial" if whole and 0 <= values[1] <= first <= _FACTORIAL:
            return Fraction(math.comb(int(first), int(values[1])))
        case "permutations" if whole and 0 <= values[1] <= first <= _FACTORIAL:
            return Fraction(math.perm(int(first), int(values[1])))
        case "gcd" if whole:
            return Fraction(math.gcd(*(int(value) for value in values)))
        case "lcm" if whole:
            return Fraction(math.lcm(*(int(value) for value in values)))
        case "log" if len(values) == 2:
            return _exact_log(first, values[1])
    return None


def _exact_log(value: Fraction, base: Fraction) -> Fraction | None:
    if value == 1 and base > 0 and base != 1:
        return Fraction(0)
    return None


def evaluate(node: Node, env: Env) -> Any:
    """Compute an expression as mpmath number at the current precision, or a matrix as list of rows.

    Args:
        env: values of the symbols.

    Raises:
        Undefined: if it has no value.
    """
    try:
        return _evaluate(node, env)
    except (
        ZeroDivisionError,
        OverflowError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        NotImplementedError,
    ) as error:
        raise Undefined(str(error)) from error


def _evaluate(node: Node, env: Env) -> Any:
    kind = node[0]
    if kind == "number":
        value = node[1]
        return mpf(value.numerator) / value.denominator if value.denominator != 1 else mpf(value.numerator)
    if kind == "symbol":
        value = env[node[1]]
        return value() if callable(value) else value
    if kind == "constant":
        return _CONSTANTS[node[1]]()
    if kind == "-":
        return _scale(mpf(-1), _evaluate(node[1], env))
    if kind == "+":
        total = _evaluate(node[1][0], env)
        for part in node[1][1:]:
            total = _add(total, _evaluate(part, env))
        return total
    if kind == "*":
        total = _evaluate(node[1][0], env)
        for part in node[1][1:]:
            total = _multiply(total, _evaluate(part, env))
        return total
    if kind == "/":
        return _multiply(_evaluate(node[1], env), 1 / _scalar(_evaluate(node[2], env)))
    if kind == "^":
        return _power(_evaluate(node[1], env), _evaluate(node[2], env))
    if kind == "function":
        return _function(node[1], [_evaluate(argument, env) for argument in node[2]])
    if kind == "apply" and node[1] in _COUNTS and len(node[2]) == 2:
        return _function(_COUNTS[node[1]], [_evaluate(argument, env) for argument in node[2]])
    if kind == "apply":
        return _unknown(node[1], [_evaluate(argument, env) for argument in node[2]])
    if kind == "percent":
        return _scalar(_evaluate(node[1], env)) / 100
    if kind == "degree":
        return _scalar(_evaluate(node[1], env)) * mp.pi / 180
    if kind == "based":
        value = based(node)
        if value is None:
            raise Undefined("a digit beyond its base")
        return mpf(value.numerator)
    if kind == "matrix":
        return [[_scalar(_evaluate(cell, env)) for cell in row] for row in node[1]]
    if kind in ("sum", "prod"):
        return _series(node, env)
    raise Undefined(f"a {kind} has no value")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "pi": lambda: +mp.pi,
    "e": lambda: +mp.e,
    "i": lambda: mpc(0, 1),
    "infinity": lambda: mpf("inf"),
}


def _scalar(value: Any) -> Any:
    if isinstance(value, list):
        raise Undefined("a matrix where a number is wanted")
    return value


def _scale(factor: Any, value: Any) -> Any:
    return [[factor * cell for cell in row] for row in value] if isinstance(value, list) else factor * value


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, list) != isinstance(right, list):
        raise Undefined("a matrix and a number")
    if isinstance(left, list):
        return [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list):
        columns = list(zip(*right, strict=True))
        return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in left]
    if isinstance(left, list):
        return _scale(right, left)
    return _scale(left, right)


def _power(base: Any, exponent: Any) -> Any:
    exponent = _scalar(exponent)
    if isinstance(base, list):
        if exponent != int(exponent) or not 1 <= exponent <= 50:
            raise Undefined("a power of a matrix")
        result = base
        for _ in range(int(exponent) - 1):
            result = _multiply(result, base)
        return result
    if base == 0:
        if mp.re(exponent) > 0:
            return mpf(0)
        raise Undefined("a power of zero")
    if mp.isinf(base) or mp.isinf(exponent):
        raise Undefined("a power with infinity")
    magnitude = abs(mp.log(abs(base)))
    if magnitude * abs(exponent) > _EXPONENT_BITS:
        raise Undefined("a power too large")
    if mp.im(base) == 0 and mp.re(base) < 0 and mp.im(exponent) == 0:
        odd = _odd_root(mp.re(exponent))
        if odd is not None:
            return odd * (-mp.re(base)) ** mp.re(exponent)
    return base**exponent


def _odd_root(exponent: Any) -> int | None:
    """Return the sign of a negative number to a power such as 1/3, with an odd denominator; else None."""
    if exponent == mp.floor(exponent):
        return None
    for denominator in (3, 5, 7, 9):
        top = exponent * denominator
        near = mp.nint(top)
        if abs(top - near) < mpf(10) ** (-mp.dps + 8) * max(1, abs(near)):
            return -1 if int(near) % 2 else 1
    return None


def _function(name: str, arguments: list[Any]) -> Any:
    if name == "det":
        return _determinant(arguments[0])
    if name == "abs" and isinstance(arguments[0], list):
        return _determinant(arguments[0])
    if name == "norm":
        value = arguments[0]
        return mp.sqrt(sum(cell**2 for row in value for cell in row)) if isinstance(value, list) else abs(value)
    arguments = [_scalar(argument) for argument in arguments]
    first = arguments[0]
    if mp.isinf(first):
        if name in ("abs",):
            return mpf("inf")
        raise Undefined("a function of infinity")
    if name in _BOUNDED and abs(first) > 1e6:
        raise Undefined(f"{name} of a number too large")
    if name == "root":
        return _power(first, 1 / arguments[1])
    if name == "log":
        return mp.log(first) / mp.log(arguments[1])
    if name in ("factorial", "doublefactorial"):
        if abs(first) > _GAMMA:
            raise Undefined("a factorial too large")
        return mp.gamma(first + 1) if name == "factorial" else mp.fac2(first)
    if name in ("binomial", "permutations"):
        if max(abs(first), abs(arguments[1])) > _GAMMA:
            raise Undefined("a binomial too large")
        return (mp.binomial if name == "binomial" else mp.ff)(first, arguments[1])
    if name in ("max", "min"):
        return (max if name == "max" else min)(mp.re(value) for value in arguments)
    if name in ("floor", "ceil"):
        # 3 - 10^-50 is 3, computed.
        near = mp.nint(first)
        if abs(first - near) < mpf(10) ** (10 - mp.dps):
            return near
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](first)
    raise Undefined(f"{name} is not computed")


_BOUNDED = frozenset(("sinh", "cosh", "tanh", "coth", "sin", "cos", "tan", "cot", "sec", "csc", "erf"))
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": abs,
    "floor": mp.floor,
    "ceil": mp.ceil,
    "sgn": mp.sign,
    "sign": mp.sign,
    **{
        name: getattr(mp, name)
        for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "erf")
    },
    **{
        f"arc{name}": getattr(mp, f"a{name}")
        for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
    },
    "arsinh": mp.asinh,
    "arcosh": mp.acosh,
    "artanh": mp.atanh,
}


def _determinant(value: Any) -> Any:
    if not isinstance(value, list) or len(value) != len(value[0]):
        raise Undefined("the determinant of what is not square")
    return mp.det(mp.matrix(value))


def _series(node: Node, env: Env) -> Any:
    name, body, variable, first, last = node
    if variable[0] not in ("symbol", "constant"):
        raise Undefined("a sum over what is no symbol")
    start, end = _evaluate(first, env), _evaluate(last, env)
    if mp.isinf(end) or end - start > _TERMS or start != mp.floor(start) or end != mp.floor(end):
        # Compared by its parts: two sums with the same parts have the same value.
        key = variable[1]
        inner = _evaluate(body, {**env, key: mpf(1) / 7}), _evaluate(body, {**env, key: mpf(5) / 3})
        ends = [mpf(10) ** 9 if mp.isinf(limit) else limit for limit in (start, end)]
        return _unknown(name, [*inner, *ends])
    total = mpf(0) if name == "sum" else mpf(1)
    for step in range(int(start), int(end) + 1):
        value = _scalar(_evaluate(body, {**env, variable[1]: mpf(step)}))
        total = total + value if name == "sum" else total * value
    return total


def _unknown(name: str, arguments: list[Any]) -> Any:
    """Return a value for an unknown function: one for each name and arguments, and never the same for others."""
    spelled = [mp.nstr(mpc(_scalar(argument)), 25) for argument in arguments]
    digest = hashlib.sha256(f"{name}({','.join(spelled)})".encode()).digest()
    return mpf(int.from_bytes(digest[:20], "big")) / mpf(1 << 160) + mpf(1) / 3
