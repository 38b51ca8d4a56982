"""The tutorial, command for command as it stands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ladder_cli

PAGE = Path(ladder_cli.__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"<!-- (run|needs a GPU) -->\n```(python|bash)\n(.*?)```", re.DOTALL)
COMMANDS = {
    "ladder-train": "ladder_cli.cli.train",
    "ladder-eval": "ladder_cli.cli.evaluate",
    "ladder-chat": "ladder_cli.cli.chat",
    "ladder-export": "ladder_cli.cli.export",
}


def steps() -> list[list[str]]:
    """The arguments for Python, in the order of the page."""
    found = []
    for how, language, text in BLOCK.findall(PAGE.read_text()):
        if how != "run":
            continue
        if language == "python":
            found.append(["-c", text])
            continue
        for line in text.splitlines():
            command, *words = shlex.split(line)
            found.append(["-m", COMMANDS[command], *words])
    return found


def test_every_block_says_whether_it_is_run():
    text = PAGE.read_text()
    assert text.count("```python") + text.count("```bash") == len(BLOCK.findall(text))
    assert len(steps()) == 10


@pytest.mark.slow
def test_the_tutorial_runs_from_the_file_to_the_served_model(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for arguments in steps():
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, (arguments[:4], done.stdout[-2000:], done.stderr[-2000:])
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert (tmp_path / "served" / "model.safetensors").is_file()
