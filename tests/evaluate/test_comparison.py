import csv
import json

import pytest
import yaml
from PIL import Image

from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.console import make_console
from ladder_cli.errors import UserError
from ladder_cli.evaluate.comparison import MCNEMAR, STUDENT, compare, read_side
from ladder_cli.evaluate.comparison_report import report_comparison
from ladder_cli.evaluate.samples import FIELDS
from ladder_cli.evaluate.statistics import mcnemar


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
                    "prompt": f"Compute {number}.",
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


MADE = {
    "kind": "boxed",
    "weights": "a",
    "max_new_tokens": 256,
    "prompt": "p",
    "instruction": "Reason.",
    "tokenizer": "t",
}


def pair(tmp_path, second, first=None, verdicts=("rrww", "rwrw")):
    """Two sides whose settings are `MADE` with changes."""
    sides = zip(("first", "second"), verdicts, (first or {}, second), strict=True)
    return [read_side(write_run(tmp_path / name, "made", each, settings=MADE | own)) for name, each, own in sides]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 512},
        {"temperature": 0.6},
        {"stop": ["x"]},
        {"kind": "label"},
        {"rule": "physical"},
        {"grader.math_verify": "0.8"},
    ],
)
def test_sides_that_were_not_measured_alike_are_refused_unless_that_is_allowed(settings, tmp_path):
    ((key, value),) = settings.items()
    first, second = pair(tmp_path, settings, first={key: MADE.get(key, "other")})
    told = f"{key}: {json.dumps(MADE.get(key, 'other'))} against {json.dumps(value)}"
    with pytest.raises(UserError, match="not measured alike on made") as raised:
        compare(first, second)
    assert told in str(raised.value)
    (result,) = compare(first, second, allow_settings_mismatch=True)
    assert result.notes == [told]


def test_other_weights_and_seeds_are_what_is_compared_and_need_no_word(tmp_path):
    (result,) = compare(*pair(tmp_path, {"weights": "b", "seed": 4}))
    assert result.notes == []


def test_another_instruction_or_template_is_named(tmp_path):
    (result,) = compare(*pair(tmp_path / "a", {"prompt": "q", "instruction": "Hurry."}))
    assert result.notes == ['instruction: "Reason." against "Hurry."']
    (result,) = compare(*pair(tmp_path / "b", {"prompt": "q"}))
    assert result.notes == ['prompt: "p" against "q"']


def test_what_follows_from_another_tokenizer_needs_no_word_and_what_does_not_is_named(tmp_path):
    (result,) = compare(*pair(tmp_path / "a", {"tokenizer": "u", "end_tokens": [1, 2]}, first={"end_tokens": [1]}))
    assert result.notes == []
    (result,) = compare(
        *pair(tmp_path / "b", {"end_tokens": [1, 2], "engine": "y"}, first={"end_tokens": [1], "engine": "x"})
    )
    assert result.notes == ["end_tokens: [1] against [1, 2]", 'engine: "x" against "y"']


def test_a_setting_that_one_side_does_not_record_is_named(tmp_path):
    (result,) = compare(*pair(tmp_path, {}, first={"stop": []}))
    assert result.notes == ["second does not record its stop"]


def edit_samples(side, **changes):
    path = side / "eval" / "made" / "samples.jsonl"
    rows = [json.loads(line) | changes for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"question_digest": "a"}, {"question_digest": "b"}),
        # Without a digest, as an earlier version wrote: one rendering, two prompts.
        ({"prompt": "Compute 1."}, {"prompt": "Compute 2."}),
    ],
)
def test_other_questions_under_the_same_ids_are_refused_whatever_is_allowed(first, second, tmp_path):
    pair(tmp_path, {})
    edit_samples(tmp_path / "first", **first)
    edit_samples(tmp_path / "second", **second)
    sides = [read_side(str(tmp_path / name)) for name in ("first", "second")]
    with pytest.raises(UserError, match=r"the questions of made differ \('0'\)"):
        compare(*sides, allow_settings_mismatch=True)


