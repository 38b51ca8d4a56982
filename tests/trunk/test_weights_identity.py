"""Weights are the same by what they are, whatever file, folder or shard they lie in."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ladder_cli.errors import NotReachable, UserError
from ladder_cli.trunk import weights_identity as module
from ladder_cli.trunk.weights_identity import local_weights_identity, weights_files, weights_identity

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, tiny_config):
    return Path(shutil.copytree(tiny_config.location, tmp_path / "model"))


def changed(folder, name="model.layers.0.mlp.up_proj.weight", by=1e-6):
    weights = load_file(folder / WEIGHTS)
    weights[name] = weights[name] + by
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def settle(folder):
    """Files that were written long ago, so that the cache takes them."""
    for path in folder.iterdir():
        os.utime(path, (time.time() - 3600, time.time() - 3600))


def test_a_copy_elsewhere_is_the_same_and_one_changed_value_is_not(folder, tmp_path, tiny_config):
    assert weights_identity(str(folder)) == weights_identity(tiny_config.location)
    changed(folder)
    assert weights_identity(str(folder)) != weights_identity(tiny_config.location)


def test_other_shards_and_a_rewritten_config_are_the_same_weights(tmp_path, tiny_config):
    model = AutoModelForCausalLM.from_pretrained(tiny_config.location)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="1MB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    written = json.loads((tmp_path / "sharded" / "config.json").read_text())
    assert written.pop("attention_dropout") == 0.0  # another version leaves out what is the default
    (tmp_path / "sharded" / "config.json").write_text(json.dumps(written | {"transformers_version": "9.9"}))
    assert weights_identity(str(tmp_path / "sharded")) == weights_identity(tiny_config.location)


@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", 1e-3), ("hidden_act", "gelu"), ("num_attention_heads", 2)])
def test_another_architecture_over_the_same_tensors_is_another_identity(folder, tiny_config, key, value):
    config = json.loads((folder / "config.json").read_text())
    assert config[key] != value
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    assert weights_identity(str(folder)) != weights_identity(tiny_config.location)


def test_the_same_values_under_another_name_or_in_another_type_are_other_weights(folder, tiny_config):
    weights = load_file(folder / WEIGHTS)
    seen = {weights_identity(tiny_config.location)}
    for other in (
        {"x." + name: tensor for name, tensor in weights.items()},
        {name: tensor.to(torch.float32) for name, tensor in weights.items()},
    ):
        save_file(other, folder / WEIGHTS)
        seen.add(weights_identity(str(folder)))
    assert len(seen) == 3


def test_a_second_look_reads_no_weights(folder, monkeypatch, own_cache):
    settle(folder)
    first = weights_identity(str(folder))
    monkeypatch.setattr(module, "_read_digests", lambda path: pytest.fail("weights were read again"))
    assert weights_identity(str(folder)) == first
    shutil.rmtree(own_cache)
    with pytest.raises(pytest.fail.Exception):
        weights_identity(str(folder))


def test_a_file_that_changed_in_place_is_read_again_even_where_size_and_time_are_the_same(folder):
    settle(folder)
    before = weights_identity(str(folder))
    path = folder / WEIGHTS
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\x3f")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert weights_identity(str(folder)) != before


def test_a_file_that_was_written_just_now_is_not_taken_from_the_cache_later(folder, own_cache):
    changed(folder)
    weights_identity(str(folder))
    assert not list(own_cache.rglob("*.json"))


@pytest.mark.parametrize("spoiled", ["{", "[]", '{"key": 1}', "\xff"])
def test_a_spoiled_cache_is_ignored(folder, own_cache, spoiled):
    settle(folder)
    before = weights_identity(str(folder))
    (kept,) = own_cache.rglob("*.json")
    kept.write_text(spoiled)
    assert weights_identity(str(folder)) == before


def test_a_cache_that_cannot_be_written_is_no_failure(folder, monkeypatch):
    settle(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    assert weights_identity(str(folder)) == weights_identity(str(folder))


def test_a_folder_without_readable_weights_is_refused_in_one_line(folder):
    whole = (folder / WEIGHTS).read_bytes()
    for content, reason in (
        (whole[:-100], "is cut off"),
        (whole[:40], "damaged or no safetensors file"),
        (b"", "damaged or no safetensors file"),
        (b"\xff" * 64, "damaged or no safetensors file"),
    ):
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(UserError, match=reason):
            weights_identity(str(folder))
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="has no weights in safetensors"):
        weights_identity(str(folder))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')
    with pytest.raises(UserError, match=r"one\.safetensors is missing"):
        weights_identity(str(folder))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../one.safetensors"}}')
    with pytest.raises(UserError, match="names a shard outside of its folder"):
        weights_identity(str(folder))


def in_hub_cache(hub, folder, repository="someone/model", commit="c0ffee" * 6 + "c0ff"):
    """`folder` as the hub's cache would hold it: blobs, and a snapshot of links to them."""
    home = hub / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy(path, home / "blobs" / path.name)
        (snapshot / path.name).symlink_to(home / "blobs" / path.name)
    return commit


def test_a_model_in_the_cache_of_the_hub_is_the_same_as_its_folder(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = in_hub_cache(tmp_path / "hub", folder)
    assert weights_files("someone/model")[1].resolve().parent.name == "blobs"
    for revision in (None, commit):
        assert local_weights_identity("someone/model", revision) == weights_identity(str(folder))
    assert local_weights_identity("someone/other") is None
    with pytest.raises(NotReachable, match="someone/other"):
        weights_identity("someone/other")


def test_the_module_imports_no_torch():
    code = "import sys, ladder_cli.trunk.weights_identity as w; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
