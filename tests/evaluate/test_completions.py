"""`ladder-eval completions=`: what a row may hold, several completions of a problem, and what is wrong with a file."""

import json
from itertools import combinations

import pytest

from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.console import make_console
from ladder_cli.data.benchmarks import benchmark_config, load_problems
from ladder_cli.data.gold import gold_column, row_names
from ladder_cli.errors import UserError
from ladder_cli.evaluate.completion_rows import CUT_OFF, ENDED, read_completions
from ladder_cli.evaluate.completions import completions_folder, grade_completions
from ladder_cli.evaluate.pass_at_k import pass_at_k, summarise_problems
from ladder_cli.evaluate.samples import Sample

GOOD = {"gold": "4", "completion": "\\boxed{4}"}


def written(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def graded(folder, *rows, **changes):
    """`result.json` and the samples by id and number."""
    options = {"completions": str(written(folder, *rows)), "output_dir": str(folder / "out"), **changes}
    config = composed("evaluate", EvaluateConfig, [f"{key}={value}" for key, value in options.items()])
    grade_completions(config, make_console())
    samples = map(json.loads, (folder / "out" / "samples.jsonl").read_text().splitlines())
    result = json.loads((folder / "out" / "result.json").read_text())
    return result, {(sample["id"], sample["sample"]): sample for sample in samples}


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("x", "x"),
        (4, "4"),
        (4.0, "4"),
        (0.5, "0.5"),
        (-3, "-3"),
        (1e-7, "1e-7"),
        (2.5e-7, "2.5e-7"),
        (4.5e33, "4.5e33"),
        (1e22, "1e22"),
        (12345678901234567890, "12345678901234567890"),
        (True, "True"),
        (["4"], "4"),
        (["3", 4], "3, 4"),
    ],
)
def test_a_gold_becomes_the_same_text_in_completions_and_in_a_benchmark(gold, text, tmp_path):
    (completion,), _ = read_completions(written(tmp_path, {"gold": gold, "completion": "x"}))
    own = written(tmp_path, {"question": "?", "answer": gold})
    (problem,) = load_problems(benchmark_config(str(own)), None)
    assert completion.gold == problem.gold == text


@pytest.mark.parametrize("gold", [None, "", " ", [], [None], [["1"]], {"a": 1}, float("nan"), float("inf")])
def test_a_gold_that_is_no_answer_is_refused_in_completions_and_in_a_benchmark(gold, tmp_path):
    with pytest.raises(UserError, match=r"row 1: column 'gold'"):
        read_completions(written(tmp_path, {"gold": gold, "completion": "x"}))
    own = written(tmp_path, {"question": "?", "answer": gold})
    with pytest.raises(UserError, match=r"row 1: column 'answer'"):
        load_problems(benchmark_config(str(own)), None)


def test_rows_without_an_id_are_named_by_their_number_in_completions_and_in_a_benchmark(tmp_path):
    ids = [{"id": None}, {}, {"id": ""}, {"id": 7}, {"id": 8.0}, {"id": "x"}]
    completions, _ = read_completions(written(tmp_path, *(GOOD | row for row in ids)))
    problems = load_problems(
        benchmark_config(str(written(tmp_path, *({"question": "?", "answer": 1} | row for row in ids)))), None
    )
    names = ["1", "2", "3", "7", "8", "x"]
    assert [each.problem for each in completions] == names
    assert [each.id for each in problems] == names


def test_a_row_number_is_never_taken_for_the_id_of_another_row():
    with pytest.raises(UserError, match=r"row 1: id '2' is also the name of row 2"):
        row_names([{"id": 2}, {}], "id", "file")


@pytest.mark.parametrize("name", [["a"], {"a": 1}, True, 1.5])
def test_an_id_is_a_text_or_a_whole_number(name):
    with pytest.raises(UserError, match="text or a whole number"):
        row_names([{"id": name}], "id", "file")


def test_a_missing_gold_column_is_named_with_those_that_are_there():
    with pytest.raises(UserError, match="no column 'gold'; it has: answer"):
        gold_column({"answer": "4"}, "gold", "row 1")


