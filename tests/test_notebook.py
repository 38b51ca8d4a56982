"""The notebook, cell by cell as it stands, in a kernel of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ladder_cli

NOTEBOOK = Path(ladder_cli.__file__).parents[1] / "notebooks" / "first_steps.ipynb"
# In a process of its own, which takes the sockets of the kernel with it.
EXECUTE = """
import sys, nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
kernel = AsyncKernelManager(kernel_name="python3")
kernel.kernel_spec.argv[0] = sys.executable
NotebookClient(notebook, km=kernel, timeout=900).execute()
nbformat.write(notebook, "executed.ipynb")
"""


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) == 5
    assert all(not cell.get("outputs") for cell in cells)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("nbclient", "ipykernel")),
    reason="nbclient is not installed",
)
def test_the_notebook_runs(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / ".ipython")}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    executed = json.loads((tmp_path / "executed.ipynb").read_text())
    found = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    given = ["".join(each["data"]["text/plain"]) for each in found if each["output_type"] == "execute_result"]
    assert float(given[0]) > 10, "MB"
    assert "'ladder'" in given[1]
    assert 0 <= float(given[2]) <= 1
    assert (tmp_path / "report.html").stat().st_size > 50_000
