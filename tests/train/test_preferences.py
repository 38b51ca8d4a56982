"""Whole runs on preferences: cached, continued, accumulated and side by side they end as one plain run does."""

import json
import re

import pytest
import torch

from ladder_cli.train.learner import Learner
from tests.malformed import run_command
from tests.train.test_together import assert_same, stop_after

METHODS = {
    "ladder": ("method=ladder",),
    "branch": ("method=branch",),
    "suffix": ("method=suffix", "method.layers=2", "method.dropout=0.1"),
    "qlora": ("method=qlora", "method.dropout=0.1"),
}
# 19 pairs in steps of 2 x 2: an epoch is five steps, the last of them a short one.
SHORT = (
    *("data=jsonl", "data.format=preference", "objective=dpo", "hardware=cpu", "data.cache=false"),
    *("data.validation_samples=3", "train.micro_batch_size=2", "train.global_batch_size=4", "train.max_steps=12"),
    *("train.evaluations=4", "train.logging_steps=5"),
)
REWARDS = ("reward_margin", "reward_accuracy", "reward_chosen", "reward_rejected")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Right sums, preferred to wrong ones in more words."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    made = [
        {"prompt": f"Compute {n}+{3 * n}.", "chosen": f"{4 * n}", "rejected": f"{4 * n + 1}" + " or so" * (n % 4)}
        for n in range(1, 23)
    ]
    file.write_text("\n".join(map(json.dumps, made)))
    return file


def train(rows, folder, *options):
    # Later ones take the place of earlier ones of the same name.
    words = {word.partition("=")[0]: word for word in (*SHORT, f"data.path={rows}", f"output_dir={folder}", *options)}
    return run_command("train", list(words.values()))