@pytest.mark.parametrize("column", ["finish_reason", "stop_reason"])
@pytest.mark.parametrize("word", [*CUT_OFF, "LENGTH", "MAX_TOKENS"])
def test_a_completion_cut_off_in_the_words_of_any_tool_has_no_answer_without_a_box(column, word, tmp_path):
    (completion,), _ = read_completions(written(tmp_path, GOOD | {column: word}))
    assert completion.stop_reason == "length"


@pytest.mark.parametrize("word", [*ENDED, "STOP"])
def test_a_completion_that_ended_is_whole(word, tmp_path):
    (completion,), _ = read_completions(written(tmp_path, GOOD | {"finish_reason": word}))
    assert completion.stop_reason == "stop"


def test_what_vllm_stopped_at_is_not_taken_for_the_reason(tmp_path):
    rows = [
        GOOD | {"finish_reason": "stop", "stop_reason": 151645},
        GOOD | {"finish_reason": "stop", "stop_reason": "\n\nQuestion:"},
        GOOD | {"finish_reason": "length", "stop_reason": None},
    ]
    completions, _ = read_completions(written(tmp_path, *rows))
    assert [each.stop_reason for each in completions] == ["stop", "stop", "length"]


def test_the_reason_decides_whether_a_formula_counts(tmp_path):
    row = {"gold": "4", "completion": "so $4$"}
    result, samples = graded(
        tmp_path, row | {"id": "cut", "finish_reason": "length"}, row | {"id": "whole", "finish_reason": "stop"}
    )
    assert samples["cut", 1]["verdict"] == "no_answer"
    assert samples["whole", 1]["verdict"] == "correct"
    assert result["truncated_rate"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finish_reason": "tired"}, "unknown finish_reason 'tired'. Known: stop, eos"),
        ({"stop_reason": 7}, "unknown stop_reason 7"),
        ({"finish_reason": "length", "stop_reason": "stop"}, "contradicts"),
        ({"tokens": "many"}, "'tokens' must hold a whole number"),
        ({"tokens": -1}, "'tokens' must hold a whole number"),
        ({"tokens": 5.5}, "'tokens' must hold a whole number"),
        ({"tokens": True}, "'tokens' must hold a whole number"),
        ({"completion": None}, "no text in column 'completion'"),
        ({"completion": 4}, "no text in column 'completion'"),
        ({"completion": []}, "no text in column 'completion'"),
        ({"completion": ["a", None]}, "no text in column 'completion'"),
        ({"completion": ["a", "b"], "tokens": 3}, "are of one completion"),
        ({"benchmark": 5}, "'benchmark' must hold a text"),
        ({"benchmark": "math-500"}, "Did you mean 'math500'"),
        ({"benchmark": "cola"}, "label task"),
        ({"rule": "strict"}, "no rule 'strict'"),
        ({"benchmark": "minerva", "rule": "several"}, "has the rule 'physical'"),
        ({"rule": "physical", "error": 0.1}, "has a tolerance of its own"),
        ({"rule": "several", "error": "1e-3,1e-4"}, "'error' must hold a number"),
        ({"rule": "several", "error": -1}, "'error' must hold a number"),
    ],
)
def test_a_row_that_is_wrong_is_named_before_anything_is_graded(change, message, tmp_path):
    with pytest.raises(UserError, match=rf"row 2.*{message}"):
        graded(tmp_path, GOOD, GOOD | change)
    assert not (tmp_path / "out").exists()


def test_all_wrong_rows_are_counted_in_one_line(tmp_path):
    rows = [GOOD, GOOD | {"tokens": "x"}, GOOD, GOOD | {"gold": None}, GOOD | {"completion": 1}]
    with pytest.raises(UserError, match=r"row 2: .* Wrong too: 2 row\(s\) \(4, 5\)\."):
        read_completions(written(tmp_path, *rows))


def test_tokens_may_be_written_as_text_as_csv_does(tmp_path):
    rows = [GOOD | {"tokens": value} for value in ("12", 12.0, None, "")]
    completions, _ = read_completions(written(tmp_path, *rows))
    assert [each.tokens for each in completions] == [12, 12, None, None]


def test_the_gold_of_a_benchmark_is_what_stands_after_its_mark(tmp_path):
    row = {"gold": "12 of them and 60 more\n#### 72", "completion": "x", "benchmark": "gsm8k"}
    (completion,), _ = read_completions(written(tmp_path, row))
    assert completion.gold == "72"


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_completion():
    for n, c, k in [(5, 2, 1), (5, 2, 3), (6, 1, 4), (4, 0, 2), (4, 4, 2), (3, 1, 3)]:
        draws = list(combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)


