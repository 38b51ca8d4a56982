"""Completions that are on disk get new verdicts without a model, and a note says which changed."""

import json

import pytest

from ladder_cli.config.compose import composed
from ladder_cli.config.evaluation import EvaluateConfig
from ladder_cli.console import make_console
from ladder_cli.data.benchmarks import Problem
from ladder_cli.errors import UserError
from ladder_cli.evaluate.completions import grade_completions
from ladder_cli.evaluate.regrade import other_grader_alone, regrade_folder
from ladder_cli.evaluate.samples import Sample
from ladder_cli.generate import transformers_engine
from tests.evaluate.test_experiments import evaluate, read, samples_of

ROWS = [
    {"id": "right", "gold": "4", "completion": "\\boxed{4}"},
    {"id": "wrong", "gold": "4", "completion": "\\boxed{5}"},
    {"id": "other", "gold": "4", "completion": "\\boxed{4.0}"},
]


def grade(source, out):
    overrides = [f"completions={source}", f"output_dir={out}"]
    grade_completions(composed("evaluate", EvaluateConfig, overrides), make_console())


def by_another_grader(folder, verdicts):
    """Make the folder look as if an older grader had given these verdicts."""
    changed = [sample | {"verdict": verdicts.get(sample["id"], sample["verdict"])} for sample in samples_of(folder)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in changed))
    settings = read(folder / "settings.json")
    (folder / "settings.json").write_text(json.dumps(settings | {"grader.rules": -1}))


@pytest.fixture
def graded(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    grade(source, tmp_path / "out")
    return source, tmp_path / "out"


def verdicts(folder):
    return {sample["id"]: sample["verdict"] for sample in samples_of(folder)}


RIGHT = {"right": "correct", "wrong": "incorrect", "other": "correct"}


def test_a_folder_graded_by_another_grader_is_graded_anew_and_the_changes_are_named(graded, capsys):
    source, out = graded
    by_another_grader(out, {"other": "incorrect"})
    grade(source, out)
    assert verdicts(out) == RIGHT
    note = read(out / "regrade.json")
    assert (note["regraded"], note["changed"]) == (3, 1)
    assert note["transitions"] == {"incorrect -> correct": 1}
    assert any(line.startswith("rules: -1 -> ") for line in note["differs"])
    (change,) = note["changes"]
    assert (change["id"], change["gold"]) == ("other", "4")
    assert (change["before"]["verdict"], change["after"]["verdict"]) == ("incorrect", "correct")
    assert "regraded 3 completions, 1 verdict(s) changed (incorrect -> correct: 1)" in capsys.readouterr().out
    assert read(out / "result.json")["pass_at_1"] == pytest.approx(2 / 3)
    assert sorted(path.name for path in out.iterdir()) == [
        "regrade.json", "result.json", "samples.jsonl", "settings.json"
    ]  # fmt: skip


def test_a_regrading_that_was_killed_still_knows_the_first_verdicts(graded, monkeypatch):
    source, out = graded
    by_another_grader(out, {"other": "incorrect"})
    with monkeypatch.context() as patched:
        patched.setattr("ladder_cli.evaluate.completions._note_changes", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            grade(source, out)
    grade(source, out)
    assert [change["id"] for change in read(out / "regrade.json")["changes"]] == ["other"]


def test_samples_given_as_completions_are_compared_with_the_verdicts_they_had(graded, tmp_path):
    _, out = graded
    by_another_grader(out, {"right": "no_answer"})
    grade(out / "samples.jsonl", tmp_path / "again")
    assert verdicts(tmp_path / "again") == RIGHT
    note = read(tmp_path / "again" / "regrade.json")
    assert note["transitions"] == {"no_answer -> correct": 1}
    assert note["graders"]["before"]["rules"] == -1
    # The given file is as it was.
    assert verdicts(out)["right"] == "no_answer"


def test_samples_of_ones_own_file_are_graded_by_the_rule_that_their_folder_records(tmp_path):
    """Samples of older versions carry the stem of the file as their benchmark, which no benchmark has."""
    folder = tmp_path / "mine"
    folder.mkdir()
    sample = {"id": "1", "benchmark": "mine", "prompt": "?", "tokens": 3, "stop_reason": "stop", "answer": "x"}
    sample |= {"gold": "4.5e33", "completion": "\\boxed{4.51 \\times 10^{33}}", "verdict": "incorrect"}
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (folder / "settings.json").write_text(json.dumps({"rule": "physical", "grader.rules": 1}))
    grade(folder / "samples.jsonl", tmp_path / "out")
    assert verdicts(tmp_path / "out") == {"1": "correct"}


def test_a_file_is_never_graded_into_itself(graded):
    _, out = graded
    with pytest.raises(UserError, match="into itself"):
        grade(out / "samples.jsonl", out)


def test_an_evaluated_model_is_regraded_without_generating(tiny_config, tmp_path, monkeypatch):
    evaluate(model=tiny_config, benchmarks=["arithmetic"], output_dir=str(tmp_path))
    folder = tmp_path / "arithmetic"
    before = samples_of(folder)
    by_another_grader(folder, {before[0]["id"]: "timeout"})
    monkeypatch.setattr(transformers_engine, "generate", lambda *_: pytest.fail("a model was asked"))
    evaluate(model=tiny_config, benchmarks=["arithmetic"], output_dir=str(tmp_path))
    after = samples_of(folder)
    assert [sample["verdict"] for sample in after] == [sample["verdict"] for sample in before]
    assert [sample["completion"] for sample in after] == [sample["completion"] for sample in before]
    assert [change["before"]["verdict"] for change in read(folder / "regrade.json")["changes"]] == ["timeout"]
    assert read(folder / "result.json")["timeout_rate"] == 0.0


def test_samples_that_differ_in_more_than_the_grader_are_not_regraded(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"grader.rules": 1, "seed": 0, "rule": "expression"}))
    assert other_grader_alone(path, {"grader.rules": 2, "seed": 0, "rule": "several"})
    assert not other_grader_alone(path, {"grader.rules": 2, "seed": 1, "rule": "expression"})
    assert not other_grader_alone(path, {"grader.rules": 1, "seed": 0, "rule": "expression"})


def test_samples_of_problems_that_are_not_asked_for_are_not_lost(tmp_path):
    samples = {
        name: Sample(id=name, completion="", gold="4", answer="4", verdict="correct", tokens=1, stop_reason="stop")
        for name in ("a", "b")
    }
    with pytest.raises(UserError, match="1 of them of problems that are not asked for now"):
        regrade_folder(tmp_path, samples, [Problem("a", "?", "4")], {}, 5.0, make_console())
