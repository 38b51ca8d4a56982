"""What is kept of backbones and nobody uses any more can be deleted, and nothing else that lies there is."""

import multiprocessing
import os

import pytest
import torch

from ladder_cli.config.choices import Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.run.claim import claimed
from ladder_cli.trunk.kept import layer_folders, prune_layers
from ladder_cli.trunk.layer_folder import prepare_layers
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.streamed import open_streamed
from tests.malformed import run_command

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7]])


def tiny(quantization="none") -> ModelConfig:
    return ModelConfig(name="tiny", path="builtin:tiny", dtype="float32", quantization=quantization)


@pytest.fixture
def place(tmp_path):
    """Two forms of one backbone, the first of which was used longer ago; and a folder of somebody else's."""
    for number, kind in enumerate(("none", "nf4"), start=1):
        folder = prepare_layers(tiny(kind), CPU, tmp_path)
        os.utime(folder.path / "manifest.json", (number, number))
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "layer-001.bin").write_bytes(b"cake")
    return tmp_path


def test_what_is_there_is_listed_the_last_used_first(place):
    found = layer_folders(place)
    assert [report.values["quantization"] for report in found] == ["nf4", "none"]
    for report in found:
        assert report.values["model"] == "tiny"
        assert report.count == 6
        assert report.size == sum(path.stat().st_size for path in report.folder.iterdir())


def test_to_be_opened_is_to_be_used(place):
    open_streamed(tiny(), CPU, Residency.DISK, 2, place)
    assert [report.values["quantization"] for report in layer_folders(place)] == ["none", "nf4"]


def test_what_was_not_used_for_longest_goes_and_strangers_stay(place):
    newer, older = layer_folders(place)
    assert prune_layers(place, newer.size + older.size) == []
    assert prune_layers(place, newer.size + older.size - 1) == [older]
    assert not older.folder.exists()
    (newer.folder / "notes.txt").write_text("mine")
    assert prune_layers(place, 0) == [newer]
    assert [path.name for path in newer.folder.iterdir()] == ["notes.txt"]
    assert (place / "photographs" / "layer-001.bin").read_bytes() == b"cake"
    assert prepare_layers(tiny(), CPU, place).complete  # made anew


def _hold(folder, held, done):
    with claimed(folder):
        held.set()
        done.wait()


def test_what_is_being_made_stays(place):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    newer, older = layer_folders(place)
    process = context.Process(target=_hold, args=(older.folder, held, done))
    process.start()
    held.wait()
    try:
        assert prune_layers(place, 0) == [newer]
        assert older.folder.is_dir()
    finally:
        done.set()
        process.join()


def test_a_run_that_has_opened_them_goes_on(place):
    trunk = open_streamed(tiny(), CPU, Residency.DISK, 2, place)
    prune_layers(place, 0)
    with torch.no_grad():
        assert torch.equal(trunk.whole()(IDS).logits, load_backbone(tiny(), CPU)(IDS).logits)


def test_the_command_says_what_it_did(place):
    files = f"trunk.layer_files={place}"
    status, out, errors = run_command("train", ["cache=list", files])
    assert status == 0, errors
    assert f"{place}: layer files of 2 backbones" in out
    status, out, errors = run_command("train", ["cache=prune_layers", files, "trunk.cache_limit_gb=0"])
    assert status == 0, errors
    assert "0.00 GB left" in out
    assert layer_folders(place) == []
    for options, complaint in (
        (["cache=prune_layers", files], "cache=prune_layers needs a limit"),
        (["cache=prune_layers", f"trunk.layer_files={place / 'no'}", "trunk.cache_limit_gb=0"], "is no folder"),
        (["cache=prune", files, "trunk.cache_limit_gb=0"], "trunk.layer_files is given, but cache=prune"),
        (["cache=list", "trunk.cache_limit_gb=0"], "trunk.cache_limit_gb is given, but cache=list"),
    ):
        status, _, errors = run_command("train", options)
        assert status == 2
        assert complaint in errors
