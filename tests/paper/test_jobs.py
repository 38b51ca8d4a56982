"""Jobs run in parallel, each with its log, and stop together."""

import re
import sys

import pytest

from ladder_cli.errors import Interrupted
from paper import jobs
from paper.jobs import run_jobs


def python(code):
    return [sys.executable, "-c", code]


def command(code, log, name="a command"):
    return lambda slot: [] if slot.run(name, python(code), log) else [name]


def test_two_jobs_run_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 2)
    # Each waits for the other's file: one after the other they would never end.
    meet = "import pathlib, time; pathlib.Path({0!r}).touch()\nwhile not pathlib.Path({1!r}).exists(): time.sleep(0.01)"
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert run_jobs([[command(meet.format(a, b), tmp_path / "1")], [command(meet.format(b, a), tmp_path / "2")]]) == []


def test_what_jobs_print_goes_to_logs_and_they_share_the_cores(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = "import os; print(os.environ['OMP_NUM_THREADS'], 'threads')"
    fails = "import sys; print('broken', file=sys.stderr); sys.exit(1)"
    one, two = tmp_path / "1" / "log.txt", tmp_path / "2" / "log.txt"
    failed = run_jobs([[command(threads, one)], [command(fails, two, "bad"), command(threads, two)]])
    assert failed == ["bad"]
    assert one.read_text() == "\n$ a command\n3 threads\n"
    assert two.read_text() == "\n$ bad\nbroken\n\n$ a command\n3 threads\n"
    printed = capfd.readouterr()
    assert re.search(r"exit status 1 after \d+ s: bad \(printed to", printed.out)
    assert "broken" not in printed.err


def test_one_job_prints_what_its_commands_print(tmp_path, capfd):
    assert run_jobs([[command("print('hello')", tmp_path / "log.txt")], []]) == []
    assert "hello" in capfd.readouterr().out
    assert not (tmp_path / "log.txt").exists()


def test_an_interrupted_command_stops_every_job(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 2)
    log, begun = tmp_path / "log.txt", tmp_path / "begun"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(begun)!r}).exists(): time.sleep(0.01)\ntime.sleep(3)"
    stops = f"import pathlib, sys; pathlib.Path({str(begun)!r}).touch(); sys.exit(130)"
    with pytest.raises(Interrupted, match="the same command continues"):
        run_jobs([[command(waits, log), command("", log, "never begun")], [command(stops, tmp_path / "other.txt")]])
    assert "never begun" not in log.read_text()
