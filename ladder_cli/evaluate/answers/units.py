r"""Compares units of measurement. Imports no torch.

A unit that only one side writes is left out, since the question names it. If both sides write one, they must agree:
known units of one kind are converted (5 cm is 50 mm, and not 5 mm), units of two kinds are never equal, and words that
are no known units (students, tickets) are not compared.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from ladder_cli.evaluate.answers.nodes import Node

# Unit -> what it measures, and how much of it.
_KNOWN: dict[str, tuple[str, Fraction]] = {}


def _define(kind: str, **units: str) -> None:
    for names, size in units.items():
        for name in names.split("__"):
            _KNOWN[name] = (kind, Fraction(size))


_define("length", m__meter__metre="1", km__kilometer__kilometre="1000", cm__centimeter__centimetre="0.01")
_define("length", mm__millimeter__millimetre="0.001", dm__decimeter="0.1", nm__nanometer="1e-9", um__micrometer="1e-6")
_define("length", inch__inches__in="0.0254", ft__foot__feet="0.3048", yd__yard="0.9144", mi__mile="1609.344")
_define("mass", g__gram__gm="1", kg__kilogram="1000", mg__milligram="0.001", t__ton__tonne="1000000")
_define("mass", lb__lbs__pound="453.59237", oz__ounce="28.349523125")
_define("time", s__sec__second="1", min__minute="60", h__hr__hour="3600", day="86400", week="604800")
_define("months", month="1", year__yr="12")
_define("volume", l__L__liter__litre="1000", ml__mL__milliliter="1", gallon__gal="3785.411784", quart="946.352946")
_define("angle", degree__deg="1", radian__rad="57.29577951308232")
_define("share", percent="0.01")
_define("money", dollar__usd__USD="1", cent="0.01")
_define("euro money", euro__EUR="1")
_define("pound money", GBP="1")
_define("temperature C", C__Celsius__celsius="1")
_define("temperature F", F__Fahrenheit__fahrenheit="1")
_define("temperature K", K__kelvin__Kelvin="1")
_define(
    "energy",
    J__joule__Joule="1",
    kJ="1000",
    eV="1.602176634e-19",
    keV="1.602176634e-16",
    MeV="1.602176634e-13",
    erg="1e-7",
)
_define("force", N__newton__Newton="1", kN="1000", dyne="0.00001")
_define("power", W__watt__Watt="1", kW="1000", MW="1000000")
_define("pressure", Pa__pascal="1", kPa="1000", atm="101325", bar="100000")
_define("frequency", Hz__hertz="1", kHz="1000", MHz="1000000", GHz="1000000000")
_define("charge", coulomb="1")
_define("voltage", V__volt="1", mV="0.001")
_define("current", A__amp__ampere="1", mA="0.001")
_define("amount", mol__mole="1")
_define("speed", mph="0.44704", kmh__kph__kmph="0.2777777777777778")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def dimension(unit: str) -> tuple[tuple[tuple[str, int], ...], Fraction] | None:
    """Return what a unit measures (kinds with powers) and its size; None if it has an unknown word."""
    text = unit.replace("\\text", "").replace("{", "").replace("}", "").replace("$", "").replace("\\", "")
    text = text.replace("%", " percent ")
    text = re.sub(r"\bper\b", "/", text.replace("cdot", " ").replace("^circ", "degree").replace("°", "degree"))
    text = re.sub(r"(?<=[a-zA-Z])\.|,", " ", text)
    measures: dict[str, int] = {}
    size = Fraction(1)
    sign, power = 1, 1
    for match in re.finditer(r"/|([a-zA-Z]+)\s*(?:\^?\s*(-?\d))?|\S", text):
        if match.group() == "/":
            sign = -1
            continue
        word = match[1]
        if word is None:
            return None
        if word in _POWERS:
            power = _POWERS[word]
            continue
        if word == "squared" or word == "cubed":
            return None
        known = _known(word)
        if known is None:
            return None
        kind, one = known
        exponent = sign * power * int(match[2] or 1)
        measures[kind] = measures.get(kind, 0) + exponent
        size *= one**exponent
        power = 1
    if measures.pop("speed", 0):
        measures = {"length": 1, "time": -1}
    if measures == {"length": 3}:
        measures, size = {"volume": 1}, size * 1000000
    if not measures:
        return None
    return tuple(sorted(measures.items())), size


def _known(word: str) -> tuple[str, Fraction] | None:
    for name in (
        word,
        word.lower() if len(word) > 2 else word,
        word.rstrip("s") if len(word) > 2 else word,
        word.lower().rstrip("s") if len(word) > 3 else word,
    ):
        if name in _KNOWN:
            return _KNOWN[name]
    return None


def _value_and_unit(node: Node) -> tuple[Node, str]:
    """Split value and unit; degree and percent signs are units beside a unit in words."""
    if node[0] == "unit":
        return node[1], node[2]
    inner = node[1] if node[0] == "-" else node
    if inner[0] in ("degree", "percent"):
        return (inner[1] if inner is node else ("-", inner[1])), inner[0]
    return node, ""


def _from_radians(value: Node) -> Node:
    """Convert to degrees."""
    return ("/", ("*", (value, ("number", Fraction(180), None))), ("constant", "pi"))


def same_quantity(gold: Node, answer: Node, row_unit: str, equal: Callable[[Node, Node], bool]) -> bool:
    """Compare two values of which at least one has a unit.

    Args:
        row_unit: the unit of the benchmark's row, in which a gold without one is meant.
    """
    (value, unit), (other, its) = _value_and_unit(gold), _value_and_unit(answer)
    unit = unit or row_unit
    its = its or (row_unit if gold[0] == "unit" else "")
    left, right = dimension(unit) if unit else None, dimension(its) if its else None
    if left is None or right is None or unit == its:
        return equal(value, other)
    if left[0] != right[0]:
        return False
    if left[1] == right[1]:
        return equal(value, other)
    if left[0] == (("angle", 1),):
        # Degrees and radians, exactly.
        if right[1] != 1:
            return equal(value, _from_radians(other))
        return equal(_from_radians(value), other)
    factor = right[1] / left[1]
    return equal(value, ("*", (other, ("number", factor, None))))