def trained(rows, folder, *options):
    status, printed, errors = train(rows, folder, *options)
    assert status == 0, errors
    return printed


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
    """A run of each method, without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    for name, method in METHODS.items():
        trained(rows, folder / name, *method)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_the_log_tells_how_the_preferred_answers_fare(name, whole):
    lines, run = log(whole / name), metrics(whole / name)
    assert run["rows"] == {"train": 19, "validation": 3}
    assert (run["rows_seen"], run["epochs"]) == (2 * 19 + 2 * 4, pytest.approx(46 / 19))
    assert lines[0]["loss"] == pytest.approx(0.693147, rel=1e-5)
    for line in lines:
        prefix = "eval_" if "eval_loss" in line else ""
        assert {prefix + reward for reward in REWARDS} <= line.keys()
        rewards = [line[prefix + reward] for reward in REWARDS]
        assert rewards[0] == pytest.approx(rewards[2] - rewards[3], abs=1e-5)
        assert 0 <= rewards[1] <= 1
    checked = [line for line in lines if "eval_loss" in line]
    assert run["eval_loss"] == min(line["eval_loss"] for line in checked) < 0.6
    assert run["best_step"] == min(checked, key=lambda line: line["eval_loss"])["step"]
    assert checked[-1]["eval_reward_accuracy"] > 0.5
    assert "two answers each" in run_page(whole / name)


def run_page(folder):
    status, printed, errors = run_command("train", [*SHORT, f"data.path={path_of(folder)}", *METHODS[folder.name],
                                                    f"output_dir={folder}-plan", "dry_run=true"])  # fmt: skip
    assert status == 0, errors
    assert len(re.findall(r"example 1 ", printed)) == 1
    assert printed.count("Compute") >= 6, "both answers of three examples"
    assert printed.count("chosen:\n") == printed.count("rejected:\n") == 3
    return printed


def path_of(folder):
    found = re.search(r"path: (.*rows\.jsonl)", (folder / "config.yaml").read_text())
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["ladder", "branch", "suffix"])
def test_a_cached_run_ends_as_one_without(name, rows, whole, tmp_path):
    disk = ("trunk.cache=disk", f"trunk.cache_dir={tmp_path / 'taps'}")

    def equal(folder):
        mine, other = log(folder), log(whole / name)
        timeless = [
            [{k: v for k, v in line.items() if not k.startswith("train_")} for line in lines] for lines in (mine, other)
        ]
        assert timeless[0] == timeless[1]

    trained(rows, tmp_path / "memory", *METHODS[name], "trunk.cache=memory")
    equal(tmp_path / "memory")
    trained(rows, tmp_path / "writes", *METHODS[name], *disk)
    equal(tmp_path / "writes")
    trained(rows, tmp_path / "reads", *METHODS[name], *disk)
    equal(tmp_path / "reads")
    flops = [metrics(tmp_path / each)["flops_per_token"]["actual"] for each in ("writes", "reads")]
    assert flops[1] < flops[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(name, rows, whole, tmp_path, monkeypatch):
    stop_after(7, monkeypatch)
    status, *_ = train(rows, tmp_path / "run", *METHODS[name])
    assert status == 130
    trained(rows, tmp_path / "run", *METHODS[name])
    assert_same(tmp_path / "run", whole / name)


def test_one_accumulated_batch_trains_as_one_large_one(tmp_path):
    # Lengths hardly differ, so that the order is a plain shuffle, whatever the size of a micro-batch.
    made = [{"prompt": f"Compute {n}+{n}.", "chosen": f"{2 * n}", "rejected": f"{2 * n + 1}"} for n in range(10, 32)]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, made)))
    for size in (1, 4):
        trained(rows, tmp_path / str(size), "method=ladder", f"train.micro_batch_size={size}", "train.max_steps=6")
    ours, theirs = metrics(tmp_path / "1"), metrics(tmp_path / "4")
    assert ours["rows_seen"] == theirs["rows_seen"]
    for ours, theirs in zip(log(tmp_path / "1"), log(tmp_path / "4"), strict=True):
        for name in ("loss", "eval_loss", "reward_margin", "eval_reward_chosen"):
            if name in theirs:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name


def test_runs_of_several_betas_share_one_pass_and_end_as_alone(rows, tmp_path, monkeypatch):
    from ladder_cli.trunk.live import LiveTrunk

    alone = {"0.05": (), "0.5": ("objective.loss=ipo",)}
    for beta, more in alone.items():
        trained(rows, tmp_path / "alone" / beta, "method=ladder", f"objective.beta={beta}", *more)
    passes, taps = [], LiveTrunk.taps

    def counted(self, request, batch, *rest, **more):
        passes.append(batch.row_ids)
        return taps(self, request, batch, *rest, **more)

    monkeypatch.setattr(LiveTrunk, "taps", counted)
    from ladder_cli.config.compose import composed
    from ladder_cli.config.schema import TrainConfig
    from ladder_cli.run.directory import RunDir
    from tests.train.test_together import together

    configs = [
        composed("train", TrainConfig, [*SHORT, "method=ladder", f"data.path={rows}", f"objective.beta={beta}", *more])
        for beta, more in alone.items()
    ]
    members, _ = together([(config, RunDir(tmp_path / beta)) for config, beta in zip(configs, alone, strict=True)])
    assert [member.failure for member in members] == [None, None]
    read = [ids for ids in passes if ids]
    # 12 steps pass 46 pairs, and four validations 3 each; each row once for both runs.
    assert len(read) == 2 * (46 + 4 * 3)
    for beta in alone:
        assert_same(tmp_path / beta, tmp_path / "alone" / beta)


def test_measures_go_on_where_a_checkpoint_left_them(rows, whole, tmp_path, monkeypatch):
    """Step 7 lies between two lines of the log, at 5 and 10: what was measured by then is in the checkpoint."""
    stop_after(7, monkeypatch)
    assert train(rows, tmp_path / "run", "method=ladder")[0] == 130
    (progress,) = (tmp_path / "run" / "checkpoints").glob("checkpoint-7/progress.json")
    pending = json.loads(progress.read_text())["pending_measures"]
    assert [len(shares) for shares in pending] == [1] * len(REWARDS)
    assert pending[0][0] != 0


REFUSED = {
    "pairs with dpo": (("data.format=pairs", "data.prompt=prompt", "data.completion=chosen"), "objective=dpo does not "
                       "learn from rows of format pairs: give rows of format preference, or objective=sft"),
    "preferences with sft": (("objective=sft",), "objective=sft does not learn from rows of format preference"),
    "labels with dpo": (("data=cola",), "objective=dpo does not learn from rows of format label"),
    "generated with dpo": (("data=arithmetic",), "objective=dpo does not learn from rows of format generated"),
    "packed": (("data.packing=true",), "packing"),
    "no start": (("method=lst",), "method=lst does not start as the backbone"),
    "no such loss": (("objective.loss=hinge",), "objective.loss=hinge is not a choice"),
    "no such objective": (("objective=grp",), "no option 'objective/grp'"),
    "beta": (("objective.beta=0",), "objective.beta"),
    "smoothed ipo": (("objective.loss=ipo", "objective.label_smoothing=0.1"), "objective.loss=ipo does not read it"),
    "no such column": (("data.chosen=better",), "has no column 'better'; it has: prompt, chosen, rejected"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(Learner, "begin", lambda *_: pytest.fail("work has begun"))
    options, message = REFUSED[name]
    if options[0].startswith("data="):  # the set brings rows and a format of its own
        words = [word for word in SHORT if not word.startswith(("data=", "data.format"))]
        status, _, errors = run_command("train", [*words, *options, f"output_dir={tmp_path / 'run'}"])
    else:
        status, _, errors = train(rows, tmp_path / "run", *options)
    assert status == 2
    assert message in " ".join(errors.split())
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_python_api_refuses_it_too(rows, tmp_path):
    from ladder_cli.config.compose import composed
    from ladder_cli.config.schema import TrainConfig
    from ladder_cli.errors import UserError
    from ladder_cli.run.directory import RunDir
    from ladder_cli.train.job import Job

    config = composed("train", TrainConfig, [*SHORT, f"data.path={rows}", "data.packing=true"])
    with pytest.raises(UserError, match=r"data\.packing=true does not go with objective=dpo"):
        Job.settle(config, RunDir(tmp_path), torch.device("cpu"))
