import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_cli.data.gold import GoldRule
from ladder_cli.evaluation.verdict import (
    CORRECT,
    GOLD_UNPARSED,
    INCORRECT,
    NO_ANSWER,
    boxes,
    judge,
    measured_number,
    plain_number,
)

EXPRESSION, PHYSICAL = GoldRule(), GoldRule("physical")


def several(unit="", error=None):
    return GoldRule("several", unit, error)


CASES = [
    ("7", "so it is \\boxed{7}.", CORRECT),
    ("7", "first \\boxed{3}? no: 8", INCORRECT),
    ("7", "It is \\boxed{7} and not 9.", CORRECT),
    ("7", "I do not know", NO_ANSWER),
    ("7", "so we get 7", CORRECT),
    ("\\frac{1}{2}", "\\boxed{0.5}", CORRECT),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3, \\pi/2)}", CORRECT),
    ("(3,2)", "\\boxed{(2,3)}", INCORRECT),
    ("10\\%", "\\boxed{10\\%}", CORRECT),
    ("x", "\\boxed{y}", INCORRECT),
    ("12", "\\boxed{12.}", CORRECT),
    ("025", "\\boxed{25}", CORRECT),
    ("336^\\circ", "\\boxed{336}", CORRECT),
    ("", "\\boxed{7}", GOLD_UNPARSED),
]
# Golds as they stand in Minerva.
PHYSICAL_CASES = [
    ("4.5e33", "\\boxed{4.5 \\times 10^{33}}", CORRECT),
    ("4.5e33", "\\boxed{4.5e33}", CORRECT),
    ("4.5e33", "$L = 4.5 \\times 10^{33}$ erg/s", CORRECT),
    ("4.5e33", "\\boxed{4.5 \\times 10^{32}}", INCORRECT),
    ("6.6e-27", "\\boxed{3.1e-21}", INCORRECT),
    ("6.6e-27", "\\boxed{0}", INCORRECT),
    ("6.6e-27", "\\boxed{6.6 \\cdot 10^{-27}\\,\\mathrm{kg}}", CORRECT),
    ("1e-8", "\\boxed{\\frac{1}{10^8}}", CORRECT),
    ("1e-5", "\\boxed{10^{-5}}", CORRECT),
    ("41.8", "\\boxed{\\theta = 41.8^\\circ}", CORRECT),
    ("41.8", "\\boxed{42.0}", CORRECT),
    ("41.8", "\\boxed{42.5}", INCORRECT),
    ("41.8", "no idea", NO_ANSWER),
    ("1.70e4", "\\boxed{17{,}000}", CORRECT),
    ("np.arcsin(10/13)", "\\boxed{\\arcsin(10/13)}", CORRECT),
    ("np.arcsin(10/13)", "\\boxed{0.878}", CORRECT),
    ("-1./3", "\\boxed{-\\frac13}", CORRECT),
    ("-1./3", "\\boxed{-1./3}", CORRECT),
    ("4", "\\boxed{4.03}", INCORRECT),
    ("400000", "\\boxed{4e5}", CORRECT),
    ("\\frac{1}{s+a}", "\\boxed{\\frac{1}{a+s}}", CORRECT),
]
# Golds as they stand in OlympiadBench.
SEVERAL_CASES = [
    ("$69$,$84$", "\\boxed{84, 69}", several(), CORRECT),
    ("$69$,$84$", "\\boxed{69} is one. The other one is\n\n\\boxed{84}", several(), CORRECT),
    ("$69$,$84$", "\\boxed{69}", several(), INCORRECT),
    ("$69$,$84$", "\\boxed{69} or \\boxed{84} or \\boxed{85}", several(), INCORRECT),
    ("$(1,1), (3,2)$", "\\boxed{(3,2),(1,1)}", several(), CORRECT),
    ("$221,$8$", "\\boxed{8,221}", several(), CORRECT),
    ("27,54,108,135", "\\boxed{135,27,54,108}", several(), CORRECT),
    ("45", "\\boxed{45\\text{ minutes}}", several("minute"), CORRECT),
    ("45", "\\boxed{46\\text{ minutes}}", several("minute"), INCORRECT),
    ("166", "\\boxed{166\\,cm^2}", several("$cm^2$"), CORRECT),
    ("$\\angle B E A_{1}=90$,$\\angle A E B_{1}=90$", "\\boxed{90^\\circ}", several("^{\\circ}"), CORRECT),
    ("$\\angle A=90$,$\\angle B=90$", "\\boxed{\\angle A=90, \\angle B=90}", several("^{\\circ}"), CORRECT),
    ("4.2", "\\boxed{4.3\\%}", several("%", 0.1), CORRECT),
    ("4.2", "\\boxed{4.31}", several("%", 0.1), INCORRECT),
    ("4.2", "\\boxed{4.3}", several("%"), INCORRECT),
]
ALL = [
    *((gold, completion, EXPRESSION, expected) for gold, completion, expected in CASES),
    *((gold, completion, PHYSICAL, expected) for gold, completion, expected in PHYSICAL_CASES),
    *SEVERAL_CASES,
]


