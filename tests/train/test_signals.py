"""Signals that reach a run while it trains."""

import os
import signal

import pytest

from ladder_cli.train.monitor import MetricsLog
from tests.malformed import run_command

OPTIONS = (
    *("hardware=cpu", "data.train_samples=8", "data.validation_samples=2", "data.cache=false", "train.max_steps=4"),
    *("train.global_batch_size=2", "train.micro_batch_size=2", "train.evaluations=1", "train.logging_steps=1"),
)


@pytest.fixture
def heeded():
    """Signals as a command finds them, and as this process had them afterwards."""
    numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def train_and_receive(number, folder, monkeypatch):
    """A run that gets a signal as soon as its first step is logged."""
    log = MetricsLog.log

    def log_and_receive(self, line):
        log(self, line)
        if line["step"] == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(MetricsLog, "log", log_and_receive)
    return run_command("train", [f"output_dir={folder}", *OPTIONS])


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM], ids=lambda number: number.name)
def test_what_would_end_the_process_saves_and_the_run_is_continued(number, heeded, tmp_path, monkeypatch):
    signal.signal(number, signal.SIG_DFL)
    status, _, errors = train_and_receive(number, tmp_path / "run", monkeypatch)
    assert status == 130
    assert "saved at step" in errors
    assert len(list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))) == 1


def test_a_hangup_that_nohup_ignores_is_ignored(heeded, tmp_path, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    status, _, errors = train_and_receive(signal.SIGHUP, tmp_path / "run", monkeypatch)
    assert status == 0, errors
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_signal_that_a_launcher_handles_is_left_to_it(heeded, tmp_path, monkeypatch):
    received = []
    signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    status, _, errors = train_and_receive(signal.SIGUSR1, tmp_path / "run", monkeypatch)
    assert status == 0, errors
    assert received == [signal.SIGUSR1]
