"""vLLM as what samples for a training: LADDER_VLLM_PYTHON=PYTHON python -m pytest tests/serve/test_vllm_training.py

What is held is the one thing that counts: that vLLM answers by the weights as they are, after every step.
"""

import json
import os
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.serve.test_vllm import PYTHON, needs_vllm

HERE = Path(__file__).parents[2]
WORKER = Path(__file__).parent / "vllm_training_worker.py"
METHODS = {
    "ladder": ("method=ladder",),
    "branch": ("method=branch", "objective.temperature=0.8"),
    "suffixed": ("method=ladder-suffix", "method.layers=2", "method.suffix_layers=3"),
    "suffix": ("method=suffix", "method.layers=2"),
    "qlora": ("method=qlora", "method.rank=4"),
}
SHORT = (
    *("objective=grpo", "objective.engine=vllm", "objective.group=4", "objective.max_new_tokens=12", "hardware=cpu"),
    *("data.train_samples=12", "data.validation_samples=6", "train.micro_batch_size=4", "train.global_batch_size=12"),
    *("train.max_steps=3", "train.evaluations=3", "train.logging_steps=1", "train.learning_rate=0.02"),
    *("model.dtype=float32", "data.cache=false", "objective.reward=tests.train.rewarding:mixed"),
    *("train.scheduler=constant", "train.warmup_ratio=0"),
)
PATIENCE_SECONDS = 600
pytestmark = [needs_vllm, pytest.mark.slow]


def environment(temporary):
    temporary.mkdir(exist_ok=True)
    return os.environ | {
        "PYTHONPATH": str(HERE), "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary),
        "VLLM_RPC_BASE_PATH": "/tmp",  # the names of sockets may not be long
    }  # fmt: skip


def words(folder, *options):
    return list({word.partition("=")[0]: word for word in (*SHORT, f"output_dir={folder}", *options)}.values())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.mark.parametrize("name", METHODS)
def test_after_every_step_vllm_says_what_the_model_that_learns_says(name, tmp_path):
    command = [str(PYTHON), str(WORKER), str(tmp_path / "records"), *words(tmp_path / "run", *METHODS[name])]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(tmp_path / "temporary"), cwd=HERE
    )
    assert done.returncode == 0, done.stderr[-4000:]
    records = json.loads((tmp_path / "records").read_text())
    assert len(records) == 3
    for record in records:
        assert record["theirs"] == record["ours"]
    # A vLLM that had stayed behind would have been found out: the steps change what is said.
    for before, after in pairwise(records):
        assert before["ours"] != after["ours"]
        assert after["sent"] == before["sent"] + 1, "validation and the sampling after it share one sending"
    told = [line for line in lines(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in told] == [1, 2, 3]
    for line in told:
        assert 0 <= line["sampler_gap"] < 1e-4
        assert 0 < line["send_seconds"] <= line["generate_seconds"]
    assert told[-1]["kl"] > 1e-3, "the policy has moved"
    samples = lines(tmp_path / "run" / "completions.jsonl")
    assert len(samples) == 3 * 12
    assert len({each["completion"] for each in samples}) > 6
    assert list((tmp_path / "temporary").glob("ladder-vllm-*")) == []


def running(session):
    """The processes of a session that have not ended, vLLM's among them."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its, *_ = (path / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(its) == session and state != "Z":
            found.append(int(path.name))
    return found


def until(true):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def steps_logged(run):
    path = run / "metrics.jsonl"
    return path.read_text().count('"loss"') if path.is_file() else 0


@pytest.mark.parametrize(("end", "to_all", "status"), [("SIGKILL", False, -9), ("SIGINT", True, 130)])
def test_ended_anywhere_nothing_of_vllm_is_left_and_it_goes_on_from_its_checkpoint(end, to_all, status, tmp_path):
    """Killed, vLLM cannot be told; by Ctrl-C, which reaches all processes, it has to answer until the step is over."""
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    options = words(run, "method=ladder", "train.max_steps=20", "train.evaluations=10")
    command = [str(PYTHON), "-m", "ladder_cli.train", *options]
    with subprocess.Popen(
        command, env=environment(temporary), cwd=HERE, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until(lambda: steps_logged(run) >= 3 or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert len(running(process.pid)) >= 2, "vLLM's is another process"
        if to_all:
            os.killpg(process.pid, getattr(signal, end))
        else:
            process.send_signal(getattr(signal, end))
        assert process.wait(PATIENCE_SECONDS) == status
        until(lambda: running(process.pid) == [])
    until(lambda: list(temporary.glob("ladder-vllm-*")) == [])
    done = subprocess.run(command, env=environment(temporary), cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "continuing" in done.stdout
    samples = lines(run / "completions.jsonl")
    by_step = [each["step"] for each in samples]
    assert by_step == sorted(by_step)
    assert {step: by_step.count(step) for step in by_step} == dict.fromkeys(range(1, 21), 12)
    told = [line for line in lines(run / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in told] == list(range(1, 21))
    assert max(line["sampler_gap"] for line in told) < 1e-4


def test_the_end_of_vllm_is_told_in_a_line_and_nobody_waits_for_its_answer(tmp_path):
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    command = [str(PYTHON), "-m", "ladder_cli.train", *words(run, "method=ladder", "train.max_steps=200")]
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(
            command, env=environment(temporary), cwd=HERE, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as process,
    ):  # fmt: skip
        until(lambda: steps_logged(run) >= 2 or process.poll() is not None)
        engines = [number for number in running(process.pid) if "EngineC" in Path(f"/proc/{number}/comm").read_text()]
        assert len(engines) == 1
        os.kill(engines[0], signal.SIGKILL)
        assert process.wait(PATIENCE_SECONDS) == 1
    assert "vLLM's process, which answers for tiny, has ended" in " ".join((tmp_path / "errors").read_text().split())
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    until(lambda: list(temporary.glob("ladder-vllm-*")) == [])
