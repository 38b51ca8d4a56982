"""Runs side by side on one pass: each ends, bit for bit, as it would have ended alone."""

import io
import json
import os
import signal

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import Interrupted, RunFailed, UserError
from ladder_cli.evaluate.summary import INITIALISATIONS, RUNS
from ladder_cli.evaluate.targets import Experiment, Target
from ladder_cli.plan.preflight import preflight
from ladder_cli.plan.together import side_by_side
from ladder_cli.run.directory import RunDir
from ladder_cli.train.checkpoints import Checkpoints
from ladder_cli.train.job import Job
from ladder_cli.train.learner import Learner
from ladder_cli.train.run import run_together, run_training
from tests.malformed import run_command

# 18 rows in steps of 2 x 2: an epoch is five steps, the last of them half a one.
SHORT = (
    *("hardware=cpu", "data.cache=false", "data.train_samples=18", "data.validation_samples=3"),
    *("train.micro_batch_size=2", "train.global_batch_size=4", "train.max_steps=12", "train.evaluations=4"),
)
RUNS_OF = {
    "ladder": ("method=ladder", "train.learning_rate=0.003", "train.logging_steps=5"),
    "xladder": ("method=xladder", "train.scheduler=linear", "train.evaluations=3", "train.max_grad_norm=0.1"),
    "branch": ("method=branch", "train.max_steps=8"),
    "suffix": ("method=suffix", "method.layers=2", "method.dropout=0.3", "train.loss_chunk=16"),
    "dropout": ("method=suffix", "method.layers=4", "method.dropout=0.1", "train.weight_decay=0.1"),
    "suffixed": ("method=ladder-suffix", "method.layers=2", "method.suffix_layers=3", "method.dropout=0.2"),
    "stops": (
        *("method=xladder", "method.layers=2", "train.early_stopping=1", "train.evaluations=6"),
        # Worse with every step, whatever its rows.
        *("train.learning_rate=0.3", "train.scheduler=constant_with_warmup", "train.warmup_ratio=1.0"),
    ),
}


def config_of(*options):
    # Later ones take the place of earlier ones of the same name.
    words = {word.partition("=")[0]: word for word in (*SHORT, *options)}
    return composed("train", TrainConfig, list(words.values()))


def asked(folder, names=RUNS_OF, *more):
    return [(config_of(*RUNS_OF[name], *more), RunDir(folder / name)) for name in names]


def together(runs, ended=lambda member: None):
    out = io.StringIO()
    try:
        members = run_together(runs, Console(file=out, width=200), ended=ended)
    except Interrupted:
        return None, out.getvalue()
    return members, out.getvalue()


def alone(config, run):
    return run_training(config, run, Console(quiet=True))


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("separate")
    for config, run in asked(folder):
        alone(config, run)
    stopped = json.loads((folder / "stops" / "metrics.json").read_text())
    assert stopped["rows_seen"] < 12 * 18 / 5, "one of them shall stop early"
    return folder


