"""Several processes with an engine of vLLM each: what they hide from it, which card each takes. Needs no vLLM; that two
processes answer as one is in tests/serve/test_vllm.py.
"""

import importlib.metadata
import os
import select
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ladder_cli.errors import UserError
from ladder_cli.generate import vllm_processes
from ladder_cli.generate.decoding import ModelLimits
from ladder_cli.generate.vllm_engine import VllmEngine
from ladder_cli.generate.vllm_processes import (
    ServedModel,
    as_if_alone,
    deaf_to_interrupts,
    options_of_one,
    served_by_first,
)

LAUNCHED = {
    "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1",
    "GROUP_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True", "ACCELERATE_USE_CPU": "true",
}  # fmt: skip
CPU, CARD = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture
def launched(monkeypatch):
    """The second of two processes on the second of two machines, as torchrun starts it."""
    for name in ("CUDA_VISIBLE_DEVICES", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_WORKER_MULTIPROC_METHOD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


def test_what_is_started_sees_no_launcher_and_its_traces_are_removed(launched):
    before = dict(os.environ)
    with as_if_alone(None):
        assert not LAUNCHED.keys() & os.environ.keys()
        assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
        assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
        # As vLLM's CPU platform does.
        os.environ["LOCAL_WORLD_SIZE"] = "1"
    assert dict(os.environ) == before


def test_it_is_restored_after_a_failure_too(launched):
    before = dict(os.environ)
    with pytest.raises(ValueError, match="no"), as_if_alone(CPU):
        raise ValueError("no")
    assert dict(os.environ) == before


def test_a_process_alone_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = dict(os.environ)
    with as_if_alone(CARD):
        assert dict(os.environ) == before
    assert options_of_one(CPU) == {}


@pytest.mark.parametrize(("visible", "own"), [("4,7", "7"), ("GPU-a, GPU-b", "GPU-b"), (None, "1")])
def test_each_process_has_a_card_of_its_own(launched, monkeypatch, visible, own):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with as_if_alone(CARD):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == own
        assert "VLLM_CPU_OMP_THREADS_BIND" not in os.environ
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


def test_more_processes_than_cards_are_refused(launched, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(UserError, match="--nproc-per-node 1"), as_if_alone(CARD):
        pass
    assert os.environ["RANK"] == "3"


def test_engines_on_one_cpu_share_its_memory(launched):
    assert options_of_one(CPU) == {"gpu_memory_utilization": 0.45}
    assert options_of_one(CARD) == {}


def test_the_first_process_of_a_machine_makes_what_all_read(launched, monkeypatch):
    told = []

    def gathered(value):
        told.append(value)
        return "/tmp/served", torch.float32

    monkeypatch.setattr(vllm_processes, "from_first_here", gathered)
    made = ServedModel("/tmp/served", torch.float32, owner=object())
    assert served_by_first(lambda: pytest.fail("made twice")) == ServedModel("/tmp/served", torch.float32)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert served_by_first(lambda: made) is made
    assert told == [None, ("/tmp/served", torch.float32)]


def test_an_engine_is_started_with_its_share_and_without_a_launcher(launched, monkeypatch):
    started = {}

    class LLM:
        llm_engine = SimpleNamespace(engine_core=None)

        def __init__(self, folder, **options):
            started.update(options, folder=folder, environment=dict(os.environ))

    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.32.0")
    monkeypatch.setattr(vllm_processes, "from_first_here", lambda value: ("/tmp/served", torch.float32))
    VllmEngine(lambda: pytest.fail("made twice"), None, ModelLimits((), None))._start(64, 8)
    assert (started["folder"], started["dtype"], started["max_model_len"]) == ("/tmp/served", "float32", 64)
    assert (started["gpu_memory_utilization"], started["max_num_seqs"]) == (0.45, 8)
    assert (started["logprobs_mode"], started["enable_chunked_prefill"]) == ("raw_logits", False)
    assert not LAUNCHED.keys() & started["environment"].keys()


def test_vllm_inside_of_one_of_several_processes_is_refused(launched, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.32.0")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    with pytest.raises(UserError, match="does not go with torchrun"):
        VllmEngine(lambda: None, None, ModelLimits((), None))


def test_what_is_started_for_a_training_never_hears_an_interrupt():
    """Nor what that starts; here it is heard again afterwards."""
    code = (
        "import signal, subprocess, sys\n"
        "heard = []\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "print(len(heard), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
    )
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"

    def said(program):
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said(code) == "1 False\n"
    with deaf_to_interrupts():
        assert said(code) == said(nested) == "0 True\n"
    assert said(code) == "1 False\n"


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux alone holds processes")
@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_vllm_has_started_ends_with_its_training_however_that_ends(ending):
    code = (
        "import os, signal, subprocess, sys\n"
        "from ladder_cli.generate.vllm_processes import end_with_this_process\n"
        "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "end_with_this_process([started.pid])\n"
        "print(started.pid, flush=True)\n"
        "sys.stdin.read()\n" + ending
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        held = os.pidfd_open(int(process.stdout.readline()))
        process.stdin.close()
        process.wait()
    ended, *_ = select.select([held], [], [], 120)
    os.close(held)
    assert ended
