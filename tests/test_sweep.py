"""A sweep: one run that fails stops no other, all are listed, and a second start runs only what is missing."""

import csv
import json
import signal
import subprocess
import sys

import pytest

from ladder_cli.errors import UserError
from ladder_cli.sweep import DONE, FAILED, RUNNING, Outcome, Sweep, claim_card, read_summary, write_summary
from ladder_cli.train import main

SHORT = (
    *("data=jsonl", "data.prompt=question", "data.completion=answer", "data.validation_samples=2", "data.cache=false"),
    *("train.max_steps=1", "train.global_batch_size=2", "train.micro_batch_size=2", "hardware=cpu"),
)


def write_rows(path, broken=False):
    rows = [json.dumps({"question": f"{n} + {n}?", "answer": f"{2 * n}"}) for n in range(12)]
    if broken:
        rows[6] = rows[6][:20]
    path.write_text("\n".join(rows))


def start(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["ladder-train", "-m", *SHORT, *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def statuses(folder):
    with (folder / "summary.csv").open(newline="") as file:
        return {row["options"].split("data.path=")[1].split()[0]: row for row in csv.DictReader(file)}


def test_a_failed_run_is_listed_and_run_again_alone(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.jsonl")
    write_rows(tmp_path / "b.jsonl", broken=True)
    write_rows(tmp_path / "c.jsonl")
    command = ("data.path=a.jsonl,b.jsonl,c.jsonl", "hydra.sweep.dir=outputs/three")

    assert start(monkeypatch, *command) == 2
    folder = tmp_path / "outputs" / "three"
    rows = statuses(folder)
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.jsonl": "done",
        "b.jsonl": "mistake",
        "c.jsonl": "done",
    }
    assert "b.jsonl, line 7: not valid JSON" in rows["b.jsonl"]["error"]
    assert float(rows["c.jsonl"]["eval_loss"]) > 0
    errors = capfd.readouterr().err
    assert "error: 1 of 3 runs of the sweep are not done; outputs/three/summary.csv lists all" in errors
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("*/adapter/adapter_model.safetensors")}
    assert len(trained) == 2

    write_rows(tmp_path / "b.jsonl")
    assert start(monkeypatch, *command) == 0
    assert {row["status"] for row in statuses(folder).values()} == {"done"}
    assert len(list(folder.glob("*/adapter/adapter_model.safetensors"))) == 3
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert capfd.readouterr().out.count("is already done") == 2
    assert not (tmp_path / "outputs" / ".sweeps").exists()


def test_an_interrupt_at_the_last_step_of_a_run_stops_the_sweep(tmp_path, monkeypatch, capfd):
    from ladder_cli.training.run import StopOnSignal

    def told_at_the_end(self, args, state, control, **kwargs):
        self.received = signal.SIGINT

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StopOnSignal, "on_train_end", told_at_the_end, raising=False)
    write_rows(tmp_path / "a.jsonl")
    assert start(monkeypatch, "data.path=a.jsonl", "seed=0,1", "hydra.sweep.dir=outputs/two") == 130
    assert "this run was at its last step and is done" in capfd.readouterr().err
    assert len(list(tmp_path.glob("outputs/two/*/adapter/adapter_model.safetensors"))) == 1


def test_a_sweep_with_an_option_that_does_not_exist_starts_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert start(monkeypatch, "data.paht=a,b") == 2
    assert "Did you mean 'data.path'?" in capfd.readouterr().err
    assert not list(tmp_path.glob("outputs/*/"))


def test_a_launcher_that_is_not_installed_is_named_with_its_package(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert start(monkeypatch, "hydra/launcher=ray") == 2
    assert "no launcher 'ray'" in capfd.readouterr().err


def test_runs_in_processes_of_joblib_are_listed_too(tmp_path, monkeypatch):
    pytest.importorskip("joblib")
    monkeypatch.chdir(tmp_path)
    # Mistakes that are told before torch is imported keep the processes short.
    command = ("train.micro_batch_size=3,5", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert start(monkeypatch, "data.path=a.jsonl", *command) == 2
    rows = read_summary(tmp_path / "outputs" / "summary.csv")
    assert [row["status"] for row in rows] == ["mistake", "mistake"]
    assert all("is not a multiple of micro_batch_size" in row["error"] for row in rows)


def test_a_run_whose_process_died_is_not_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = Sweep()
    records.record(Outcome(1, "outputs", "outputs/b", ["seed=1"]))
    records.record(Outcome(0, "outputs", "outputs/a", ["seed=0"], DONE))
    assert [(outcome.run, outcome.status) for outcome in records.close()] == [
        ("outputs/a", DONE),
        ("outputs/b", RUNNING),
    ]


def test_the_summary_keeps_the_rows_of_other_sweeps(tmp_path):
    path = tmp_path / "summary.csv"
    write_summary(path, [Outcome(0, str(tmp_path), "first", ["seed=0"], FAILED, "it broke")])
    write_summary(path, [Outcome(0, str(tmp_path), "second", ["seed=1"], FAILED)])
    write_summary(path, [Outcome(0, str(tmp_path), "first", ["seed=0"], DONE)])
    assert [(row["run"], row["status"]) for row in read_summary(path)] == [("first", DONE), ("second", FAILED)]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not the summary of a sweep"):
        write_summary(path, [])


def test_two_processes_get_two_cards_and_a_third_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code = (
        "import os, sys; from pathlib import Path; from ladder_cli.sweep import claim_card;"
        "claim_card(2, Path('.')); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
    )
    options = dict(cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes = [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(2)]
    try:
        assert {process.stdout.readline() for process in processes} == {"3\n", "5\n"}
        third = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, input="", capture_output=True, text=True)
        assert "every GPU of this machine is taken" in third.stderr
    finally:
        for process in processes:
            process.communicate("")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(UserError, match="n_jobs=2, but this machine has 1"):
        claim_card(2, tmp_path)