def assert_same(ours, theirs):
    mine, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (ours, theirs))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in other), ours
    mine, other = (
        [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (ours, theirs)
    )
    timeless = [
        [{k: v for k, v in line.items() if not k.startswith("train_") and not k.endswith("_seconds")} for line in log]
        for log in (mine, other)
    ]
    assert timeless[0] == timeless[1]
    mine, other = (json.loads((folder / "metrics.json").read_text()) for folder in (ours, theirs))
    assert mine.keys() == other.keys()
    for name in ("train_loss", "eval_loss", "best_step", "tokens_seen", "rows_seen", "epochs", "flops_per_token"):
        assert mine.get(name) == other.get(name), name
    assert mine.get("eval_reward") == other.get("eval_reward")


def stop_after(step, monkeypatch):
    """Let a signal come in the middle of a step, once."""
    stepped = Learner.stepped

    def signalled(self, now):
        if now == step:
            monkeypatch.setattr(Learner, "stepped", stepped)
            os.kill(os.getpid(), signal.SIGTERM)
        stepped(self, now)

    monkeypatch.setattr(Learner, "stepped", signalled)


def record(run):
    return json.loads((run / "run.json").read_text())


def test_runs_of_all_methods_together_equal_the_same_runs_alone(separate, tmp_path):
    over = []
    members, out = together(asked(tmp_path), lambda member: over.append(member.run.path.name))
    assert [member.failure for member in members] == [None] * len(RUNS_OF)
    for name in RUNS_OF:
        assert_same(tmp_path / name, separate / name)
        assert record(tmp_path / name)["together"] == list(RUNS_OF)
        assert "together" not in record(separate / name)
    assert "7 runs side by side on one pass over the backbone" in out
    assert over[:2] in (["stops", "branch"], ["branch", "stops"]), "who stops early or has fewer steps is done earlier"
    assert "step 5/12  ladder  loss" in out


def test_one_pass_serves_all_of_them(tmp_path, monkeypatch):
    from ladder_cli.trunk.live import LiveTrunk

    passes = []
    taps = LiveTrunk.taps

    def counted(self, request, batch, *rest, **more):
        passes.append(batch.row_ids)
        return taps(self, request, batch, *rest, **more)

    monkeypatch.setattr(LiveTrunk, "taps", counted)
    names = ("ladder", "xladder", "suffix")
    together(asked(tmp_path, names, "train.max_steps=2", "train.evaluations=1"))
    rows = [row for ids in passes for row in ids]
    assert len(rows) == 2 * 4 + 3, "each row of training and validation once"


def test_a_group_that_was_interrupted_continues_to_the_same_end(separate, tmp_path, monkeypatch):
    # Step 9 lies within an epoch, behind the ends of two runs.
    stop_after(9, monkeypatch)
    members, _ = together(asked(tmp_path))
    assert members is None
    assert {name for name in RUNS_OF if record(tmp_path / name)["status"] == "interrupted"} == {
        *("ladder", "xladder", "suffix", "dropout", "suffixed")
    }
    assert {name for name in RUNS_OF if record(tmp_path / name)["status"] == "done"} == {"stops", "branch"}
    assert Checkpoints(tmp_path / "ladder" / "checkpoints").steps()[-1] == 9
    # One by itself, the others together again.
    alone(*asked(tmp_path, ["suffix"])[0])
    members, out = together(asked(tmp_path))
    assert [member.failure for member in members] == [None] * len(RUNS_OF)
    assert "4 runs side by side" in out
    assert out.count("is already done") == 3
    for name in RUNS_OF:
        assert_same(tmp_path / name, separate / name)


def test_runs_that_were_interrupted_alone_continue_together_by_the_step_they_have_come_to(
    separate, tmp_path, monkeypatch
):
    for name, step in (("ladder", 5), ("suffix", 5), ("dropout", 4), ("xladder", 4)):
        stop_after(step, monkeypatch)
        with pytest.raises(Interrupted, match=f"saved at step {step}"):
            alone(*asked(tmp_path, [name])[0])
    _, out = together(asked(tmp_path, ["ladder", "suffix", "dropout", "xladder"]))
    assert out.count("2 runs side by side") == 2
    for name in ("ladder", "suffix", "dropout", "xladder"):
        assert_same(tmp_path / name, separate / name)


def test_one_that_fails_leaves_the_others_as_they_were(separate, tmp_path, monkeypatch):
    other = RunDir(tmp_path / "branch")
    alone(config_of(*RUNS_OF["branch"], "train.max_steps=1"), other)
    before = other.run.read_bytes()
    loss = Learner.loss

    def poisoned(self, batch, taps, divisor=None):
        found = loss(self, batch, taps, divisor)
        if self.checkpoints.folder.parent.name == "dropout" and divisor is not None and self.losses.last_logged == 10:
            return type(found)(found.total * float("nan"), found.count)
        return found

    monkeypatch.setattr(Learner, "loss", poisoned)
    runs = asked(tmp_path)
    runs[1] = config_of("method=suffix", "method.layers=99"), RunDir(tmp_path / "xladder")
    members, _ = together(runs)
    failures = {member.run.path.name: member.failure for member in members}
    assert isinstance(failures["dropout"], RunFailed)
    assert isinstance(failures["xladder"], UserError)
    assert "method.layers=99" in str(failures["xladder"])
    assert "holds another run (train.max_steps: 1 -> 8)" in str(failures["branch"])
    assert other.run.read_bytes() == before
    assert record(tmp_path / "dropout")["status"] == "failed"
    assert (tmp_path / "dropout" / "bad_batch.json").is_file()
    assert not (tmp_path / "xladder").exists()
    for name in ("ladder", "suffix", "stops"):
        assert_same(tmp_path / name, separate / name)


def test_a_run_that_fails_as_a_signal_comes_is_not_called_done(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space is left")

    stop_after(3, monkeypatch)
    monkeypatch.setattr(Checkpoints, "commit", full)
    out = io.StringIO()
    with pytest.raises(Interrupted, match=r"of 1 run\(s\) 1 had failed by then"):
        run_together(asked(tmp_path, ["ladder"]), Console(file=out, width=200))
    assert "no space is left" in out.getvalue()
    assert record(tmp_path / "ladder")["status"] == "failed"


def test_what_ends_the_pass_itself_ends_all_and_says_so(tmp_path, monkeypatch):
    from ladder_cli.trunk.live import LiveTrunk

    def no_memory(self, request, batch, *rest, **more):
        if batch.row_ids:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return taps(self, request, batch, *rest, **more)

    taps = LiveTrunk.taps
    monkeypatch.setattr(LiveTrunk, "taps", no_memory)
    members, _ = together(asked(tmp_path, ["ladder", "suffix"]))
    assert all("out of memory. What takes less" in str(member.failure) for member in members)
    assert {record(tmp_path / name)["status"] for name in ("ladder", "suffix")} == {"failed"}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"{n} + {n}?", "answer": f"{2 * n}"}) for n in range(40)))
    return (
        *("data=jsonl", f"data.path={path}", "data.prompt=question", "data.completion=answer"),
        *("method=xladder", "train.max_steps=3", "train.evaluations=1"),
    )


