import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.data.gold import GoldRule
from ladder_cli.evaluate.answers.verdict import (
    CORRECT,
    GOLD_UNPARSED,
    INCORRECT,
    NO_ANSWER,
    judge,
    measured_number,
    unread,
)
from tests.evaluate.answers.chat_answers import COMPLETIONS
from tests.evaluate.answers.spellings import SPELLINGS

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
    ("2 + 2 = 4\n#### 4", "\\boxed{4}", CORRECT),
    ("4", "\\boxed{4\u0000}", CORRECT),
    ("MR=SRMC", "\\boxed{MR=-SRMC}", INCORRECT),
    ("\\frac{270}7\\text{ degrees}", "\\boxed{\\frac{270}7\\text{ weeks}}", INCORRECT),
    ("x \\in [-2,7]", "\\boxed{-x \\in [-7,2]}", CORRECT),
    ("x \\in [-2,7]", "\\boxed{-x \\in [-2,7]}", INCORRECT),
    ("\\text{(C)}", "\\boxed{\\text{(C)}, D}", INCORRECT),
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
    ("16,3,1,1", "$\\boxed{16}$, $\\boxed{3}$, $\\boxed{1}$, $\\boxed{1}$.", several(), CORRECT),
    ("-2,-2", "\\boxed{-2} and \\boxed{-2}", several(), CORRECT),
    ("-2,-2", "\\boxed{-2}", several(), INCORRECT),
    ("4.2", "\\boxed{4.2 \\text{ weeks}}", several("%", 0.1), INCORRECT),
    ("$N(n)=\\left\\lfloor\\frac{2 n}{3}\\right\\rfloor+1$", "\\boxed{N(n)=1}", several(), INCORRECT),
    ("$\\angle A=90$,$\\angle B=90$", "\\boxed{\\angle A=90}", several("^{\\circ}"), INCORRECT),
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


@pytest.mark.parametrize(
    ("gold", "right"), [(gold, answer) for gold, (right, _) in SPELLINGS.items() for answer in right]
)
def test_a_right_answer_is_right_in_every_spelling(gold, right):
    assert judge(gold, f"so it is $\\boxed{{{right}}}$.", EXPRESSION).verdict == CORRECT


@pytest.mark.parametrize(
    ("gold", "wrong"), [(gold, answer) for gold, (_, wrong) in SPELLINGS.items() for answer in wrong]
)
def test_another_answer_is_wrong_however_near_its_spelling(gold, wrong):
    assert judge(gold, f"so it is $\\boxed{{{wrong}}}$.", EXPRESSION).verdict == INCORRECT


@pytest.mark.parametrize("gold", COMPLETIONS)
def test_what_a_chat_model_writes_is_judged_by_what_it_says(gold):
    right, wrong = COMPLETIONS[gold]
    assert [each for each in right if judge(gold, each, EXPRESSION).verdict != CORRECT] == []
    assert [each for each in wrong if judge(gold, each, EXPRESSION).verdict == CORRECT] == []


def test_tiny_and_huge_numbers_are_told_apart_exactly():
    assert judge("6.6 \\times 10^{-27}", "\\boxed{3.1 \\times 10^{-21}}", EXPRESSION)[0] == INCORRECT
    assert judge("\\frac{1}{2004!}", "\\boxed{\\frac{1}{2006!}}", EXPRESSION)[0] == INCORRECT
    assert judge("10^{100}", "\\boxed{10^{100}+1}", EXPRESSION)[0] == INCORRECT
    assert judge("2^{5000}", "\\boxed{4^{2500}}", EXPRESSION)[0] == CORRECT


def test_what_is_too_large_to_compute_is_compared_as_it_is_written():
    tower = "9^{9^{9^{9}}}"
    assert judge(tower, f"\\boxed{{{tower}}}", EXPRESSION)[0] == CORRECT
    assert judge(tower, "\\boxed{9^{9^{9^{8}}}}", EXPRESSION)[0] == INCORRECT


def test_a_gold_that_cannot_be_read_whole_says_why_and_is_compared_as_a_string():
    assert unread("$t(0,4]$", several()) is not None
    assert judge("$t(0,4]$", "\\boxed{t (0, 4]}", several())[0] == CORRECT
    assert judge("$t(0,4]$", "\\boxed{4}", several())[0] == INCORRECT
    assert unread("", EXPRESSION) is not None
    assert [unread(gold, EXPRESSION) for gold in ("\\frac12", "C", "\\text{Evelyn}", "x=5", "1 \\pm i")] == [None] * 5


def test_the_unit_of_a_row_is_left_out_and_another_letter_is_not():
    verdicts = [
        judge("6", f"\\boxed{{{answer}}}", several("m"))[0] for answer in ("6", "6m", "6\\,\\mathrm{m}", "6n", "6m^2")
    ]
    assert verdicts == [CORRECT, CORRECT, CORRECT, INCORRECT, INCORRECT]
    assert judge("$6m$", "\\boxed{6}", several())[0] == INCORRECT


