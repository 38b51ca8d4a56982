"""Standard output that nobody reads any more, or that cannot show what is written."""

import os
import subprocess
import sys

import pytest

PROLOGUE = "import sys, time, os; from ladder_cli.streams import shield_streams; shield_streams(); "


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + code], capture_output=True, timeout=60, check=False, **options
    )


def into_closed_pipe(*command):
    """Exit status and stderr of a command whose standard output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writing)
    return result.returncode, result.stderr.decode()


def test_work_goes_on_when_the_reader_of_a_pipe_has_gone(tmp_path):
    code = f"print('x' * 100_000, flush=True); print('more'); open({str(tmp_path / 'done')!r}, 'w').close()"
    assert into_closed_pipe(sys.executable, "-c", PROLOGUE + code) == (0, "")
    assert (tmp_path / "done").exists()


def test_rich_does_not_end_the_process_when_the_reader_of_a_pipe_has_gone():
    code = "from ladder_cli.console import make_console\nconsole = make_console()\nfor n in range(9): console.print(n)"
    assert into_closed_pipe(sys.executable, "-c", PROLOGUE + "\n" + code) == (0, "")


@pytest.mark.parametrize("module", ["ladder_cli.train", "ladder_cli.evaluate"])
def test_help_into_a_closed_pipe_prints_no_traceback(module):
    assert into_closed_pipe(sys.executable, "-m", module, "--help") == (0, "")


def test_a_process_goes_on_when_its_terminal_has_vanished(tmp_path):
    # The other end of a terminal that is closed makes every write an EIO.
    master, slave = os.openpty()
    code = f"sys.stdin.read(); print('on'); sys.stdout.flush(); open({str(tmp_path / 'done')!r}, 'w').close()"
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + code], stdin=subprocess.PIPE, stdout=slave, stderr=slave
    )
    os.close(slave)
    os.close(master)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "done").exists()


def test_output_that_does_not_fit_the_disk_is_told_once_and_the_work_goes_on():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "wb") as full:
        code = "[print('x', flush=True) for _ in range(3)]"
        result = subprocess.run(
            [sys.executable, "-c", PROLOGUE + code], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert result.returncode == 0
    assert result.stderr.decode().splitlines() == [
        "warning: stdout cannot be written (No space left on device): going on without it"
    ]


def test_what_a_closed_standard_output_left_open_is_no_file_of_ours(tmp_path):
    # Without the fill-in the first file opened is number 1, and everything that libraries print lands in it.
    code = f"file = open({str(tmp_path / 'ours')!r}, 'w'); os.write(1, b'stray'); print('x'); file.close()"
    command = f'"{sys.executable}" -c "$CODE" >&-'
    environment = os.environ | {"CODE": PROLOGUE + code}
    result = subprocess.run(command, shell=True, env=environment, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "ours").read_text() == ""


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
    ids=["PYTHONIOENCODING", "LC_ALL"],
)
def test_an_ascii_terminal_gets_stand_ins(environment):
    result = python(r"print('1 \u25cf\u2500\u25b6 \u00bbn\u00ab \u2588 \u65e5')", env=os.environ | environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"1 o-> [n] # ?\n"


def test_file_names_are_printed_byte_for_byte_and_other_lone_surrogates_are_replaced():
    result = python(r"print(os.fsdecode(b'/x/\xe9'), '\ud83d')", env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"/x/\xe9 ?\n"


def test_paths_are_printed_as_they_are_and_never_as_markup(capsys):
    from ladder_cli.console import make_console

    make_console().print("/runs/[a]/[/b]:smile: [bold]x")
    assert capsys.readouterr().out == "/runs/[a]/[/b]:smile: [bold]x\n"
