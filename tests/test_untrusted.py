"""Folders of strangers run no code, and names stay inside the output folder."""

import json
import re
import shutil

import pytest

from ladder_cli.run.directory import safe_name
from tests.malformed import TINY_RUN, run_command

EVIL = (
    "from pathlib import Path\nPath({marker!r}).touch()\n"
    "from transformers import Qwen2Config\n"
    # Not the class itself, which Transformers marks for all that comes after.
    "class EvilConfig(Qwen2Config):\n    pass\n"
)


@pytest.fixture
def strangers_run(tmp_path, monkeypatch):
    """A run directory whose config asks for a model that brings code along, and the file which that would make."""
    status, _, errors = run_command("train", [f"output_dir={tmp_path / 'run'}", *TINY_RUN])
    assert status == 0, errors
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model, marker = tmp_path / "model", tmp_path / "code-was-run"
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}})
    )
    (model / "evil.py").write_text(EVIL.format(marker=str(marker)))
    config = tmp_path / "run" / "config.yaml"
    text = re.sub(r"path: builtin:tiny", f"path: {model}", config.read_text())
    config.write_text(text.replace("trust_remote_code: false", "trust_remote_code: true"))
    return tmp_path / "run", marker


def test_the_config_of_a_run_cannot_ask_for_code_to_be_run(strangers_run):
    run, marker = strangers_run
    status, _, errors = run_command("evaluate", [f"run={run}", "limit=1", "hardware=cpu"])
    assert status == 2, errors
    assert len(errors.splitlines()) == 1
    assert not marker.exists()


def test_the_command_line_can(strangers_run):
    run, marker = strangers_run
    run_command("evaluate", [f"run={run}", "limit=1", "hardware=cpu", "model.trust_remote_code=true"])
    assert marker.exists()


def test_pickled_weights_of_a_backbone_are_not_read(tmp_path, tiny_config):
    import torch

    model = tmp_path / "model"
    shutil.copytree(tiny_config.location, model)
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    status, _, errors = run_command("evaluate", [f"model.path={model}", f"output_dir={tmp_path / 'out'}", "limit=1"])
    assert status == 2
    assert "has no weights in safetensors" in errors


def test_names_do_not_climb_out_of_the_output_folder(tmp_path, monkeypatch):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    quick = ["limit=1", "decode.max_new_tokens=1", "hardware=cpu"]
    status, _, errors = run_command("evaluate", ["model.name=../../../escaped", *quick])
    assert status == 0, errors
    status, _, errors = run_command("train", ["model.name=../../escaped", "method.name=/escaped", *TINY_RUN])
    assert status == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in inner.iterdir()] == ["outputs"]


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", ".hidden", "a/../../b", "", "x" * 500, "a\x00b\n"])
def test_a_safe_name_is_one_name(name):
    safe = safe_name(name)
    assert 0 < len(safe) <= 180
    assert not re.search(r"[/\x00-\x1f]", safe)
    assert not safe.startswith(".")