def test_the_tolerance_of_a_row_holds_for_formulas_too():
    verdicts = [
        judge("\\sqrt{2}", f"\\boxed{{{answer}}}", several(error=0.01))[0] for answer in ("1.41", "1.42", "1.43")
    ]
    assert verdicts == [CORRECT, CORRECT, INCORRECT]


def test_gold_and_answer_in_words_and_letters():
    assert judge("C", "The answer is C because A is wrong.", EXPRESSION)[0] == CORRECT
    assert judge("12", "\\boxed{\\textbf{(E)}\\ 12}", EXPRESSION)[0] == CORRECT
    assert judge("12", "\\boxed{\\textbf{(E)}\\ 13}", EXPRESSION)[0] == INCORRECT


@st.composite
def expressions(draw, depth=3):
    """An expression in x and y as LaTeX."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(["x", "y", "2", "3", "7", "\\pi", "\\frac{1}{2}", "x^2"]))
    left, right = draw(expressions(depth=depth - 1)), draw(expressions(depth=depth - 1))
    pattern = draw(st.sampled_from(["({}+{})", "({}-{})", "({})({})", "\\frac{{{}}}{{{}+11}}", "\\sqrt{{{}+{}+9}}"]))
    return pattern.format(left, right)


@settings(max_examples=150, deadline=None)
@given(expressions())
def test_an_expression_equals_its_other_spellings_and_not_its_neighbours(text):
    spelled = [
        text.replace("\\frac", "\\dfrac"),
        text.replace("(", "\\left(").replace(")", "\\right)"),
        f" {text} .",
        f"{text}+x-x",
        f"1 \\cdot ({text})",
        text.replace("\\pi", "π "),
    ]
    for other in spelled:
        assert judge(text, f"\\boxed{{{other}}}", EXPRESSION).verdict == CORRECT, other
    for other in (f"{text}+1", f"{text}+\\frac{{1}}{{10^{{12}}}}", f"({text})x+1", f"-({text})-1", f"({text}) + z"):
        assert judge(text, f"\\boxed{{{other}}}", EXPRESSION).verdict == INCORRECT, other


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_whole_numbers_are_equal_only_to_themselves(one, other):
    assert (judge(str(one), f"\\boxed{{{other}}}", EXPRESSION).verdict == CORRECT) == (one == other)


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_a_list_is_equal_in_any_order_and_to_no_other_multiset(parts, random):
    gold, shuffled = ", ".join(map(str, parts)), list(parts)
    random.shuffle(shuffled)
    assert judge(gold, f"\\boxed{{{', '.join(map(str, shuffled))}}}", EXPRESSION).verdict == CORRECT
    assert judge(gold, f"\\boxed{{{', '.join(map(str, shuffled[1:]))}}}", EXPRESSION).verdict == INCORRECT
    changed = [shuffled[0] + 1, *shuffled[1:]]
    assert judge(gold, f"\\boxed{{{', '.join(map(str, changed))}}}", EXPRESSION).verdict == INCORRECT


def test_peoples_own_solutions_of_math_end_in_their_answers(shared):
    rows = (shared / "data" / "math" / "train.jsonl").read_text().splitlines()[::5]
    wrong = []
    for row in rows:
        solution = json.loads(row)["solution"]
        boxed = re.findall(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}", solution)
        if boxed and boxed[-1] and judge(boxed[-1], solution, EXPRESSION).verdict != CORRECT:
            wrong.append(boxed[-1])
    assert len(rows) == 1500
    # "g(x)=\\boxed{2x+1} or g(x)=\\boxed{-2x-1}": both are the answer, and the last box alone is not.
    assert wrong == ["-2x-1"]


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_measured_numbers_are_equal_within_one_per_cent_at_any_size(gold, given_number):
    verdict, _ = judge(f"{gold:.6e}", f"\\boxed{{{given_number:.6e}}}", PHYSICAL)
    distance = abs(gold - given_number) / max(gold, given_number)
    if abs(distance - 0.01) > 1e-5:
        assert (verdict == CORRECT) == (distance < 0.01)


@pytest.mark.parametrize("gold", ["__import__('os').system('true')", "np.load(1.0)", "9.0**9**9", "1.5 Z", "2.", "x.y"])
def test_a_gold_is_never_run_as_code(gold):
    assert measured_number(gold) == (2.0 if gold == "2." else None)


def test_every_gold_of_minerva_and_olympiadbench_can_be_measured_as_meant(shared):
    rows = [json.loads(line) for line in (shared / "data" / "minerva" / "test.jsonl").read_text().splitlines()]
    scientific = [row["answer"] for row in rows if "\\" not in row["answer"] and "e" in row["answer"].lower()[1:-1]]
    numbers = [gold for gold in scientific if gold.replace("e", "").replace("-", "").replace(".", "").isdigit()]
    assert len(numbers) == 58
    assert all(measured_number(gold) == float(gold) for gold in numbers)
