"""What a report says is what the evaluation's own code says; what is unfinished or damaged is refused."""

import json
import re

import pytest

from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.config.quoting import quoted_words
from ladder_cli.console import make_console
from ladder_cli.errors import UserError
from ladder_cli.evaluate.comparison import compare, read_side
from ladder_cli.evaluate.completions import grade_completions
from ladder_cli.report.content import content, short_names
from ladder_cli.report.folders import read_folders
from ladder_cli.report.page import page, write_report
from ladder_cli.run.directory import write_json
from tests.report.made import sample, samples, write_evaluation, write_run, write_training


def told(*patterns):
    return content(*read_folders([str(pattern) for pattern in patterns]))


def config(*words):
    quoted = quoted_words(list(words), EvaluateConfig, sweep=False)
    return composed("evaluate", EvaluateConfig, quoted)


def test_scores_and_tests_are_those_of_the_evaluation(tmp_path):
    one = write_run(tmp_path / "ladder", "rrrrrrrwww" * 3)
    two = write_run(tmp_path / "qlora", "rwrwrwrwrw" * 3, method="qlora")
    found = told(one, two)
    (test,) = found["tests"]
    (known,) = compare(read_side(str(one)), read_side(str(two)))
    for name in ("difference", "low", "high", "p_value", "p_holm", "only_first", "only_second", "test"):
        assert test[name] == getattr(known, name), name
    summary = json.loads((one / "eval" / "sums" / "result.json").read_text())
    for name in ("pass_at_1", "ci95", "truncated_rate", "no_answer_rate", "mean_tokens_correct"):
        assert found["scores"][0][name] == summary[name], name
    assert found["untested"] == []


def test_runs_that_differ_in_the_seed_are_one_side_and_holm_is_over_the_whole_page(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"a,seed={seed}", "rrrrrwww" if seed else "rrrrrrww", seed)
    write_run(tmp_path / "b,seed=0", "rrwwwwww", method="b")
    write_run(tmp_path / "c,seed=0", "wwwwwwww", method="c")
    found = told(tmp_path / "*")
    assert [(row.get("label"), row["n_runs"]) for row in found["scores"] if row["several"]] == [("a (2 runs)", 2)]
    assert len(found["tests"]) == 3
    assert {(each["first"], each["second"]) for each in found["tests"]} == {
        ("a (2 runs)", "b,seed=0"), ("a (2 runs)", "c,seed=0"), ("b,seed=0", "c,seed=0")
    }  # fmt: skip
    assert min(each["p_holm"] / each["p_value"] for each in found["tests"]) >= 1
    smallest = min(found["tests"], key=lambda each: each["p_value"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, 3 * smallest["p_value"]))


def test_what_cannot_be_tested_is_said_with_the_reason(tmp_path):
    write_run(tmp_path / "a", "rrrw")
    other = [sample(number, True, gold="99") for number in range(4)]
    write_run(tmp_path / "b", other, method="b")
    found = told(tmp_path / "a", tmp_path / "b")
    assert found["tests"] == []
    assert "gold answers of sums differ" in found["untested"][0]["why"]
    assert len(found["problems"]) == 8, "another gold is another problem"


def test_an_evaluation_of_a_backbone_and_a_training_without_one_are_reported_too(tmp_path):
    write_evaluation(tmp_path / "eval-tiny" / "sums", samples("rw"))
    write_training(tmp_path / "run")
    found = told(tmp_path / "eval-tiny", tmp_path / "run")
    assert [run["training"] is None for run in found["runs"]] == [True, False]
    assert len(found["scores"]) == 1
    assert found["runs"][1]["settings"]["identity.identity.weights"] == "w"