@pytest.mark.parametrize(("gold", "completion", "rule", "expected"), ALL)
def test_a_completion_is_judged_by_the_rule_of_its_benchmark(gold, completion, rule, expected):
    assert judge(gold, completion, rule)[0] == expected


def test_under_math_verify_alone_tiny_numbers_would_be_equal():
    # What the rule `physical` is for. If this fails, Math-Verify has mended it.
    assert judge("6.6 \\times 10^{-27}", "\\boxed{3.1 \\times 10^{-21}}", EXPRESSION)[0] == CORRECT


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_measured_numbers_are_equal_within_one_per_cent_at_any_size(gold, given_number):
    verdict, _ = judge(f"{gold:.6e}", f"\\boxed{{{given_number:.6e}}}", PHYSICAL)
    distance = abs(gold - given_number) / max(gold, given_number)
    if abs(distance - 0.01) > 1e-5:
        assert (verdict == CORRECT) == (distance < 0.01)


@pytest.mark.parametrize("gold", ["__import__('os').system('true')", "np.load(1.0)", "9.0**9**9", "1.5 Z", "2.", "x.y"])
def test_a_gold_is_never_run_as_code(gold):
    assert measured_number(gold) == (2.0 if gold == "2." else None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", 1234.5),
        ("10^{-8}", 1e-8),
        ("-3", -3.0),
        ("4.5 \\times 10^{33} \\text{ erg/s}", 4.5e33),
        ("2x", None),
    ],
)
def test_numbers_are_read_as_people_write_them(text, value):
    assert plain_number(text) == value


def test_boxes_are_found_in_one_pass_at_any_depth():
    assert boxes("a \\boxed{1} b \\fbox{\\frac{1}{2}} \\boxed{never closed") == ["1", "\\frac{1}{2}"]
    assert boxes("\\boxed{a \\boxed{b}}") == ["b", "a \\boxed{b}"]
    assert boxes("\\boxed{\\{1, 2\\}}") == ["\\{1, 2\\}"]
    assert len(boxes("\\boxed{" * 20_000 + "}" * 20_000)) == 20_000


def test_every_gold_of_minerva_and_olympiadbench_can_be_measured_as_meant(shared):
    rows = [json.loads(line) for line in (shared / "data" / "minerva" / "test.jsonl").read_text().splitlines()]
    scientific = [row["answer"] for row in rows if "\\" not in row["answer"] and "e" in row["answer"].lower()[1:-1]]
    numbers = [gold for gold in scientific if gold.replace("e", "").replace("-", "").replace(".", "").isdigit()]
    assert len(numbers) == 58
    assert all(measured_number(gold) == float(gold) for gold in numbers)