def test_pass_at_k_of_hundreds_of_completions_is_a_number_between_0_and_1():
    assert 0.0 < pass_at_k(2000, 1, 1000) < pass_at_k(2000, 2, 1000) < 1.0
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(3, 1, 4)


def test_several_completions_of_a_problem_give_pass_at_1_as_their_mean(tmp_path):
    """As a list, as rows of one id, or as both, with unequal numbers."""
    right, wrong = "\\boxed{4}", "\\boxed{5}"
    result, samples = graded(
        tmp_path,
        {"id": "a", "gold": "4", "completion": [right, wrong, wrong]},
        {"id": "b", "gold": "4", "completion": right},
        {"id": "b", "gold": "4", "completion": right},
        {"id": "a", "gold": "4", "completion": right},
        {"id": "c", "gold": "4", "completion": [wrong, wrong]},
    )
    assert result["pass_at_1"] == pytest.approx((2 / 4 + 1 + 0) / 3)
    # Of four completions of a with two right, five of six pairs hold a right one.
    assert result["pass_at_k"] == pytest.approx({"1": 0.5, "2": (5 / 6 + 1 + 0) / 3})
    assert (result["n_problems"], result["n_completions"]) == (3, 8)
    assert result["ci95"][0] < 0.5 < result["ci95"][1]
    assert [samples["a", number]["verdict"] for number in range(1, 5)] == [
        "correct", "incorrect", "incorrect", "correct"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out" / "problems.jsonl").read_text().splitlines()]
    assert [(line["id"], line["completions"], line["correct"]) for line in lines] == [
        ("a", 4, 2),
        ("b", 2, 2),
        ("c", 2, 0),
    ]
    assert lines[0]["pass_at_k"] == pytest.approx({"1": 0.5, "2": 5 / 6, "3": 1.0, "4": 1.0})


def test_copies_of_completions_do_not_narrow_the_interval():
    def problems(copies):
        verdicts = ["correct", "incorrect", "correct", "incorrect", "incorrect", "correct", "correct", "correct"]
        return [
            [Sample(id=str(n), completion="", gold="", answer=None, verdict=verdict, tokens=1, stop_reason="stop")]
            * copies
            for n, verdict in enumerate(verdicts)
        ]

    twice, often = (summarise_problems("x", problems(copies))["ci95"] for copies in (2, 50))
    assert twice == pytest.approx(often)


def test_an_id_with_another_gold_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"row 2: id 'a' stands in row 1 with another gold"):
        read_completions(written(tmp_path, GOOD | {"id": "a"}, GOOD | {"id": "a", "gold": "5"}))
    with pytest.raises(UserError, match=r"row 2: id 'a' stands in row 1 with another benchmark"):
        read_completions(written(tmp_path, GOOD | {"id": "a"}, GOOD | {"id": "a", "benchmark": "math500"}))


def test_rows_that_are_the_same_are_counted_and_said_to_be_so(tmp_path, capsys):
    result, _ = graded(tmp_path, GOOD | {"id": "a"}, GOOD | {"id": "a"}, GOOD | {"id": "b"})
    assert result["n_completions"] == 3
    assert "1 row(s) equal an earlier one in every column" in " ".join(capsys.readouterr().out.split())


def test_a_smaller_limit_never_overwrites_a_larger_result(tmp_path):
    rows = [GOOD | {"id": str(n)} for n in range(3)]
    graded(tmp_path, *rows)
    with pytest.raises(UserError, match="1 graded completions that are not asked for now"):
        graded(tmp_path, *rows, limit=2)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["n_problems"] == 3


def test_a_limit_counts_problems(tmp_path):
    result, _ = graded(tmp_path, *(GOOD | {"id": name} for name in "aabbc"), limit=2)
    assert (result["n_problems"], result["n_completions"]) == (2, 4)


def test_files_that_differ_in_their_suffix_alone_have_folders_of_their_own():
    names = ("f.jsonl", "f.csv", "f.jsonl.gz", "g/f.json")
    folders = [completions_folder(EvaluateConfig(completions=name)) for name in names]
    assert len(set(folders)) == len(names)
    assert folders[0].name == "eval-f"
