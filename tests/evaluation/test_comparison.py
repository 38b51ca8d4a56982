import csv
import json

import pytest
from PIL import Image

from ladder_cli.config import EvaluateConfig
from ladder_cli.console import make_console
from ladder_cli.errors import UserError
from ladder_cli.evaluation.comparison import MCNEMAR, STUDENT, compare, read_side
from ladder_cli.evaluation.comparison_report import report_comparison
from ladder_cli.evaluation.samples import FIELDS
from ladder_cli.evaluation.statistics import mcnemar


def write_run(run, benchmark, verdicts, gold="1", settings=None):
    """A run whose n-th problem has the n-th verdict: `r`ight, `w`rong or `-` not answered."""
    folder = run / "eval" / benchmark
    folder.mkdir(parents=True)
    with (folder / "samples.jsonl").open("w") as file:
        for number, verdict in enumerate(verdicts):
            if verdict != "-":
                correct = verdict == "r"
                sample = dict.fromkeys(FIELDS) | {
                    "id": str(number),
                    "gold": gold,
                    "verdict": "correct" if correct else "incorrect",
                }
                sample |= {"tokens": 100 + number if correct else 300 + number, "stop_reason": "stop"}
                file.write(json.dumps(sample) + "\n")
    if settings:
        (folder / "settings.json").write_text(json.dumps(settings))
    return str(run)


def test_two_single_runs_are_compared_problem_by_problem(tmp_path):
    first = write_run(tmp_path / "first", "made", "rrrrrrwwrr" * 3)
    second = write_run(tmp_path / "second", "made", "rwwwrrwrrr" * 3)
    (result,) = compare(read_side(first), read_side(second))
    assert result.difference == pytest.approx(0.8 - 0.6)
    assert (result.only_first, result.only_second) == (9, 3)
    assert result.test == MCNEMAR
    assert result.p_value == result.p_holm == mcnemar(9, 3)
    assert result.low < result.difference < result.high
    (other_way,) = compare(read_side(second), read_side(first))
    assert other_way.difference == pytest.approx(-result.difference)
    assert other_way.p_value == pytest.approx(result.p_value)


def test_several_runs_on_a_side_bring_their_spread(tmp_path):
    for seed, verdicts in enumerate(["rrrrw", "rrrww", "rrrrr"]):
        write_run(tmp_path / f"many,seed={seed}", "made", verdicts * 6)
    one = write_run(tmp_path / "one", "made", "rrwww" * 6)
    (result,) = compare(read_side(f"{tmp_path}/many*"), read_side(one))
    assert result.difference == pytest.approx(0.8 - 0.4)
    assert result.first["n_runs"] == 3
    assert result.first["std"] == pytest.approx(0.2)
    assert result.second["std"] is None
    assert result.test == STUDENT
    assert result.only_first is None


def test_problems_that_one_side_lacks_are_left_out_and_counted(tmp_path):
    first = write_run(tmp_path / "first", "made", "rrww--")
    second = write_run(tmp_path / "second", "made", "-rrwrr")
    (result,) = compare(read_side(first), read_side(second))
    assert result.first["n_problems"] == 3
    assert result.unpaired == 3


def test_holm_corrects_over_the_benchmarks(tmp_path):
    for benchmark, verdicts in {"a": "r" * 12, "b": "r" * 9 + "www"}.items():
        write_run(tmp_path / benchmark / "first", benchmark, verdicts)
        write_run(tmp_path / benchmark / "second", benchmark, "w" * 12)
    for side in ("first", "second"):
        (tmp_path / "a" / side / "eval" / "b").symlink_to(tmp_path / "b" / side / "eval" / "b")
    results = compare(read_side(f"{tmp_path}/a/first"), read_side(f"{tmp_path}/a/second"))
    assert [each.p_holm for each in results] == pytest.approx([2 * 2 / 2**12, 2 / 2**9])


def test_sides_that_were_not_made_alike_say_so(tmp_path):
    first = write_run(tmp_path / "first", "made", "rrww", settings={"max_new_tokens": 256, "weights": "a"})
    second = write_run(tmp_path / "second", "made", "rwrw", settings={"max_new_tokens": 512, "weights": "b"})
    (result,) = compare(read_side(first), read_side(second))
    assert result.notes == ["max_new_tokens: 256 against 512"]


@pytest.mark.parametrize(
    ("benchmark", "gold", "message"), [("other", "1", "no benchmark in common"), ("made", "2", "gold answers")]
)
def test_what_cannot_be_compared_is_refused(benchmark, gold, message, tmp_path):
    first = write_run(tmp_path / "first", "made", "rrww")
    second = write_run(tmp_path / "second", benchmark, "rwrw", gold)
    with pytest.raises(UserError, match=message):
        compare(read_side(first), read_side(second))


def test_a_side_without_samples_is_told_what_to_do(tmp_path):
    with pytest.raises(UserError, match="evaluate it first"):
        read_side(str(tmp_path))


def test_one_side_is_no_comparison():
    with pytest.raises(UserError, match="give two"):
        EvaluateConfig(compare=["outputs/a"])


def test_a_comparison_is_a_table_markdown_csv_json_and_a_figure(tmp_path, capsys):
    first = write_run(tmp_path / "first", "made", "rrrw" * 5)
    second = write_run(tmp_path / "second", "made", "rwww" * 5)
    out = tmp_path / "out"
    report_comparison(EvaluateConfig(compare=[first, second], output_dir=str(out)), make_console())
    printed = capsys.readouterr().out
    assert "+50.0" in printed
    markdown = (out / "comparison.md").read_text().splitlines()
    assert markdown[0].startswith("| benchmark | problems | first | second | difference |")
    assert markdown[2].startswith("| made | 20 | 75.0% | 25.0% | +50.0 |")
    (row,) = csv.DictReader((out / "comparison.csv").read_text().splitlines())
    assert float(row["difference"]) == 0.5
    record = json.loads((out / "comparison.json").read_text())
    assert record["benchmarks"][0]["only_first"] == 10
    with Image.open(out / "comparison.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10, "something is drawn"
    assert "Pass@1" in (out / "comparison.svg").read_text()


def test_completions_without_token_counts_can_still_be_drawn(tmp_path):
    for side, verdicts in {"first": "rrw", "second": "rww"}.items():
        folder = tmp_path / side
        folder.mkdir()
        rows = [
            dict.fromkeys(FIELDS)
            | {"id": n, "benchmark": "made", "gold": "1", "verdict": "correct" if v == "r" else "incorrect"}
            for n, v in enumerate(verdicts)
        ]  # fmt: skip
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sides = [str(tmp_path / side) for side in ("first", "second")]
    report_comparison(EvaluateConfig(compare=sides, output_dir=str(tmp_path / "out")), make_console())
    assert "no token counts" in (tmp_path / "out" / "comparison.svg").read_text()
