"""Runs that were cut off at an awkward place, and what they are continued to."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from ladder_cli.console import make_console
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir
from ladder_cli.run.files import seal
from ladder_cli.train.checkpoints import Checkpoints, Progress
from ladder_cli.train.resume import starting_step
from tests.malformed import run_command

# Losses are logged at other steps than checkpoints; it stops early.
OPTIONS = (
    *("method=xladder", "train.learning_rate=0.02", "train.scheduler=constant", "train.early_stopping=1"),
    "train.logging_steps=3",
    *("hardware=cpu", "data.train_samples=32", "data.validation_samples=4", "data.cache=false"),
    *("train.global_batch_size=4", "train.micro_batch_size=2", "train.max_steps=20", "train.evaluations=5"),
)


def train(folder, *more):
    return run_command("train", [f"output_dir={folder}", *OPTIONS, *more])


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "run"
    status, _, errors = train(folder)
    assert status == 0, errors
    metrics = json.loads((folder / "metrics.json").read_text())
    last = Checkpoints(folder / "checkpoints").steps()[-1]
    assert metrics["best_step"] < last < 20, "the best step shall not be the last, and the run shall stop early"
    return folder


def unfinished(twin, folder, *drop):
    """A copy of the twin as a kill would leave it: no adapter, no figures, status running."""
    shutil.copytree(twin, folder)
    shutil.rmtree(folder / "adapter")
    (folder / "metrics.json").unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "running"}))
    for step in drop:
        shutil.rmtree(folder / "checkpoints" / f"checkpoint-{step}")
    return folder


def assert_same(ours, theirs):
    mine, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (ours, theirs))
    assert all(mine[name].equal(other[name]) for name in other)
    mine, other = (json.loads((folder / "metrics.json").read_text()) for folder in (ours, theirs))
    for name in ("train_loss", "eval_loss", "best_step", "tokens_seen"):
        assert mine[name] == other[name], name
    mine, other = ((folder / "metrics.jsonl").read_text().splitlines() for folder in (ours, theirs))
    for one, two in zip(map(json.loads, mine), map(json.loads, other), strict=True):
        assert {key: one.get(key) for key in ("step", "loss", "eval_loss")} == {
            key: two.get(key) for key in ("step", "loss", "eval_loss")
        }


def test_a_run_that_was_killed_after_its_last_checkpoint_takes_no_further_step(twin, tmp_path):
    ours = unfinished(twin, tmp_path / "run")
    status, _, errors = train(ours)
    assert status == 0, errors
    assert_same(ours, twin)


def test_a_run_that_is_continued_before_its_end_elsewhere_finds_its_best_step(twin, tmp_path):
    last = Checkpoints(twin / "checkpoints").steps()[-1]
    ours = unfinished(twin, tmp_path / "moved", last)
    with (ours / "metrics.jsonl").open("a") as log:
        log.write('{"step": 19, "lo')  # and a line that the kill cut off
    (ours / "checkpoints" / ".writing" / "checkpoint-16").mkdir(parents=True)
    status, out, errors = train(ours)
    assert status == 0, errors
    assert f"from checkpoint-{Checkpoints(twin / 'checkpoints').steps()[0]}" in out
    assert_same(ours, twin)
    assert not (ours / "checkpoints" / ".writing").exists()


def test_a_damaged_checkpoint_is_passed_over_and_named(twin, tmp_path):
    ours = unfinished(twin, tmp_path / "run")
    first, last = Checkpoints(twin / "checkpoints").steps()
    state = ours / "checkpoints" / f"checkpoint-{last}" / "optimizer.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    status, out, errors = train(ours)
    assert status == 0, errors
    assert f"checkpoint-{last} is damaged (optimizer.safetensors is not as it was written)" in out
    assert f"from checkpoint-{first}" in out
    assert_same(ours, twin)


def test_a_checkpoint_of_another_run_is_refused(twin, tmp_path):
    ours, last = unfinished(twin, tmp_path / "run"), Checkpoints(twin / "checkpoints").steps()[-1]
    other = tmp_path / "other"
    status, _, errors = train(other, "method.reduction=4", f"train.max_steps={last}", "train.early_stopping=null")
    assert status == 0, errors
    shutil.rmtree(ours / "checkpoints")
    shutil.copytree(other / "checkpoints", ours / "checkpoints")
    status, _, errors = train(ours)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert "has shape" in errors


def test_what_does_not_change_the_result_does_not_forbid_to_resume(twin, tmp_path):
    status, out, errors = train(twin, "train.logging_steps=1", "hardware.workers=1", "preflight=warn")
    assert status == 0, errors
    assert "already done" in out
    status, _, errors = train(twin, "train.learning_rate=0.04", "data.max_length=255")
    assert status == 2
    assert "data.max_length: 256 -> 255; train.learning_rate: 0.02 -> 0.04" in errors


def test_an_adapter_of_which_nothing_is_recorded_is_not_trained_over(tmp_path):
    run = RunDir(tmp_path / "run")
    assert starting_step(run, None, make_console()) is None
    run.adapter.mkdir(parents=True)
    (run.adapter / "adapter_model.safetensors").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"holds an adapter but no run\.json .* resume=false"):
        starting_step(run, None, make_console())
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == b"precious"


def progress(step):
    return Progress(
        step=step, finished=False, tokens_seen=0, best_step=4, best_loss=1.0, misses=0, total_loss=0.0,
        pending_losses=[0.0], last_logged=0,
    )  # fmt: skip


def test_checkpoints_are_kept_by_step_and_not_by_the_clock(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (4, 30, 8, 12):
        checkpoints.staged(step)
        checkpoints.commit(progress(step), [{"step": step}])
    (tmp_path / "checkpoint-of-mine").mkdir()
    assert checkpoints.steps() == [4, 8, 12, 30]
    checkpoints.rotate(best=4)
    assert checkpoints.steps() == [4, 30]
    assert checkpoints.progress(30) == progress(30)
    assert checkpoints.history(30) == [{"step": 30}]
    (tmp_path / "checkpoint-4" / "progress.json").write_text("{}")
    newest, complaints = checkpoints.newest_whole()
    assert newest is None
    assert "its best checkpoint, checkpoint-4: progress.json is not as it was written" in complaints[0]


def test_a_checkpoint_of_an_earlier_version_is_refused_in_one_line(twin, tmp_path):
    ours = unfinished(twin, tmp_path / "run")
    for checkpoint in (ours / "checkpoints").glob("checkpoint-*"):
        (checkpoint / "progress.json").write_text('{"finished": false, "total_loss": 0.0}')
        seal(checkpoint)
    status, _, errors = train(ours)
    assert status == 2
    assert "was written by another version of ladder-cli" in errors
    assert len(errors.splitlines()) == 1


def test_a_checkpoint_holds_no_pickle(twin):
    files = [path for path in (twin / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".safetensors", ""}
    assert {path.name for path in files if not path.suffix} == {"SHA256SUMS"}
