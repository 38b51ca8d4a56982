r"""One spelling for many; and reading the whole of it."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.evaluate.answers.expression import Unreadable, read, symbols
from ladder_cli.evaluate.answers.normal_form import LONGEST, normal_form


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("45°", "45^\\circ"),
        ("√2", "\\sqrt{2}"),
        ("½", "\\frac{1}{2}"),
        ("x²", "x^{2}"),
        ("x₁₂", "x_{12}"),
        ("–5", "-5"),
        ("15", "15"),
        ("2π", "2\\pi"),
        ("18€", "18\\text{euros}"),
        ("\\bigl(1,2\\bigr)", "(1,2)"),
        ("\\left\\lbrace 1\\right\\rbrace", "\\{ 1\\}"),
        ("\\langle 1,2 \\rangle", "( 1,2 )"),
        ("\\color{red}{5}", "{5}"),
        ("\\underline{5}", "5"),
        ("\\phantom{0}5", "5"),
        ("\\varnothing", "\\emptyset"),
        ("\\dfrac12", "\\frac12"),
        ("10\\,000", "10000"),
        ("10 000", "10000"),
        ("10{,}000", "10000"),
        ("11,\\! 111,\\! 111", "11111111"),
        ("1,234", "1234"),
        ("(1,234)", "(1,234)"),
        ("32, 349", "32, 349"),
        ("69,84", "69,84"),
        ("\\{1,234\\}", "\\{1,234\\}"),
        ("5.", "5"),
        ("\\frac12.", "\\frac12"),
        ("$5$.", "5"),
        ("1 1/2", "\\mixed{1}{1}{2}"),
        ("1.5e6", "1.5\\times10^{6}"),
        ("0.\\overline{3}", "\\repeating{0.}{3}"),
        ("0.333...", "\\repeating{0.}{3}"),
        ("2516_{\\text{eight}}", "2516_{8}"),
        ("5 km/h", "5\\text{km/h}"),
        ("12 cm^2", "12\\text{cm^2}"),
        ("10 weeks", "10\\text{weeks}"),
        ("28 percent", "28 \\%"),
        ("\\text{13}", "13"),
        ("2\\mathrm{e}", "2e"),
        ("5\\,\\mathrm{m}", "5\\text{m}"),
        ("x_{\\mathrm{eff}}", "x_{eff}"),
        ("x**10", "x^{10}"),
        ("sqrt(2)", "\\sqrt(2)"),
        ("\x0crac{1}{2}", "\\frac{1}{2}"),
        ("6m", "6m"),
        ("2t", "2t"),
        ("m+n", "m+n"),
    ],
)
def test_a_spelling_has_its_normal_form(written, normal):
    assert normal_form(written).replace(" ", "") == normal.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "t(0,4]",
        "2 3",
        "\\frac{1}",
        "1+",
        "(1",
        "x^",
        "5 \\text{ or more}",
        "\\int_0^1 x dx",
        "\\begin{cases}1\\\\2\\end{cases}",
        "a#b",
        "5^{2",
        "",
        "1" * (LONGEST + 1),
        "(" * 100 + "1" + ")" * 100,
    ],
)
def test_what_cannot_be_read_whole_is_not_read(text):
    with pytest.raises(Unreadable):
        read(normal_form(text))


def test_every_letter_of_an_expression_is_a_symbol_of_what_is_read():
    assert symbols(read(normal_form("\\frac{1}{3} E_1+\\frac{2}{3} E_{2}"))) == {"E_1", "E_2"}
    assert symbols(read(normal_form("\\hbar \\omega(v+1 / 2)-\\frac{E_{0}^{2} e^{2}}{2 m \\omega^{2}}"))) == {
        *("\\hbar", "\\omega", "v", "E_0", "m"),
    }


@given(st.integers(0, 10**9))
def test_thousands_are_one_number_however_they_are_separated(value):
    plain = f"{value:,}"
    for separator in (",", "{,}", "\\,", ",\\!", " ", "\\ "):
        assert read(normal_form(plain.replace(",", separator))) == ("number", Fraction(value), None)


@given(
    st.integers(0, 999),
    st.integers(0, 999),
    st.sampled_from(["({}, {})", "({},{})", "\\{{{},{}\\}}", "[{},{}]", "{}, {}", "{};{}"]),
)
def test_a_pair_never_becomes_a_number(one, other, pattern):
    node = read(normal_form(pattern.format(one, f"{other:03}")))
    assert node[0] in ("tuple", "set", "list")
    assert [item[1] for item in node[-1]] == [one, other]


@given(st.fractions(-100, 100, max_denominator=60))
def test_a_fraction_is_read_to_its_value_in_each_spelling(value):
    from ladder_cli.evaluate.answers.numeric import exact

    top, bottom = value.numerator, value.denominator
    for spelled in (
        f"\\frac{{{top}}}{{{bottom}}}",
        f"{top}/{bottom}",
        f"\\dfrac{{{top}}}{{{bottom}}}.",
        f"${top}\\div {bottom}$",
    ):
        assert exact(read(normal_form(spelled))) == value


@settings(max_examples=300, deadline=None)
@given(st.text("\\{}()[]$^_,.;:|!+-*/=<>&%~ 0123456789abexyzABCfracsqrttextπ√½²°", max_size=50))
def test_any_string_is_read_or_refused_and_a_normal_form_stays_the_same(text):
    normal = normal_form(text)
    try:
        read(normal)
    except Unreadable:
        return
    assert read(normal_form(normal)) == read(normal)


@pytest.mark.parametrize(
    "piece", ["1", "0.3", "{", "\\frac{", "a ", "1 000 ", "½", "\\text{", "_{", " ", "\\", "sin", "3 apples "]
)
def test_no_string_takes_long(piece):
    text = (piece * LONGEST)[:LONGEST]
    started = time.process_time()
    normal_form(text)
    normal_form(text + text)
    assert time.process_time() - started < 3
