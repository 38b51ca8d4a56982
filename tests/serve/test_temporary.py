"""The folder that vLLM reads is gone with what owns it, and with the process, however that ends."""

import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ladder_cli.serve.temporary import TemporaryHome

PATIENCE_SECONDS = 120


def test_it_goes_with_its_owner():
    home = TemporaryHome()
    path = Path(home.path)
    (path / "model").mkdir()
    (path / "model" / "weights").write_text("many")
    del home
    gc.collect()
    assert not path.exists()


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)", "os.kill(os.getpid(), signal.SIGTERM)",
                                    "os.killpg(0, signal.SIGKILL)"])  # fmt: skip
def test_it_goes_with_its_process(ending, tmp_path):
    code = (
        "import os, pathlib, signal, sys\n"
        "from ladder_cli.serve.temporary import TemporaryHome\n"
        "home = TemporaryHome()\n"
        "(pathlib.Path(home.path) / 'weights').write_text('many')\n"
        "print(home.path, flush=True)\n"
        "sys.stdin.read()\n" + ending
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": ""},
    ) as process:  # fmt: skip
        path = Path(process.stdout.readline().strip())
        assert path.parent == tmp_path
        assert path.is_dir()
        process.stdin.close()
        process.wait()
    assert process.returncode in (0, 3, -signal.SIGTERM, -signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.exists()
