r"""gsm8k's rows in the form that the evaluator reads: the answer in \boxed{}."""

import json

import pytest

from ladder_cli.data.benchmarks import benchmark_config, load_problems
from ladder_cli.errors import UserError
from ladder_cli.evaluate.answers.verdict import CORRECT, judge
from paper.boxed_rows import boxed_solution, write_boxed_rows
from tests.conftest import SHARED


def test_the_answer_stands_in_a_box_and_the_calculator_s_notes_are_gone():
    answer = "Ann has 3*400=<<3*400=1200>>1200 stamps.\nShe keeps 1200+5 = <<1200+5=1205>>1205.\n#### 1,205"
    assert boxed_solution(answer) == (
        "Ann has 3*400=1200 stamps.\nShe keeps 1200+5 = 1205.\nThe answer is \\boxed{1205}."
    )
    assert boxed_solution("Debt grows.\n#### -7").endswith("\\boxed{-7}.")


@pytest.mark.parametrize("answer", ["no mark at all", "steps\n####", "#### 5"])
def test_a_row_without_steps_or_answer_is_refused_by_its_number(tmp_path, answer):
    rows = [{"question": "q", "answer": "one\n#### 1"}, {"question": "q", "answer": answer}]
    source = tmp_path / "train.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"train\.jsonl, row 2: no solution that ends in '#### ANSWER'"):
        write_boxed_rows(source, tmp_path / "boxed.jsonl")
    assert not (tmp_path / "boxed.jsonl").exists()


def test_what_is_learned_is_what_the_evaluator_calls_right(tmp_path):
    """gsm8k's own test rows, boxed, judged against gsm8k's own gold answers."""
    mirror = SHARED / "data"
    if not (mirror / "gsm8k" / "test.jsonl").is_file():
        pytest.skip("gsm8k is not beside this repository (../shared/data/gsm8k)")
    target = tmp_path / "boxed.jsonl"
    assert write_boxed_rows(mirror / "gsm8k" / "test.jsonl", target) == 1319
    rows = [json.loads(line) for line in target.read_text().splitlines()][:200]
    problems = load_problems(benchmark_config("gsm8k"), str(mirror), 200)
    assert [row["question"] for row in rows] == [problem.question for problem in problems]
    verdicts = [
        judge(problem.gold, row["solution"], problem.rule).verdict for problem, row in zip(problems, rows, strict=True)
    ]
    assert verdicts == [CORRECT] * 200