def test_questions_that_are_asked_in_other_words_around_them_are_the_same_questions(tmp_path):
    pair(tmp_path, {"prompt": "q", "instruction": "Hurry."})
    edit_samples(tmp_path / "first", question_digest="a", prompt="1 Reason.")
    edit_samples(tmp_path / "second", question_digest="a", prompt="1 Hurry.")
    (result,) = compare(*(read_side(str(tmp_path / name)) for name in ("first", "second")))
    assert result.notes == ['instruction: "Reason." against "Hurry."']


def test_questions_that_nobody_recorded_are_said_to_be_unknown(tmp_path):
    pair(tmp_path, {})
    edit_samples(tmp_path / "second", prompt=None)
    (result,) = compare(*(read_side(str(tmp_path / name)) for name in ("first", "second")))
    assert result.notes == [
        "whether 4 problem(s) ask the same question is not recorded; they are paired by id and gold answer"
    ]


def run_config(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": {"kind": "m"}, "seed": 0} | changes))


def test_a_glob_of_runs_means_neither_runs_set_aside_nor_evaluations_beside_them(tmp_path):
    for name, seed in {"a,seed=0": 0, "a,seed=1": 1, "a,seed=1.old-1": 1}.items():
        write_run(tmp_path / name, "made", "rrww")
        run_config(tmp_path / name, seed=seed)
    write_run(tmp_path / "a,evaluated", "made", "wwww")
    write_run(tmp_path / "b", "made", "rwrw")
    side = read_side(f"{tmp_path}/a*")
    assert [path.rpartition("/")[2] for path in side.samples["made"]] == ["a,seed=0", "a,seed=1"]
    assert sorted(path.rpartition("/")[2] for path in side.skipped) == ["a,evaluated", "a,seed=1.old-1"]
    report_comparison(
        EvaluateConfig(compare=[f"{tmp_path}/a*", str(tmp_path / "b")], output_dir=str(tmp_path / "out")),
        make_console(),
    )
    assert "a,seed=1.old-1" in (tmp_path / "out" / "comparison.md").read_text()


def test_runs_of_several_experiments_are_no_side(tmp_path):
    for name, kind in {"a": "ladder", "b": "branch"}.items():
        write_run(tmp_path / name, "made", "rrww")
        run_config(tmp_path / name, method={"kind": kind})
    with pytest.raises(UserError, match="runs of several experiments"):
        read_side(f"{tmp_path}/*")


def test_a_run_that_was_not_evaluated_is_not_passed_over(tmp_path):
    for seed in range(2):
        run_config(tmp_path / f"a,seed={seed}", seed=seed)
    write_run(tmp_path / "a,seed=0", "made", "rrww")
    with pytest.raises(UserError, match=r"a,seed=1 of .* holds no samples"):
        read_side(f"{tmp_path}/a*")
    write_run(tmp_path / "a,seed=1", "other", "rrww")
    write_run(tmp_path / "b", "made", "rwrw")
    with pytest.raises(UserError, match=r"a,seed=1 has no samples of made"):
        compare(read_side(f"{tmp_path}/a*"), read_side(str(tmp_path / "b")))


def test_runs_of_a_side_that_were_made_differently_are_refused(tmp_path):
    for seed, tokens in enumerate((256, 512)):
        write_run(tmp_path / f"a,seed={seed}", "made", "rrww", settings=MADE | {"max_new_tokens": tokens})
    write_run(tmp_path / "b", "made", "rwrw", settings=MADE)
    with pytest.raises(UserError, match="were not made alike on made"):
        compare(read_side(f"{tmp_path}/a*"), read_side(str(tmp_path / "b")), allow_settings_mismatch=True)


def test_a_run_on_both_sides_is_refused(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"a,seed={seed}", "made", "rrww")
    with pytest.raises(UserError, match="stands on both sides"):
        compare(read_side(f"{tmp_path}/a*"), read_side(str(tmp_path / "a,seed=1")))


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
