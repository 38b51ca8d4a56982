"""Each tracker, with its own client where that is installed: what metrics.jsonl has is what it shows."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from ladder_cli.config.choices import Tracker, WandbMode
from ladder_cli.config.schema import TrackingConfig
from ladder_cli.errors import UserError
from ladder_cli.train.trackers import Tracked, check_tracking

LINES = [
    {"step": 1, "loss": 2.0, "rows_seen": 4},
    {"step": 2, "loss": 1.5, "rows_seen": 8},
    {"step": 2, "eval_loss": 1.75, "rows_seen": 8},
]


def follow(tool, tmp_path, monkeypatch, failed=False):
    """Track a run of two steps from its beginning to its end."""
    pytest.importorskip({"tensorboard": "tensorboard", "mlflow": "mlflow"}.get(tool, tool))
    monkeypatch.chdir(tmp_path)
    tracked = Tracked(
        TrackingConfig(name=tool, project="sums"), tmp_path / "run", {"seed": 3, "train": {"epochs": 1.0}}
    )
    tracked.begin(0, 2, [])
    for line in LINES:
        tracked.log(line)
    tracked.end(None if failed else 1.75)


def test_tensorboard_shows_the_lines_in_the_run_directory(tmp_path, monkeypatch):
    follow("tensorboard", tmp_path, monkeypatch)
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.5)]
    assert [(each.step, each.value) for each in events.Scalars("eval/loss")] == [(2, 1.75)]
    assert [each.value for each in events.Scalars("train/mean_loss")] == [1.75]


@pytest.mark.parametrize(("failed", "status"), [(False, "FINISHED"), (True, "FAILED")])
def test_mlflow_has_lines_settings_and_how_it_ended(tmp_path, monkeypatch, failed, status):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    follow("mlflow", tmp_path, monkeypatch, failed)
    client = importlib.import_module("mlflow").MlflowClient(f"file://{tmp_path / 'mlruns'}")
    (run,) = client.search_runs([client.get_experiment_by_name("sums").experiment_id])
    assert run.info.status == status
    assert run.info.run_name == "run"
    assert run.data.params == {"seed": "3", "train.epochs": "1.0"}
    assert [each.value for each in client.get_metric_history(run.info.run_id, "train/loss")] == [2.0, 1.5]
    assert run.data.metrics["eval/loss"] == 1.75


def test_trackio_has_the_lines(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    code = (
        "import json, sys; from pathlib import Path\n"
        "from ladder_cli.config.schema import TrackingConfig\n"
        "from ladder_cli.train.trackers import Tracked\n"
        "tracked = Tracked(TrackingConfig(name='trackio', project='sums'), Path('run'), {'seed': 3})\n"
        "tracked.begin(0, 2, [])\n"
        f"for line in {LINES!r}: tracked.log(line)\n"
        "tracked.end(1.75)\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sqlite3 = importlib.import_module("sqlite3")
    (database,) = (tmp_path / "trackio").glob("sums*.db")
    rows = sqlite3.connect(database).execute("select metrics from metrics order by id").fetchall()
    assert [value for (text,) in rows for name, value in json.loads(text).items() if name == "train/loss"] == [2.0, 1.5]


@pytest.mark.parametrize("tool", [each for each in Tracker if each is not Tracker.NONE])
def test_one_that_is_not_installed_is_told_before_training(tool, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"tracking={tool}, but \w+ is not installed: pip install"):
        check_tracking(TrackingConfig(name=tool))
    check_tracking(TrackingConfig())


def test_the_older_option_means_what_it_meant():
    assert TrackingConfig(wandb="offline").name is Tracker.WANDB
    assert TrackingConfig(wandb="off").name is Tracker.NONE
    assert TrackingConfig(name="wandb").wandb is WandbMode.ONLINE
    with pytest.raises(UserError, match="contradicts"):
        TrackingConfig(name="mlflow", wandb="offline")
    with pytest.raises(UserError, match="contradicts"):
        TrackingConfig(name="wandb", wandb="off")
