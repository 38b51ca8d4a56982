"""Whole runs on cached taps: the same bits as without, from whatever is in the cache, and the plan that says so."""

import json
import logging

import pytest
from safetensors.torch import load_file

from tests.malformed import run_command

OPTIONS = (
    *("hardware=cpu", "data.train_samples=20", "data.validation_samples=6", "data.cache=false"),
    *("train.global_batch_size=8", "train.micro_batch_size=4", "train.epochs=2", "train.evaluations=2"),
)
METHODS = {
    "ladder": ("method=ladder",),
    "xladder": ("method=xladder",),
    "branch": ("method=branch",),
    "suffix": ("method=suffix", "method.layers=2", "method.dropout=0.1"),
    "recomputed suffix": ("method=suffix", "method.layers=4", "method.gradient_checkpointing=true"),
    "suffixed": ("method=ladder-suffix", "method.layers=2", "method.suffix_layers=2", "method.dropout=0.1"),
    "packed": ("method=ladder", "data.packing=true", "data.max_length=128"),
}


def train(folder, *options):
    return run_command("train", [f"output_dir={folder}", *OPTIONS, *options])


def trained(folder, *options):
    status, _, errors = train(folder, *options)
    assert status == 0, errors
    return load_file(folder / "adapter" / "adapter_model.safetensors"), json.loads(
        (folder / "metrics.json").read_text()
    )


def same(ours, theirs):
    mine, other = ours[0], theirs[0]
    assert mine.keys() == other.keys()
    assert all(mine[name].equal(other[name]) for name in other)
    for name in ("train_loss", "eval_loss", "best_step", "tokens_seen"):
        assert ours[1][name] == theirs[1][name], name


@pytest.mark.parametrize("name", METHODS)
def test_a_cached_run_ends_as_one_without(name, tmp_path):
    method, disk = METHODS[name], ("trunk.cache=disk", f"trunk.cache_dir={tmp_path / 'taps'}")
    live = trained(tmp_path / "live", *method)
    same(trained(tmp_path / "memory", *method, "trunk.cache=memory"), live)
    same(trained(tmp_path / "writes", *method, *disk), live)
    again = trained(tmp_path / "reads", *method, *disk)
    same(again, live)
    # What was there was not computed, and the figures know.
    assert again[1]["flops_per_token"]["actual"] < live[1]["flops_per_token"]["actual"]
    assert again[1]["flops_per_token"]["paper"] == live[1]["flops_per_token"]["paper"]


def test_where_all_is_there_no_layer_is_loaded(tmp_path, monkeypatch):
    disk = ("trunk.cache=disk", f"trunk.cache_dir={tmp_path / 'taps'}")
    first = trained(tmp_path / "first", "method=ladder", *disk)
    monkeypatch.setattr("ladder_cli.train.group.open_trunk", lambda *_: pytest.fail("the whole backbone was loaded"))
    second = trained(tmp_path / "second", "method=ladder", *disk)
    same(second, first)
    predicted = [run[1]["peak_memory_bytes"]["predicted_parts"]["weights"] for run in (first, second)]
    assert predicted[1] < predicted[0] / 10
    # A suffix finds what the ladder has read, and loads what it trains.
    assert trained(tmp_path / "suffix", "method=suffix", "method.layers=2", *disk)[1]["eval_loss"] > 0


def test_a_tap_that_is_damaged_after_all_is_read_anew_and_said(tmp_path, caplog):
    disk = ("trunk.cache=disk", f"trunk.cache_dir={tmp_path / 'taps'}")
    live = trained(tmp_path / "live", "method=ladder")
    trained(tmp_path / "writes", "method=ladder", *disk)
    for shard in (tmp_path / "taps").glob("*/*.safetensors"):
        content = bytearray(shard.read_bytes())
        content[-100] ^= 1
        shard.write_bytes(content)
    with caplog.at_level(logging.WARNING, "ladder_cli"):
        same(trained(tmp_path / "reads", "method=ladder", *disk), live)
    assert [line for line in caplog.messages if "is damaged" in line]
    assert [line for line in caplog.messages if "the whole backbone is loaded" in line]


