"""What streaming costs, before a weight is read: bytes, memory, speed, and where `auto` puts the layers."""

import pytest
import torch

from ladder_cli.config.choices import Residency
from ladder_cli.config.compose import composed
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.plan import streaming
from ladder_cli.plan.memory import WEIGHTS
from ladder_cli.plan.preflight import CUDA_ALLOWANCE, preflight
from ladder_cli.plan.streamed_layers import WINDOW
from ladder_cli.plan.streaming import Speeds, Transfer, settled_residency, speeds_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LAYERS, LAYER = 6, 4 * 393_920  # of the embedded model: bytes of a layer in float32


def config(*words: str) -> TrainConfig:
    return composed("train", TrainConfig, list(words))


def transfer(tokens: int = 1000, moved: int = 10**9, speeds: Speeds | None = None) -> Transfer:
    """A pass of 10^6 FLOPs a token, a step of three times that."""
    speeds = speeds or Speeds(flops=1e9, bytes=1e9)
    return Transfer(Residency.DISK, moved, 2, tokens, 1e6, 3e6, speeds)


def test_moving_hides_behind_a_pass_that_is_long_enough():
    # A second of moving; a pass of 1000 tokens takes a second too, and the rest of the step two.
    assert transfer().hidden_from == 1000
    assert transfer().tokens_per_second == pytest.approx(1000 / 3)
    assert transfer().share_of_resident == 1.0
    short = transfer(tokens=100)
    assert short.tokens_per_second == pytest.approx(100 / (1.0 + 0.2))
    assert short.share_of_resident == pytest.approx(0.3 / 1.2)
    assert short.as_dict()["moved_bytes_per_step"] == 2 * 10**9
    assert "1.0 GB a pass x 2 a step from files at 1.0 GB/s" in short.line()


def test_without_speeds_only_bytes_are_told():
    unknown = Transfer(Residency.HOST, 10**9, 1, 100, 1e6, 3e6, None)
    assert unknown.hidden_from is unknown.tokens_per_second is unknown.share_of_resident is None
    assert unknown.line().endswith("give hardware.tflops and hardware.host_gb_s for a prediction of its speed")


def test_speeds_are_those_that_are_said_and_else_measured():
    said = config("hardware.tflops=2", "hardware.host_gb_s=20", "hardware.disk_gb_s=3").hardware
    assert speeds_of(said, CPU, Residency.DISK) == Speeds(2e12, 3e9)
    assert speeds_of(said, CUDA, Residency.HOST) == Speeds(2e12, 20e9)
    measured = speeds_of(config("hardware=cpu").hardware, CPU, Residency.DISK)
    assert measured is not None
    assert 1e8 < measured.flops < 1e15
    assert 1e7 < measured.bytes < 1e13


@pytest.mark.parametrize(
    ("method", "moved", "there"),
    [
        ("ladder", LAYERS, 2),
        ("branch", 4, 2),  # copies of the last two; the backbone's own are not run
        ("suffix", 3, 2),  # the upper half learns, and stays
    ],
)
def test_a_window_of_layers_is_counted_in_place_of_all(method, moved, there):
    words = (f"method={method}", "model.dtype=float32", "data.max_length=32", "train.micro_batch_size=1")
    streamed = preflight(config(*words), CPU, residency=Residency.DISK).prediction
    resident = preflight(config(*words), CPU).prediction
    assert streamed.moved == moved * LAYER
    assert streamed.parts[WINDOW] == there * LAYER
    kept = LAYERS - moved if method == "suffix" else 0
    assert resident.parts[WEIGHTS] - streamed.parts[WEIGHTS] == (LAYERS - kept) * LAYER
    assert resident.moved == 0


def test_auto_streams_where_a_step_fits_no_other_way():
    small = ("method=ladder", "data.max_length=32", "train.micro_batch_size=1", "trunk.residency=auto")
    tight = preflight(config(*small), CPU, residency=Residency.DISK).prediction.total + 2 * 10**6
    assert settled_residency(config(*small), CPU) is Residency.RESIDENT
    assert settled_residency(config(*small, f"hardware.memory_gb={tight / 1e9}"), CPU) is Residency.DISK
    on_a_card = ("hardware=rtx-12gb", "model=llama-3.1-70b", "method=xladder", "trunk.residency=auto")
    assert settled_residency(config(*on_a_card, "data.max_length=64"), CUDA) in (Residency.HOST, Residency.DISK)
    assert settled_residency(config("method=qlora", "trunk.residency=auto"), CPU) is Residency.RESIDENT


def test_auto_counts_a_locked_copy_for_every_process_of_the_machine(monkeypatch):
    small = ("data.max_length=32", "train.micro_batch_size=1", "trunk.residency=auto")
    host = preflight(config(*small), CUDA, residency=Residency.HOST).prediction
    room = f"hardware.memory_gb={(host.total + CUDA_ALLOWANCE + 10**5) / 1e9}"
    monkeypatch.setattr(streaming, "_free_host_memory", lambda: 2 * host.host)
    assert settled_residency(config(*small, room), CUDA) is Residency.HOST
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert settled_residency(config(*small, room), CUDA) is Residency.DISK


def test_what_cannot_be_streamed_is_refused_before_anything_is_read():
    for words in (("method=qlora",), ("method=ladder", "method.init=pruned_fisher")):
        with pytest.raises(UserError, match=r"sends gradients through the whole backbone .* trunk\.residency=resident"):
            settled_residency(config(*words, "trunk.residency=disk"), CPU)
    with pytest.raises(UserError, match=r"trunk\.residency=host is for GPUs"):
        settled_residency(config("trunk.residency=host"), CPU)


def test_a_refusal_names_streaming():
    words = ("hardware=rtx-12gb", "model=llama-3.1-70b", "method=xladder", "data.max_length=64")
    plan = preflight(config(*words), CUDA)
    assert not plan.fits
    assert "trunk.residency=disk" in [setting for setting, _ in plan.remedies]
    with pytest.raises(UserError, match=r"it would fit with .*trunk\.residency=disk"):
        plan.refuse()
