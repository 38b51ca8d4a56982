"""Whole runs over layers that are streamed, against runs over layers that are not."""

import json
import signal
import subprocess
import sys
import time

import pytest

from ladder_cli.run.directory import RunDir
from tests.malformed import run_command

QUICK = (
    *("data.train_samples=32", "data.validation_samples=4", "train.global_batch_size=4", "train.micro_batch_size=2"),
    *("train.max_steps=6", "train.evaluations=6", "train.logging_steps=1", "hardware=cpu", "data.cache=false"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("layers")


def streamed(files) -> tuple[str, ...]:
    return ("trunk.residency=disk", f"trunk.layer_files={files}")


def adapter(folder) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["ladder", "suffix"])
def test_a_streamed_run_is_the_resident_run_bit_for_bit(method, files, tmp_path):
    for name, options in (("resident", ()), ("streamed", streamed(files))):
        words = [*QUICK, *options, f"method={method}", f"output_dir={tmp_path / name}"]
        status, out, errors = run_command("train", words)
        assert status == 0, errors
    assert "of streamed layers" in out or "streamed layers at a time" in out
    assert adapter(tmp_path / "streamed") == adapter(tmp_path / "resident")
    ours, theirs = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("streamed", "resident"))
    assert (ours["train_loss"], ours["eval_loss"]) == (theirs["train_loss"], theirs["eval_loss"])
    # And it is the same run: what one began the other may continue.
    assert RunDir(tmp_path / "streamed").experiment() == RunDir(tmp_path / "resident").experiment()


def test_an_evaluation_streams_too(files, tmp_path):
    status, _, errors = run_command("train", [*QUICK, *streamed(files), f"output_dir={tmp_path / 'run'}"])
    assert status == 0, errors
    samples = []
    for name, options in (("resident", ()), ("streamed", streamed(files))):
        words = [f"run={tmp_path / 'run'}", "limit=2", "decode.max_new_tokens=6", "hardware=cpu", *options]
        status, _, errors = run_command("evaluate", [*words, f"output_dir={tmp_path / name}"])
        assert status == 0, errors
        samples.append((tmp_path / name / "arithmetic" / "samples.jsonl").read_text())
    assert samples[0] == samples[1]
    status, _, errors = run_command("evaluate", ["model=tiny", "trunk.residency=auto", "hardware=cpu"])
    assert status == 2
    assert "trunk.residency=auto is for training" in errors


@pytest.mark.slow
def test_killed_while_it_trains_it_ends_as_if_it_had_not_been(files, tmp_path):
    def started(folder):
        words = [sys.executable, "-m", "ladder_cli.train", *QUICK, *streamed(files), f"output_dir={folder}"]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    process = started(tmp_path / "killed")
    while not list((tmp_path / "killed" / "checkpoints").glob("checkpoint-2")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "adapter").exists()
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        assert started(folder).wait() == 0
    assert adapter(tmp_path / "killed") == adapter(tmp_path / "whole")


def test_a_damaged_layer_ends_a_run_before_its_first_step_in_one_line(files, tmp_path):
    place = tmp_path / "layers"
    status, out, errors = run_command("train", ["prepare=true", f"trunk.layer_files={place}", "hardware=cpu"])
    assert status == 0, errors
    assert "prepared 6 layers of tiny" in out
    file = next(place.glob("*/layer-003.bin"))
    content = bytearray(file.read_bytes())
    content[-5000] ^= 4
    file.write_bytes(content)
    status, _, errors = run_command("train", [*QUICK, *streamed(place), f"output_dir={tmp_path / 'run'}"])
    assert status == 2
    assert errors.strip().splitlines()[-1].startswith("error: ")
    assert "layer-003.bin is not as it was written: delete it, and it is made anew." in errors
    assert not RunDir(tmp_path / "run").metrics_log.exists()