def test_eight_bits_are_another_run_and_change_it_little(tmp_path):
    live = trained(tmp_path / "run", "method=ladder")
    rounded = trained(tmp_path / "rounded", "method=ladder", "trunk.cache=memory", "trunk.cache_format=int8")
    assert rounded[1]["eval_loss"] != live[1]["eval_loss"]
    assert rounded[1]["eval_loss"] == pytest.approx(live[1]["eval_loss"], rel=5e-3)
    status, _, errors = train(tmp_path / "run", "method=ladder", "trunk.cache=memory", "trunk.cache_format=int8")
    assert status == 2
    assert "trunk.cache_format: exact -> int8" in errors
    # Where the exact ones are kept makes no difference.
    status, _, errors = train(tmp_path / "run", "method=ladder", "trunk.cache=memory")
    assert status == 0, errors


def test_a_limit_is_held_and_the_rest_is_read_anew(tmp_path):
    folder = tmp_path / "taps"
    live = trained(tmp_path / "live", "method=ladder")
    disk = ("trunk.cache=disk", f"trunk.cache_dir={folder}", "trunk.cache_limit_gb=0.001")
    for name in ("first", "second"):
        same(trained(tmp_path / name, "method=ladder", *disk), live)
        assert 0 < sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 1e6


def test_the_plan_says_what_the_cache_takes_and_saves(tmp_path):
    disk = ("trunk.cache=disk", f"trunk.cache_dir={tmp_path / 'taps'}")

    def planned(name, *options):
        status, printed, errors = train(tmp_path / name, "dry_run=true", *options)
        assert status == 0, errors
        return json.loads((tmp_path / name / "plan.json").read_text())["reading"], printed

    before, printed = planned("before", "method=ladder", *disk)
    assert before["bytes"] == before["tokens"] * 6 * 192 * 4
    assert (before["share_there"], before["share_read"]) == (0.0, 0.5)
    assert "6 taps, 4.6 kB a token" in printed
    trained(tmp_path / "run", "method=ladder", *disk)
    held = sum(path.stat().st_size for path in (tmp_path / "taps").rglob("*.safetensors"))
    assert before["bytes"] <= held <= before["bytes"] * 1.02
    after, printed = planned("after", "method=ladder", *disk)
    assert (after["share_there"], after["share_read"], after["layers_not_loaded"]) == (1.0, 0.0, 6)
    assert "no layer of it loaded" in printed
    assert planned("suffix", "method=suffix", *disk)[0]["layers_not_loaded"] == 3
    assert planned("auto", "method=ladder", *disk, "trunk.cache=auto")[0]["cache"] == "disk"
    assert planned("memory", "method=ladder", "trunk.cache=auto")[0]["cache"] == "memory"
    once, printed = planned("once", "method=ladder", "trunk.cache=auto", "train.epochs=1")
    assert once["cache"] == "off"
    assert "no training row is passed twice" in printed


def test_options_that_nothing_reads_are_refused(tmp_path):
    for options, complaint in (
        (("method=qlora", "trunk.cache=disk"), "trunk.cache is given, but nothing reads it: method=qlora"),
        (("method=qlora", "trunk.passes=row"), "trunk.passes is given, but nothing reads it: method=qlora"),
        (("trunk.cache_limit_gb=1",), "trunk.cache_limit_gb is given, but nothing reads it: trunk.cache is off"),
        (
            ("trunk.cache=memory", "trunk.cache_dir=x"),
            "trunk.cache_dir is given, but nothing reads it",
        ),
        (("cache=list", "seed=1"), "but cache=list trains nothing"),
        (("prepare=true", "seed=1"), "seed is given, but nothing reads it: prepare=true makes layer files"),
        (("hardware.tflops=5", "dry_run=true"), "hardware.tflops is given, but nothing reads it: trunk.residency"),
        (("cache=prune",), "cache=prune needs a limit"),
    ):
        status, _, errors = run_command("train", list(options))
        assert status == 2
        assert complaint in errors
        assert len(errors.strip().splitlines()) == 1, errors
    status, _, errors = train(tmp_path / "run", "method=qlora", "trunk.cache=auto", "dry_run=true")
    assert status == 0, errors  # of a sweep over methods, those that can use one do