def seeds(folder, options, together_, wanted=(4, 5)):
    return [(config_of(*options, f"seed={n}", f"train.together={together_}"), RunDir(folder / f"{n}")) for n in wanted]


def experiment(folder):
    runs = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    targets = [Target(path.name, None, "", folder, None, (0, None), run=path) for path in runs]  # type: ignore[arg-type]
    return Experiment("", folder, targets)


def test_seeds_share_a_pass_where_they_are_to_and_differ_in_first_weights_alone(rows, tmp_path):
    folder = tmp_path / "true"
    together(seeds(folder, rows, "true"))
    assert [record(folder / n)["order_of_seed"] for n in "45"] == [4, 4]
    assert record(folder / "5")["seed"] == 5
    assert experiment(folder).differ_in == INITIALISATIONS

    own = tmp_path / "own"
    for config, run in seeds(own, rows, "false"):
        alone(config, run)
    assert experiment(own).differ_in == RUNS
    assert_same(folder / "4", own / "4")
    mine, other = (load_file(each / "5" / "adapter" / "adapter_model.safetensors") for each in (folder, own))
    assert not all(torch.equal(mine[name], other[name]) for name in other)


def test_a_run_in_the_order_of_another_goes_on_in_it_alone(rows, tmp_path, monkeypatch):
    whole, ours = tmp_path / "whole", tmp_path / "ours"
    together(seeds(whole, rows, "true"))
    stop_after(2, monkeypatch)
    together(seeds(ours, rows, "true"))
    alone(*seeds(ours, rows, "auto")[1])
    assert_same(ours / "5", whole / "5")
    assert record(ours / "5")["order_of_seed"] == 4
    # One that is new joins the order of the one that is done.
    together(seeds(ours, rows, "true", (4, 5, 6)))
    assert record(ours / "6")["order_of_seed"] == 4


