"""A hub that is not there, is silent, or answers."""

import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ladder_cli import hub


@pytest.fixture(autouse=True)
def _as_online(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub.answers.cache_clear()
    hub._silent.clear()


class Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(503)

    def log_message(self, *args):
        pass


def test_whoever_answers_at_all_is_there():
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub.answers(f"http://127.0.0.1:{server.server_port}")


def test_nobody_listening_is_found_out_at_once():
    began = time.monotonic()
    assert not hub.answers("http://127.0.0.1:9")
    assert time.monotonic() - began < 2


def test_silence_is_waited_for_a_few_seconds_and_asked_once(monkeypatch):
    monkeypatch.setattr(hub, "_PATIENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert not hub.answers(address)
        assert not hub.answers(address)
        assert time.monotonic() - began < 3


def test_an_address_that_is_none_does_not_answer():
    assert not hub.answers("nonsense")


def test_the_environment_is_obeyed_without_asking(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "answers", lambda address: pytest.fail("it was asked"))
    hub.settle_offline()
    assert "the hub is not asked (HF_HUB_OFFLINE=1)" in hub.missing_model("m", "a/b")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_model_out_of_reach_is_one_line_within_seconds_and_loads_no_torch(command, tmp_path):
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "empty")}
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"ladder_cli.{command}", "model=qwen2.5-math-1.5b"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert result.returncode == 2
    assert lines == [
        "error: model=qwen2.5-math-1.5b: 'Qwen/Qwen2.5-Math-1.5B' is not in the cache of this machine, and "
        "http://127.0.0.1:9 does not answer: give its folder as model.path=DIR, or fetch it where there is a network "
        "(hf download Qwen/Qwen2.5-Math-1.5B)."
    ]
    assert not [line for line in result.stderr.splitlines() if line.endswith("| torch")]
    assert not list(tmp_path.iterdir())
