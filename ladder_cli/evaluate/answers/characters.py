r"""Replaces Unicode characters by the LaTeX commands that mean the same. Imports nothing of this project."""

import re
import unicodedata

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True))
_GREEK = {
    **dict(
        zip(
            "αβγδεζηθικλμνξπρστυφχψω",
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi "  # noqa: SIM905
            "psi omega".split(),
            strict=True,
        )
    ),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split(), strict=True)),  # noqa: SIM905
    "ϕ": "phi",
    "ϵ": "epsilon",
    "ϑ": "theta",
    "µ": "mu",
}
_CHARACTERS = {
    **{character: f"\\{name} " for character, name in _GREEK.items()},
    **dict.fromkeys("−–—‐‑‒﹣－", "-"),
    **dict.fromkeys("×✕✖", "\\times "),
    **dict.fromkeys("·⋅∙•", "\\cdot "),
    **dict.fromkeys("“”„‟", '"'),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("°˚º", "^\\circ "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062", ""),
    "÷": "\\div ",
    "∕": "/",
    "⁄": "/",
    "≤": "\\le ",
    "⩽": "\\le ",
    "≥": "\\ge ",
    "⩾": "\\ge ",
    "≠": "\\ne ",
    "≈": "\\approx ",
    "≅": "\\approx ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "∞": "\\infty ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∖": "\\setminus ",
    "∈": "\\in ",
    "∅": "\\emptyset ",
    "⌀": "\\emptyset ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℕ": "\\mathbb{N}",
    "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}",
    "∠": "\\angle ",
    "△": "\\triangle ",
    "⌊": "\\lfloor ",
    "⌋": "\\rfloor ",
    "⌈": "\\lceil ",
    "⌉": "\\rceil ",
    "⟨": "\\langle ",
    "⟩": "\\rangle ",
    "…": "\\ldots ",
    "∑": "\\sum ",
    "∏": "\\prod ",
    "∫": "\\int ",
    "∨": "\\lor ",
    "∧": "\\land ",
    "′": "'",
    "″": "''",
    "ħ": "\\hbar ",
    "ℓ": "\\ell ",
    "∂": "\\partial ",
    "¢": "\\text{cents}",
    "€": "\\text{euros}",
    "£": "\\text{pounds}",
    "¥": "\\text{yen}",
    "₹": "\\text{rupees}",
    "、": ",",
    "，": ",",
    "；": ";",
    "：": ":",
    "。": ".",
    "（": "(",
    "）": ")",
    "【": "[",
    "】": "]",
}
_TRANSLATION = str.maketrans(_CHARACTERS)
_FRACTION_CHARACTER = re.compile("[¼-¾⅐-⅞↉]")
# What `\frac`, `\boxed`, `\alpha`, `\vec` become in a string that was unescaped once too often.
_UNESCAPED = {"\x0c": "\\f", "\x08": "\\b", "\x07": "\\a", "\x0b": "\\v"}


def mended(text: str) -> str:
    """Restore commands whose backslash and first letter became a control character; remove other control characters."""
    if text.isprintable():
        return text
    text = re.sub(r"[\x07\x08\x0b\x0c](?=[a-z])", lambda m: _UNESCAPED[m[0]], text)
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", text)
    return re.sub(r"\t(?=ext(?:bf|it|rm)?\{|imes(?![a-z])|heta(?![a-z])|frac(?![a-z])|an(?![a-z]))", r"\\t", text)


def in_commands(text: str) -> str:
    r"""Replace every Unicode sign by a command: the sign of a root by `\sqrt`, raised digits by `^{..}`."""
    text = _FRACTION_CHARACTER.sub(_fraction_character, text)
    text = re.sub(
        f"[{''.join(_SUPERSCRIPTS)}]+", lambda m: f"^{{{''.join(map(_SUPERSCRIPTS.__getitem__, m[0]))}}}", text
    )
    text = re.sub(f"[{''.join(_SUBSCRIPTS)}]+", lambda m: f"_{{{''.join(map(_SUBSCRIPTS.__getitem__, m[0]))}}}", text)
    text = re.sub(r"([√∛∜])\s*(\(|\d+(?:\.\d+)?|[a-zA-Z]|\{)?", _root, text)
    text = text.translate(_TRANSLATION)
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_TRANSLATION)


def _fraction_character(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _root(match: re.Match[str]) -> str:
    order = {"√": "", "∛": "[3]", "∜": "[4]"}[match[1]]
    argument = match[2] or ""
    return f"\\sqrt{order}{argument if argument in ('(', '{', '') else f'{{{argument}}}'}"
