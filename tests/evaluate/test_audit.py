import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder_cli.config.evaluation import BenchmarkConfig, EvaluateConfig
from ladder_cli.console import make_console
from ladder_cli.data.benchmarks import Problem, benchmark_config, load_problems
from ladder_cli.data.gold import AS_EXPRESSION, PHYSICAL, SEVERAL, GoldRule
from ladder_cli.errors import RunFailed
from ladder_cli.evaluate.answers.verdict import CORRECT, INCORRECT, judge
from ladder_cli.evaluate.audit import check as module
from ladder_cli.evaluate.audit.check import audit, audit_problems
from ladder_cli.evaluate.audit.latex_value import differ
from ladder_cli.evaluate.audit.perturbations import parts, perturbed, terms
from ladder_cli.evaluate.audit.respellings import respelled
from ladder_cli.evaluate.grading import Grade, Grader


def test_what_is_wrong_with_golds_is_found():
    problems = [
        Problem("fine", "What is 1/2?", r"\frac{1}{2}"),
        Problem("again", "What  is 1/2?", "0.5"),
        Problem("formula", "What is what?", r"\frac{1}{2"),
    ]
    with Grader() as grader:
        found = audit_problems(BenchmarkConfig(name="made up"), problems, grader)
    assert found.rows == 3
    assert found.repeated == ["What is 1/2?"]
    assert list(found.failing or found.unread) == ["formula"]
    assert found.count("perturbed") > 10
    assert found.count("respelled") > 20
    assert [each for each in found.accepted if each.id != "formula"] == []
    assert [each for each in found.refused if each.id != "formula"] == []


class _Judges:
    """A grader that always says the same."""

    def __init__(self, verdict):
        self.verdict = verdict

    def grade(self, tasks):
        return (Grade(task.key, self.verdict, "read") for task in tasks)


@pytest.mark.parametrize(("verdict", "accepted", "refused"), [(CORRECT, True, False), (INCORRECT, False, True)])
def test_a_grader_without_judgement_is_found_out(verdict, accepted, refused):
    found = audit_problems(BenchmarkConfig(name="made up"), [Problem("a", "?", "3x+1")], _Judges(verdict))
    assert (len(found.accepted) == found.count("perturbed") > 0) == accepted
    assert (len(found.refused) == found.count("respelled") > 0) == refused


def test_an_accepted_perturbation_fails_the_audit_and_is_listed_and_recorded(tmp_path, monkeypatch, capsys):
    real = module._tasks

    def with_one_that_is_right(problems):
        tasks = list(real(problems))
        key = (problems[0].id, "perturbed", "made right", 0)
        return [*tasks, module.Task(key, problems[0].gold, f"\\boxed{{{problems[0].gold}}}")]

    monkeypatch.setattr(module, "_tasks", with_one_that_is_right)
    options = {"audit": True, "benchmarks": ["arithmetic"], "limit": 2, "output_dir": str(tmp_path / "out")}
    with pytest.raises(RunFailed, match=r"1 finding"):
        audit(EvaluateConfig(**options, instruction=""), make_console())
    assert "made right" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [each["kind"] for each in record["benchmarks"]["arithmetic"]["accepted"]] == ["made right"]
    assert record["grader"]["rules"]


def test_a_benchmark_that_cannot_be_read_fails_the_audit(tmp_path):
    options = {"audit": True, "benchmarks": ["arithmetic", "math500"], "limit": 3, "data_dir": str(tmp_path)}
    with pytest.raises(RunFailed, match=r"1 finding"):
        audit(EvaluateConfig(**options, instruction=""), make_console())


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        (r"\frac{1}{2}", "0.5", False),
        ("2x+y", "y+2x", False),
        (r"(x+1)^2", "x^2+2x+1", False),
        (r"\sqrt{8}", r"2\sqrt2", False),
        ("52_8", "42", False),
        ("1, 2", "2, 1", False),
        ("(1, 2)", "(2, 1)", True),
        ("x+y=2", "2=x+y", False),
        ("x+y=2", "2x+2y=4", False),
        ("x-y=2", "x+y=2", True),
        (r"\sin x", r"\cos x", True),
        ("10,080", "10080", False),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", None),
        ("2^{-99}", "2^{-98}", True),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}", True),
        (r"E_{1}", r"E_{3}", True),
        (r"\sum_{k=1}^n k", "3", None),
    ],
)
def test_values_are_compared_or_not_understood(first, second, answer):
    assert differ(first, second) is answer


