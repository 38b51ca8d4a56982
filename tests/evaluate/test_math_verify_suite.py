"""Math-Verify's own tests pass in this environment: the reader behind older verdicts, and the peer of ours, is whole.

Their sources are not copied here. `MATH_VERIFY_TESTS=DIR` names them; without it pip brings the source distribution of
the installed version, which carries them; without an index the test is skipped and says so.
"""

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

# As pytest numbers them in the source distribution of 0.9.0.
TESTS = 291


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """The folder `tests` of their sources."""
    if "MATH_VERIFY_TESTS" in os.environ:
        folder = Path(os.environ["MATH_VERIFY_TESTS"])
        assert list(folder.glob("test_*.py")), f"MATH_VERIFY_TESTS={folder} holds no tests"
        return folder
    folder = tmp_path_factory.mktemp("math_verify")
    wanted = f"math-verify=={version('math-verify')}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "-d",
        str(folder),
    ]
    fetched = subprocess.run(
        [*command, "--retries", "1", wanted], capture_output=True, text=True, timeout=300, check=False
    )
    if fetched.returncode != 0:
        reason = fetched.stderr.strip().splitlines()[-1:] or ["no message"]
        pytest.skip(f"pip cannot bring the sources of {wanted} ({reason[0]}): give MATH_VERIFY_TESTS=DIR")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    (tests,) = folder.glob("*/tests")
    return tests


def test_math_verifys_own_suite_passes_in_this_environment(suite):
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore", "tests"]
    # Some of them import each other as `tests.*`.
    result = subprocess.run(
        command,
        cwd=suite.parent,
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    summary = result.stdout.strip().splitlines()[-1]
    assert result.returncode == 0, result.stdout[-3000:]
    passed = re.search(r"(\d+) passed", summary)
    assert passed
    assert "failed" not in summary
    if version("math-verify") == "0.9.0" and "MATH_VERIFY_TESTS" not in os.environ:
        assert int(passed[1]) == TESTS


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("10", "\\boxed{10\\%}"), ("\\frac{1}{4}", "\\boxed{25\\%}"), ("(10, 20)", "\\boxed{(10\\%, 20\\%)}")],
)
def test_math_verify_reads_per_cent_which_it_cannot_with_an_older_parser_runtime(gold, answer):
    """With antlr 4.9.3 its parser lacks a token, raises on every `%`, and the answer is silently wrong."""
    from math_verify import parse, verify

    assert verify(parse(f"\\boxed{{{gold}}}"), parse(answer))