def test_graded_completions_are_reported_with_all_of_a_problem(tmp_path):
    rows = [{"id": "1", "gold": "2", "completion": f"\\boxed{{{n}}}"} for n in (2, 3, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    graded = config(f"completions={tmp_path / 'rows.jsonl'}", f"output_dir={tmp_path / 'graded'}")
    grade_completions(graded, make_console())
    found = told(tmp_path / "graded")
    assert found["scores"][0]["pass_at_1"] == pytest.approx(2 / 3)
    assert [row[2] for row in found["samples"]] == [1, 2, 3]
    assert len(found["problems"]) == 1


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path):
    write_training(tmp_path / "run", steps=2000)
    training = told(tmp_path / "run")["runs"][0]["training"]
    loss = training["curves"]["loss"]
    assert training["thinned"]
    assert (len(loss), loss[0][0], loss[-1][0]) == (500, 4, 8000)


def broken(run, what):
    sums = run / "eval" / "sums"
    if what == "cut":
        (sums / "samples.jsonl").write_bytes((sums / "samples.jsonl").read_bytes()[:-20])
    elif what == "no result":
        (sums / "result.json").unlink()
    elif what == "fewer":
        lines = (sums / "samples.jsonl").read_text().splitlines(keepends=True)
        (sums / "samples.jsonl").write_text("".join(lines[:-1]))
    elif what == "verdict":
        text = (sums / "samples.jsonl").read_text()
        (sums / "samples.jsonl").write_text(text.replace('"verdict": "correct"', '"verdict": "incorrect"', 1))
    elif what == "no sample":
        (sums / "samples.jsonl").write_text("{}\n" + (sums / "samples.jsonl").read_text())
    elif what == "number":
        text = (sums / "samples.jsonl").read_text()
        (sums / "samples.jsonl").write_text(
            text.replace('"completion": "It', '"completion": ["It', 1).replace('." ,', '."],')
        )
    elif what == "metrics":
        (run / "metrics.json").unlink()
    elif what == "log":
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n')
    elif what == "repeat":
        write_evaluation(sums / "repeat-2", samples("rw"))
    elif what == "json":
        (run / "metrics.json").write_text("{")
    elif what == "training":
        write_json(run / "run.json", {"status": "interrupted"})


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut", r"unfinished \(the last line of samples.jsonl is cut short\): run the same ladder-eval again"),
        ("no result", r"unfinished \(no result.json\)"),
        ("fewer", r"unfinished \(answers to 3 problems, and result.json over 4\)"),
        ("verdict", r"result.json is damaged \(pass_at_1 is 0.5, and samples.jsonl gives 0.25\)"),
        ("no sample", r"samples.jsonl, line 1: not a sample"),
        ("number", r"samples.jsonl, line 1: not a sample"),
        ("metrics", r"metrics.json is missing, although the run is done"),
        ("log", r"metrics.jsonl, line 1 is damaged"),
        ("repeat", r"unfinished \(2 repeats of which 1 are in result.json\)"),
        ("json", r"metrics.json cannot be read as JSON"),
        ("training", r"its training is not finished \(interrupted\)"),
    ],
)
def test_nothing_half_is_called_read(tmp_path, what, message):
    run = write_run(tmp_path / "run", "rwrw")
    broken(run, what)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=message) as raised:
        told(run)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before, "nothing is repaired"


def test_a_glob_leaves_out_what_is_no_result_and_says_so(tmp_path):
    write_run(tmp_path / "a", "rw")
    write_run(tmp_path / "a.old-1", "rw")
    write_training(tmp_path / "b", status="running")
    (tmp_path / "notes").mkdir()
    folders, left_out = read_folders([str(tmp_path / "*")])
    assert [each.name for each in folders] == ["a"]
    assert [line.removeprefix(str(tmp_path)) for line in left_out] == [
        "/a.old-1: set aside", "/b: its training is not finished (running)",
        "/notes: holds no run and no samples of an evaluation",
    ]  # fmt: skip
    with pytest.raises(UserError, match="names no finished run and no evaluation"):
        read_folders([str(tmp_path / "n*")])
    with pytest.raises(UserError, match="names no folder"):
        read_folders([str(tmp_path / "gone")])


@pytest.mark.parametrize("form", ["{a},{b}", "[{a},{b}]", "'{a}','{b}'", "{folder}/*"])
def test_folders_are_listed_with_commas_even_where_their_names_have_some(tmp_path, form):
    runs = [write_run(tmp_path / f"a,seed={seed},rate=1e-3", "rw", seed) for seed in (0, 1)]
    given = form.format(a=runs[0], b=runs[1], folder=tmp_path)
    given = f"[{given}]" if given.startswith("'") else given
    folders, _ = read_folders(config(f"report={given}", "output=x.html").report)
    assert [each.path for each in folders] == runs


def test_nothing_but_a_report_is_written_over(tmp_path):
    run = write_run(tmp_path / "run", "rw")
    target = tmp_path / "page.html"
    target.write_text("my page")
    asked = config(f"report={run}", f"output={target}")
    with pytest.raises(UserError, match="exists and is no report"):
        write_report(asked, make_console())
    assert target.read_text() == "my page"
    target.unlink()
    assert write_report(asked, make_console()) == target
    first = target.read_bytes()
    write_report(asked, make_console())
    assert target.read_bytes() == first, "the same results, the same bytes"
    with pytest.raises(UserError, match="is a folder"):
        write_report(config(f"report={run}", f"output={tmp_path}"), make_console())


def test_the_data_are_ascii_and_hold_no_tag(tmp_path):
    nasty = "</script><script>1</script><!-- \u202e \ud800 \u2028 {{script}} <img src=x onerror=1>"
    text = page(told(write_run(tmp_path / "run", [sample(0, True, nasty), sample(1, False)])))
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1)
    assert data.isascii()
    assert "<" not in data
    assert [row[-1] for row in json.loads(data)["samples"]] == [nasty, "It is \\boxed{3}."]


def test_names_are_shown_without_what_all_share():
    assert short_names(["a,seed=0,n=3", "b,seed=1,n=3"]) == ["a,seed=0", "b,seed=1"]
    assert short_names(["x/a,n=3", "x/a,n=3,m=2"]) == ["x/a", "x/a,m=2"]
    assert short_names(["only,n=3"]) == ["only,n=3"]
    assert short_names(["ladder-tiny-sums,n=3", "qlora-tiny-sums,n=3"]) == ["ladder", "qlora"]
    assert short_names(["a-b", "b"]) == ["a-b", "b"]
    assert short_names(["same", "same"]) == ["same", "same"]
