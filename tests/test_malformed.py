"""Malformed input of every kind: one line that says what is wrong, exit status 2, and nothing is damaged."""

import subprocess
import sys

import pytest

from tests.malformed import Case, complaint, folders, make_runs, options, rows, tokenizers

CASES = [*options.CASES, *rows.CASES, *folders.CASES, *tokenizers.CASES]
# `make faults` takes all of them; here every third one of each kind.
SOME = [case for cases in (options.CASES, rows.CASES, folders.CASES, tokenizers.CASES) for case in cases[::3]]
# The rest goes through the same error boundary in this process: starting one costs seconds.
BY_PROCESS = [rows.CASES[0], folders.CASES[0]]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("whole"))


def test_there_are_more_than_two_hundred_of_them():
    assert len({case.name for case in CASES}) == len(CASES) > 200


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
def test_malformed_input_is_one_line_and_exit_status_2(case: Case, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complaint(case, tmp_path, runs) is None


@pytest.mark.parametrize("case", BY_PROCESS, ids=lambda case: case.name)
def test_the_command_itself_says_the_same(case: Case, runs, tmp_path):
    command = [sys.executable, "-m", f"ladder_cli.{case.command}", *case.arguments(tmp_path, runs)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