def test_seeds_that_draw_their_rows_are_grouped_by_seed(tmp_path):
    options = ("method=xladder", "train.max_steps=1", "train.evaluations=1")
    runs = seeds(tmp_path, options, "true") + [
        (config_of(*options, f"seed={n}", "train.learning_rate=0.01"), RunDir(tmp_path / f"fast-{n}")) for n in (4, 5)
    ]
    _, out = together(runs)
    assert out.count("each seed draws rows of its own") == 1
    assert record(tmp_path / "4")["together"] == ["4", "fast-4"]
    assert record(tmp_path / "fast-5")["together"] == ["5", "fast-5"]
    assert record(tmp_path / "5")["order_of_seed"] == 5


def test_runs_that_do_not_fit_the_memory_together_are_split(separate, tmp_path):
    names = ("ladder", "xladder", "suffix", "dropout")
    jobs = [Job.settle(config, run, torch.device("cpu")) for config, run in asked(tmp_path, names)]
    longest = json.loads((separate / "ladder" / "metrics.json").read_text())["peak_memory_bytes"]
    memories = [preflight(job.config, job.device, 80) for job in jobs]
    shapes = [job.shape() for job in jobs]
    whole = side_by_side(memories, shapes).prediction
    assert longest["predicted"] < whole.total < sum(memory.prediction.total for memory in memories)
    assert whole.parts["weights"] == memories[0].prediction.parts["weights"]
    assert whole.parts["trained"] == sum(memory.prediction.parts["trained"] for memory in memories)
    members, out = together(asked(tmp_path, names, f"hardware.memory_gb={(whole.total - 12e6) / 1e9}"))
    assert "4 runs side by side do not fit the memory: they are trained in 2 groups (" in out
    assert [member.failure for member in members] == [None] * 4
    for name in names:
        assert_same(tmp_path / name, separate / name)


def sweep(folder, *options):
    words = {word.partition("=")[0]: word for word in (*SHORT, "train.max_steps=1", "train.evaluations=1", *options)}
    return run_command("train", ["-m", *words.values(), f"hydra.sweep.dir={folder}"])


def test_a_sweep_trains_together_what_it_can_and_the_rest_by_itself(tmp_path):
    status, out, errors = sweep(tmp_path, "method=xladder,qlora,suffix", "train.learning_rate=0.001,0.002")
    assert status == 0, errors
    records = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/run.json")}
    assert len(records) == 6
    for name, each in records.items():
        assert each["status"] == "done"
        beside = [other for other in records if not other.startswith("qlora")]
        assert set(each.get("together", [])) == (set() if name.startswith("qlora") else set(beside))
    assert "all 6 runs of the sweep are done" in out
    assert "adapter: " in out
    status, out, errors = sweep(tmp_path, "method=xladder,qlora,suffix", "train.learning_rate=0.001,0.002")
    assert (status, out.count("is already done")) == (0, 6), errors


def test_a_sweep_that_is_interrupted_tells_which_of_its_runs_are(tmp_path, monkeypatch):
    from ladder_cli.run.sweep import read_summary

    stop_after(1, monkeypatch)
    options = ("method=xladder,suffix", "train.max_steps=2", "seed=1,2")
    status, _, errors = sweep(tmp_path, *options)
    assert status == 130
    assert "saved at step 1; the same command continues from there" in errors
    rows = read_summary(tmp_path / "summary.csv")
    assert [row["status"] for row in rows] == ["interrupted"] * 2, "of seed 1; those of seed 2 have not begun"
    status, _, errors = sweep(tmp_path, *options)
    assert status == 0, errors
    assert [row["status"] for row in read_summary(tmp_path / "summary.csv")] == ["done"] * 4


def test_what_cannot_be_together_is_refused_where_it_is_asked_for(tmp_path):
    status, _, errors = run_command("train", [*SHORT, "train.together=true", f"output_dir={tmp_path / 'run'}"])
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "train.together=true is given, but nothing reads it: it is for the runs of a sweep (-m)" in errors


def test_other_launchers_refuse_it_by_name(tmp_path):
    pytest.importorskip("joblib")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    status, _, errors = sweep(tmp_path, "seed=0,1", "train.together=true", *launcher)
    assert status == 2
    assert errors.count("but hydra/launcher=joblib gives each run a process of its own") == 2
