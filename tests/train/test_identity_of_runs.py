"""Other weights, rows or prompts under the same options: nothing is continued, called done, pooled or evaluated."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ladder_cli.run.directory import RunDir, write_json
from tests.malformed import run_command

SHORT = (
    *("data=jsonl", "data.prompt=q", "data.completion=a", "data.validation_samples=2", "data.cache=false"),
    *("train.max_steps=2", "train.evaluations=2", "train.global_batch_size=2", "train.micro_batch_size=2"),
    "hardware=cpu",
)
EVALUATION = ("hardware=cpu", "limit=1", "decode.max_new_tokens=1")


def write_rows(path, count=12):
    path.write_text("\n".join(json.dumps({"q": f"{n} + 1?", "a": f"{n + 1}"}) for n in range(count)) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_config):
    """Two models of one shape, rows, and a finished run of model A, `done`."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("A", "B"):
        shutil.copytree(tiny_config.location, folder / name)
    weights = load_file(folder / "B" / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 1.5
    save_file(weights, folder / "B" / "model.safetensors", metadata={"format": "pt"})
    write_rows(folder / "rows.jsonl")
    status, out, errors = train(folder, folder / "done", "A")
    assert status == 0, errors
    assert "tiny: 2,474,304 parameters" in out, "a copy of the embedded model is what its name says"
    return folder


def train(home, run, model, *more):
    words = [f"output_dir={run}", f"model.path={home / model}", f"data.path={home / 'rows.jsonl'}"]
    return run_command("train", [*words, *SHORT, *more])


def copy_of(home, run, status="done"):
    shutil.copytree(home / "done", run)
    record = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", record | {"status": status})
    return run


def refused(result, *words):
    status, _, errors = result
    assert status == 2, errors
    assert len(errors.splitlines()) == 1
    for word in words:
        assert word in errors


@pytest.mark.parametrize("status", ["done", "interrupted", "running"])
def test_a_run_is_neither_done_nor_continued_on_other_weights(home, tmp_path, status):
    run = copy_of(home, tmp_path / "run", status)
    before = (run / "metrics.json").read_bytes()
    refused(train(home, run, "B"), "holds another run (weights of the backbone: ")
    assert (run / "metrics.json").read_bytes() == before


def test_the_same_weights_elsewhere_are_the_same_run(home, tmp_path):
    shutil.copytree(home / "A", tmp_path / "moved")
    shutil.copy(home / "rows.jsonl", tmp_path / "moved.jsonl")
    places = (f"model.path={tmp_path / 'moved'}", f"data.path={tmp_path / 'moved.jsonl'}")
    status, out, errors = run_command("train", [f"output_dir={home / 'done'}", *places, *SHORT])
    assert status == 0, errors
    assert "is already done" in out
    run = copy_of(home, tmp_path / "run", "interrupted")
    status, out, errors = run_command("train", [f"output_dir={run}", *places, *SHORT])
    assert status == 0, errors
    assert "continuing" in out
    assert "from checkpoint-2" in out


def test_a_finished_run_whose_rows_or_prompt_changed_is_not_called_done(home, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(home / "A", other)
    template = other / "chat_template.jinja"
    template.write_text("<|user|>So.<|end|>" + template.read_text())
    words = [f"output_dir={home / 'done'}", *SHORT]
    refused(
        run_command("train", [*words, f"model.path={other}", f"data.path={home / 'rows.jsonl'}"]),
        "holds another run (rendered prompt: ",
    )
    write_rows(tmp_path / "rows.jsonl", 11)
    refused(
        run_command("train", [*words, f"model.path={home / 'A'}", f"data.path={tmp_path / 'rows.jsonl'}"]),
        "holds another run (rows of the data: ",
    )


def test_a_directory_from_before_weights_were_recorded_is_not_continued(home, tmp_path):
    for status in ("done", "interrupted"):
        run = copy_of(home, tmp_path / status, status)
        record = json.loads((run / "run.json").read_text())
        del record["identity"]
        write_json(run / "run.json", record)
    status, out, errors = train(home, tmp_path / "done", "A")
    assert status == 0, errors
    assert "written before runs recorded their weights" in out
    refused(train(home, tmp_path / "interrupted", "A"), "nobody can tell whether these are the same", "resume=false")


def test_what_runs_here_meanwhile_is_not_written_over(home, tmp_path, monkeypatch):
    from ladder_cli.train import member as module

    run, claimed = tmp_path / "run", module.claimed

    def claimed_late(path):
        copy_of(home, run)
        return claimed(path)

    monkeypatch.setattr(module, "claimed", claimed_late)
    refused(train(home, run, "A"), "another process has written")


def test_an_adapter_is_evaluated_on_the_weights_it_was_trained_on(home, tmp_path):
    run = copy_of(home, tmp_path / "run")
    recorded = json.loads(RunDir(run).backbone.read_text())
    assert recorded["weights"] == json.loads((run / "run.json").read_text())["identity"]["weights"]
    status, _, errors = run_command("evaluate", [f"run={run}", *EVALUATION])
    assert status == 0, errors
    assert errors == ""
    elsewhere = (f"run={run}", f"model.path={home / 'B'}", *EVALUATION)
    refused(run_command("evaluate", [*elsewhere]), "was trained on other weights", "allow_other_backbone=true")
    status, _, errors = run_command(
        "evaluate", [*elsewhere, "allow_other_backbone=true", f"output_dir={tmp_path / 'other'}"]
    )
    assert status == 0, errors
    assert "is evaluated on other weights than it was trained on" in errors
    # Answers of the two never mix.
    status, _, errors = run_command("evaluate", [*elsewhere, "allow_other_backbone=true"])
    assert status == 2
    assert "weights" in errors.splitlines()[-1]


def test_an_adapter_that_does_not_say_what_it_stands_on_is_evaluated_with_a_warning(home, tmp_path):
    run = copy_of(home, tmp_path / "run")
    (run / "adapter" / "backbone.json").unlink()
    (run / "adapter" / "SHA256SUMS").unlink()
    status, _, errors = run_command("evaluate", [f"run={run}", *EVALUATION])
    assert status == 0, errors
    assert "is taken on trust" in errors


def test_runs_of_two_backbones_are_two_experiments(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_of(home, tmp_path / "pool-1")
    status, _, errors = train(home, tmp_path / "pool-2", "B", "seed=1")
    assert status == 0, errors
    status, out, errors = run_command("evaluate", ["run='pool-*'", *EVALUATION])
    assert status == 0, errors
    assert "(2 runs)" not in out
    assert "pool-1" in out
    assert "pool-2" in out


def test_more_rows_than_there_are_is_said_and_the_real_number_recorded(home, tmp_path):
    from paper.runs import read_runs

    status, out, errors = train(home, tmp_path / "many", "A", "data.train_samples=1000")
    assert status == 0, errors
    assert "data.train_samples=1000 asks for more training rows than there are: it trains on 10 " in out
    assert json.loads((tmp_path / "many" / "metrics.json").read_text())["rows"] == {"train": 10, "validation": 2}
    (run,) = read_runs([tmp_path])
    assert run.rows == 10


def test_a_model_goes_by_a_name_that_is_true(home, tmp_path):
    status, out, errors = train(home, tmp_path / "other", "B", "dry_run=true")
    assert status == 0, errors
    assert "B: 2,474,304 parameters" in out
    assert json.loads((tmp_path / "other" / "plan.json").read_text())["config"]["model"]["name"] == "B"
    refused(
        train(home, tmp_path / "none", "A", "model=qwen2.5-0.5b"),
        "is not the model that model=qwen2.5-0.5b describes (hidden_size 192, not 896;",
        "model.name=NAME",
    )
    status, out, errors = train(home, tmp_path / "mine", "A", "model=qwen2.5-0.5b", "model.name=mine", "dry_run=true")
    assert status == 0, errors
    assert "mine: 2,474,304 parameters" in out


def test_a_place_that_is_no_run_directory_is_refused_and_left_alone(home, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo").write_text("precious")
    (tmp_path / "file").write_text("text")
    for run, more, reason in (
        (tmp_path / "mine", (), "no run"),
        (tmp_path / "mine", ("resume=false",), "no run"),
        (tmp_path / "mine", ("dry_run=true",), "no run"),
        (tmp_path / "file", (), "is a file"),
    ):
        refused(train(home, run, "A", *more), reason)
    monkeypatch.chdir(tmp_path / "mine")
    refused(train(home, ".", "A"), "no run")
    monkeypatch.setenv("HOME", str(tmp_path))
    refused(train(home, "'~/mine'", "A"), f"output_dir={tmp_path / 'mine'} is a folder with other things in it (photo)")
    assert {path.name for path in tmp_path.iterdir()} - {".cache"} == {"file", "mine"}
    assert [path.name for path in Path().iterdir()] == ["photo"]
