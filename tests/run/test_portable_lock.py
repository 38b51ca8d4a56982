"""The lock of systems without POSIX locks: filelock, tried here since no such system is."""

import subprocess
import sys

import pytest

from ladder_cli.errors import UserError
from ladder_cli.run.claim import LOCK_FILE, _claimed_portably

HOLD = (
    "import sys; from pathlib import Path; from ladder_cli.run.claim import _claimed_portably\n"
    "with _claimed_portably(Path(sys.argv[1]), False):\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


def test_one_process_at_a_time_and_nothing_is_left(tmp_path):
    folder = tmp_path / "new" / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is being written by another process"), _claimed_portably(folder, False):
            pass
        other.stdin.close()
    with _claimed_portably(folder, True):
        assert (folder / LOCK_FILE).exists()
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_what_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made a folder"), _claimed_portably(tmp_path / "file" / "run", False):
        pass
