"""A sweep: one run that fails stops no other, all are listed, and a second start runs only what is missing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder_cli.cli.train import main
from ladder_cli.errors import UserError
from ladder_cli.run.directory import RunDir
from ladder_cli.run.sweep import DONE, FAILED, RUNNING, Outcome, Sweep, claim_card, read_summary, write_summary

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


@pytest.mark.slow
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
    from ladder_cli.train.learner import Learner

    finish = Learner.finish

    def interrupted_at_the_end(self, step):
        os.kill(os.getpid(), signal.SIGINT)
        finish(self, step)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Learner, "finish", interrupted_at_the_end)
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


def test_the_summary_has_what_a_run_was_judged_by(tmp_path):
    judged = {"supervised": {"eval_loss": 0.25}, "rewarded": {"eval_reward": 0.75}}
    for name, validation in judged.items():
        metrics = RunDir(tmp_path / name).metrics
        metrics.parent.mkdir()
        metrics.write_text(json.dumps({**validation, "peak_memory_bytes": {"measured": 1}}))
    path = tmp_path / "summary.csv"
    write_summary(path, [Outcome(0, str(tmp_path), str(tmp_path / name), [], DONE) for name in judged])
    assert [(row["eval_loss"], row["eval_reward"]) for row in read_summary(path)] == [("0.25", ""), ("", "0.75")]


def test_the_summary_keeps_the_rows_of_other_sweeps(tmp_path):
    path = tmp_path / "summary.csv"
    write_summary(path, [Outcome(0, str(tmp_path), "first", ["seed=0"], FAILED, "it broke")])
    write_summary(path, [Outcome(0, str(tmp_path), "second", ["seed=1"], FAILED)])
    write_summary(path, [Outcome(0, str(tmp_path), "first", ["seed=0"], DONE)])
    assert [(row["run"], row["status"]) for row in read_summary(path)] == [("first", DONE), ("second", FAILED)]
    path.write_text("run,status,options,train_loss\nearlier,done,seed=9,0.5\n")
    write_summary(path, [Outcome(0, str(tmp_path), "first", ["seed=0"], DONE)])
    assert [(row["run"], row["train_loss"]) for row in read_summary(path)] == [("earlier", "0.5"), ("first", "")]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not the summary of a sweep"):
        write_summary(path, [])


MANY = """
import sys
from pathlib import Path
from ladder_cli.run.sweep import FAILED, Outcome, write_summary
name, count = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    write_summary(Path("summary.csv"), [Outcome(number, ".", f"{name}{number}", [f"seed={number}"], FAILED)])
"""


def test_two_sweeps_that_end_together_lose_no_row_of_each_other(tmp_path):
    options = dict(cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    sweeps = [subprocess.Popen([sys.executable, "-c", MANY, name, "40"], **options) for name in "ab"]
    assert [sweep.stdout.readline() for sweep in sweeps] == ["ready\n"] * 2
    for sweep in sweeps:
        sweep.stdin.write("go\n")
        sweep.stdin.flush()
    errors = [sweep.communicate(timeout=120)[1] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], errors
    rows = {row["run"] for row in read_summary(tmp_path / "summary.csv")}
    assert rows == {f"{name}{number}" for name in "ab" for number in range(40)}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]


def test_two_processes_get_two_cards_and_a_third_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    code = (
        "import os, sys; from pathlib import Path; from ladder_cli.run.sweep import claim_card;"
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


@pytest.mark.slow
def test_a_sweep_over_models_data_and_seeds_keeps_its_runs_apart_and_knows_them_by_content(
    tmp_path, monkeypatch, capfd, tiny_config
):
    monkeypatch.chdir(tmp_path)
    for model in ("A", "B"):
        shutil.copytree(tiny_config.location, model)
    weights = load_file("B/model.safetensors")
    noise = torch.Generator().manual_seed(0)
    for value in weights.values():
        value += 0.05 * torch.randn(value.shape, generator=noise).to(value.dtype)
    save_file(weights, "B/model.safetensors", metadata={"format": "pt"})
    for number, mirror in enumerate(("C", "D")):
        (tmp_path / mirror / "evolm").mkdir(parents=True)
        rows = [{"problem": f"{n} + {number}?", "gt_solution": f"{n + number}"} for n in range(12)]
        (tmp_path / mirror / "evolm" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = (
        *("data=evolm", "data.train_samples=null", "data.validation_samples=2", "data.cache=false", "hardware=cpu"),
        *("train.max_steps=2", "train.evaluations=1", "train.global_batch_size=2", "train.micro_batch_size=2"),
        *("model.path=A,B", "data_dir=C,D", "seed=0,1", "hydra.sweep.dir=eight"),
    )
    monkeypatch.setattr(sys, "argv", ["ladder-train", "-m", *command])

    def sweep():
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, read_summary(tmp_path / "eight" / "summary.csv"), capfd.readouterr()

    status, rows, _ = sweep()
    assert status == 0
    assert {row["status"] for row in rows} == {"done"}
    assert len({row["run"] for row in rows}) == 8
    assert len({row["eval_loss"] for row in rows}) == 8
    models = [json.loads((tmp_path / row["run"] / "run.json").read_text())["identity"]["weights"] for row in rows]
    assert [row["options"].split("model.path=")[1][0] for row in rows] == ["A"] * 4 + ["B"] * 4
    assert len({*models[:4]}) == len({*models[4:]}) == 1
    assert models[0] != models[4]
    adapters = list(tmp_path.glob("eight/*/adapter/adapter_model.safetensors"))
    assert len({path.read_bytes() for path in adapters}) == 8
    written = {path: path.stat().st_mtime_ns for path in adapters}

    status, _, said = sweep()
    assert status == 0
    assert said.out.count("is already done") == 8
    assert {path: path.stat().st_mtime_ns for path in adapters} == written

    edited = tmp_path / "C" / "evolm" / "train.jsonl"
    edited.write_text(edited.read_text().replace("7 + 0?", "70 + 0?"))
    status, rows, said = sweep()
    assert status == 2
    assert said.out.count("is already done") == 4
    assert "4 of 8 runs of the sweep are not done" in said.err
    for row in rows:
        reads_c = "data_dir=C" in row["options"]
        assert row["status"] == ("mistake" if reads_c else "done")
        assert ("holds another run (rows of the data: " in row["error"]) == reads_c
    assert {path: path.stat().st_mtime_ns for path in adapters} == written


@pytest.mark.parametrize("swept", [("seed=0,1",), ("seed=0,1", "data.path=a,b"), ("output_dir=x,y", "seed=0,1")])
def test_a_sweep_into_one_output_dir_is_refused_before_its_first_run(tmp_path, monkeypatch, capfd, swept):
    monkeypatch.chdir(tmp_path)
    own = () if any(word.startswith("output_dir") for word in swept) else ("output_dir=same",)
    assert start(monkeypatch, *own, *swept) == 2
    errors = capfd.readouterr().err
    assert "would be written by several runs of this sweep over" in errors
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_runs_of_a_sweep_that_differ_in_nothing_that_counts_do_not_share_a_directory_unsaid(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.jsonl")
    command = ("data.path=a.jsonl", "hardware.workers=0,1", "dry_run=true", "hydra.sweep.dir=two")
    assert start(monkeypatch, *command) == 2
    assert "run 0 of this sweep writes to two/" in capfd.readouterr().err
    rows = read_summary(tmp_path / "two" / "summary.csv")
    assert [row["status"] for row in rows] == ["done", "mistake"]