@pytest.mark.parametrize(
    ("gold", "rule", "kind", "answer"),
    [
        ("-3", AS_EXPRESSION, "sign", "3"),
        (r"\frac{3}{56}", AS_EXPRESSION, "fraction upside down", r"\frac{56}{3}"),
        ("3, 5, 7", AS_EXPRESSION, "dropped part", "3, 5"),
        ("3, 5, 7", AS_EXPRESSION, "added part", "3, 5, 7, 7919"),
        ("p - q", AS_EXPRESSION, "swapped variable", "q - p"),
        ("2n-2", AS_EXPRESSION, "swapped variable", "2w-2"),
        ("2516_8", AS_EXPRESSION, "base", "2516_{9}"),
        ("(3,4]", AS_EXPRESSION, "other bracket", "[3,4]"),
        (r"\text{(C)}", AS_EXPRESSION, "other word", r"\text{(D)}"),
        (r"5.4 \text{ cents}", AS_EXPRESSION, "other unit", r"5.4 \text{ weeks}"),
        ("4.5e3", GoldRule(PHYSICAL), "digit", "4.5e4"),
        ("45", GoldRule(SEVERAL, "minute"), "other unit", r"45 \text{ weeks}"),
        (r"\left( 3, \frac{\pi}{2} \right)", AS_EXPRESSION, "exchanged coordinates", r"\left(\frac{\pi}{2}, 3\right)"),
    ],
)
def test_a_perturbation_changes_one_thing(gold, rule, kind, answer):
    assert (kind, answer) in list(perturbed(gold, rule))


@pytest.mark.parametrize(
    ("gold", "rule", "answer"),
    [
        ("0", AS_EXPRESSION, "-0"),
        ("x+y", AS_EXPRESSION, "y+x"),
        ("2, -2", AS_EXPRESSION, "-2, -(-2)"),
        ("3.14", GoldRule(PHYSICAL), "3.15"),
        ("f(x)=x+1", AS_EXPRESSION, "f(w)=w+1"),
        (r"(2,\infty)", AS_EXPRESSION, r"(2,\infty]"),
    ],
)
def test_what_is_still_right_is_no_perturbation(gold, rule, answer):
    assert answer not in [each for _, each in perturbed(gold, rule)]


def test_commas_between_thousands_and_inside_brackets_part_nothing():
    assert parts("10,080") == ["10,080"]
    assert parts("(1,2), 3") == ["(1,2)", " 3"]
    assert terms("-a+b^{-1}-(c+d)") == ["-a", "+b^{-1}", "-(c+d)"]


def test_thousands_units_and_order_are_respelled():
    def spelled(gold, rule=AS_EXPRESSION):
        return [completion for _, completion in respelled(gold, rule)]

    assert "The answer is \\boxed{12{,}345}." in spelled("12345")
    assert "The answer is \\boxed{7, 5, 3}." in spelled("3, 5, 7")
    assert "The answer is \\boxed{90°}." in spelled(r"90^\circ")
    assert "\\boxed{45 \\text{ minute}}" in spelled("45", GoldRule(SEVERAL, "minute"))
    # The order of coordinates matters, and money keeps its sign.
    assert "The answer is \\boxed{(2, 1)}." not in spelled("(1, 2)")
    assert "\\boxed{\\$36}" in spelled(r"\$36")


NUMBERS = st.integers(2, 99)
NAMES = st.sampled_from("xynab")


def expressions():
    """Expressions as answers hold them: sums, products, powers, roots and fractions of numbers and variables."""
    atoms = NUMBERS.map(str) | NAMES
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: f"\\frac{{{two[0]}}}{{{two[1]}}}"),
            st.tuples(inner, inner, st.sampled_from("+-")).map(lambda t: f"{t[0]} {t[2]} \\left({t[1]}\\right)"),
            inner.map(lambda one: f"\\sqrt{{{one}}}"),
            st.tuples(NAMES, st.integers(2, 5)).map(lambda two: f"{two[0]}^{{{two[1]}}}"),
            st.tuples(NUMBERS, NAMES).map(lambda two: f"{two[0]}{two[1]}"),
        ),
        max_leaves=4,
    )


@settings(max_examples=40, deadline=None)
@given(expressions())
def test_wrong_answers_made_of_any_expression_are_judged_wrong(gold):
    for kind, answer in perturbed(gold, AS_EXPRESSION):
        verdict, _ = judge(gold, f"The answer is \\boxed{{{answer}}}.", AS_EXPRESSION)
        assert verdict == INCORRECT, (kind, answer)


@settings(max_examples=40, deadline=None)
@given(expressions())
def test_other_spellings_of_any_expression_are_judged_right(gold):
    for kind, completion in respelled(gold, AS_EXPRESSION):
        verdict, _ = judge(gold, completion, AS_EXPRESSION)
        assert verdict == CORRECT, (kind, completion)


def test_the_golds_of_the_real_benchmarks_stand_the_audit(shared):
    """A sample of each; the whole is `ladder-eval audit=true`, and docs/evaluation.md has its counts."""
    accepted, refused, wrong, tried = [], [], 0, 0
    with Grader() as grader:
        for name, step in dict(math500=25, aime24=10, aime25=10, amc23=10, minerva=12, olympiadbench=30).items():
            benchmark = benchmark_config(name)
            found = audit_problems(benchmark, load_problems(benchmark, str(shared / "data"))[::step], grader)
            assert found.failing == {}, name
            accepted += found.accepted
            refused += found.refused
            wrong += found.count("perturbed")
            tried += found.count("respelled")
    assert wrong > 300
    assert tried > 700
    assert accepted == []
    assert refused == []
