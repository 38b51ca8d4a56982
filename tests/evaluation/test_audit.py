import pytest

from ladder_cli.config import BenchmarkConfig, EvaluateConfig
from ladder_cli.console import make_console
from ladder_cli.data.benchmarks import Problem
from ladder_cli.errors import RunFailed
from ladder_cli.evaluation.audit import audit, audit_problems
from ladder_cli.evaluation.grading import Grader


def test_what_is_wrong_with_golds_is_found():
    problems = [
        Problem("fine", "What is 1/2?", r"\frac{1}{2}"),
        Problem("again", "What  is 1/2?", "0.5"),
        Problem("broken", "What is what?", "}"),
    ]
    with Grader() as grader:
        found = audit_problems(BenchmarkConfig(name="made up"), problems, grader)
    assert found.rows == 3
    assert found.repeated == ["What is 1/2?"]
    assert list(found.failing) == ["broken"]


def test_a_benchmark_that_cannot_be_read_fails_the_audit(tmp_path):
    config = EvaluateConfig(audit=True, benchmarks=["arithmetic", "math500"], data_dir=str(tmp_path), instruction="")
    with pytest.raises(RunFailed, match=r"1 finding"):
        audit(config, make_console())


def test_every_gold_of_the_real_benchmarks_verifies_against_itself(shared):
    config = EvaluateConfig(audit=True, benchmarks=["all"], data_dir=str(shared / "data"), instruction="")
    results = audit(config, make_console())
    rows = {name: found["rows"] for name, found in results.items()}
    expected = dict(
        gsm8k=1319, math500=500, aime24=30, aime25=30, amc23=40, minerva=272, olympiadbench=674, arithmetic=200
    )
    assert rows == expected
