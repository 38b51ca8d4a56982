"""`ladder-chat` from outside: through a real pseudo-terminal, and once for a script."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ladder_cli import finetune
from ladder_cli.streams import printable

CHAT = [sys.executable, "-m", "ladder_cli.cli.chat", "hardware=cpu"]
PATIENCE = 120.0
NASTY = "\x1b]0;red\x07\x9b2J"  # sets the title, rings, clears the screen


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has learned to answer with what a terminal would obey."""
    home = tmp_path_factory.mktemp("chat")
    rows = [{"prompt": f"Say it {number}.", "completion": NASTY} for number in range(40)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return finetune(
        *("method=qlora", "hardware=cpu", "data=jsonl", f"data.path={home / 'rows.jsonl'}", "data.cache=false"),
        *("data.prompt=prompt", "data.completion=completion", "data.validation_samples=4", "train.max_steps=50"),
        *(
            "train.learning_rate=0.01",
            "train.evaluations=1",
            "train.micro_batch_size=16",
            f"output_dir={home / 'nasty'}",
        ),
    ).path


class Session:
    """A program behind a pseudo-terminal."""

    def __init__(self, *words, **options):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*CHAT, *words], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=_take_terminal, **options,
        )  # fmt: skip
        os.close(slave)
        self.screen = ""

    def read(self, seconds):
        """Put on the screen what comes within this time; whether more may come."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.screen += os.read(self.master, 4096).decode(errors="replace").replace("\r\n", "\n")
            except OSError:
                return False
        return True

    def until(self, mark, since=0):
        """Read until the mark stands on the screen; returns where it ends."""
        deadline = time.monotonic() + PATIENCE
        while mark not in self.screen[since:]:
            assert time.monotonic() < deadline, self.screen[-2000:]
            if not self.read(0.2):
                break
        assert mark in self.screen[since:], self.screen[-2000:]
        return self.screen.index(mark, since) + len(mark)

    def press_until(self, key, mark, since):
        """Press a key until the mark stands on the screen, as a person would."""
        self.repeat_until(lambda: self.type(key), mark, since)

    def repeat_until(self, act, mark, since):
        """Do something until the mark stands on the screen.

        CPython loses sight of a signal that comes between a key and the next wait for one (`Modules/readline.c`).
        """
        deadline = time.monotonic() + PATIENCE
        while mark not in self.screen[since:]:
            assert time.monotonic() < deadline, self.screen[-2000:]
            act()
            again = time.monotonic() + 5.0
            while mark not in self.screen[since:] and time.monotonic() < again:
                assert self.read(0.2), self.screen[-2000:]

    def type(self, text):
        os.write(self.master, text.encode())

    def ask(self, text, mark):
        """Type a line and wait for the mark behind it; returns what was put out between."""
        before = len(self.screen)
        self.type(text + "\n")
        end = self.until(mark, before)
        self.until("> ", end)
        return self.screen[before:end]

    def end(self):
        code = self.process.wait(PATIENCE)
        os.close(self.master)
        return code


def _take_terminal():
    import fcntl
    import termios

    # A suite that was started in the background ignores it, and would hand that on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def session(run):
    made = []

    def start(*words):
        made.append(Session(f"run={run}", *words, env=os.environ | {"TERM": "dumb"}))
        made[-1].until("> ")
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_a_chat_through_a_terminal(session):
    chat = session("decode.max_new_tokens=60")
    assert "tiny, with nasty. /help lists the commands" in chat.screen
    answer = chat.ask("Say it 3.", "red")
    assert "\\x1b]0;red" in answer
    chat.until("\\x07\\x9b2J")
    assert not set("\x1b\x07\x9b") & set(chat.screen)
    assert "the backbone without nasty" in chat.ask("/adapter off", "there are: nasty)")
    plain = chat.ask("Compute 1+2 from left to right.", "\n")
    assert "\\x1b" not in plain
    assert "with nasty" in chat.ask("/adapter on", "there are: nasty)")
    chat.ask("/reset", "(nothing was said)")
    compared = chat.ask("/compare Say it 4.", "└")
    assert "backbone" in compared
    assert "nasty" in compared
    assert "\\x1b]0;red" in compared
    assert "/compare" in chat.ask("/help", "what was said of it is kept.")
    assert "no command /what" in chat.ask("/what", "/help lists them.")
    chat.ask("/system Be kind.", "(system message set)")
    chat.type("/quit\n")
    assert chat.end() == 0


def test_ctrl_c_stops_an_answer_and_not_the_chat(session):
    # Sampling so wild that no end comes soon.
    chat = session("decode.max_new_tokens=4000", "decode.temperature=9.0")
    before = len(chat.screen)
    chat.type("Go on for ever.\n")
    deadline = time.monotonic() + PATIENCE
    while len(chat.screen) < before + 120:
        assert time.monotonic() < deadline
        assert chat.read(0.2)
    chat.type("\x03")
    chat.until("(stopped)", before)
    chat.until("> ", chat.screen.index("(stopped)", before))
    chat.ask("/adapter", "there are: nasty)")
    # At the prompt it clears the line.
    before = len(chat.screen)
    chat.type("half a line")
    chat.until("half a line", before)
    chat.press_until("\x03", "ends the chat)", before)
    chat.ask("/reset", "(nothing was said)")
    chat.type("\x04")
    assert chat.end() == 0


def test_a_signal_ends_the_chat_in_order(session):
    chat = session()
    chat.repeat_until(lambda: chat.process.send_signal(signal.SIGTERM), "interrupted: the chat is over", 0)
    assert chat.end() == 130


def test_a_script_gets_the_text_as_it_is(run):
    def once(*words, **options):
        return subprocess.run([*CHAT, f"run={run}", *words], capture_output=True, check=False, **options)

    done = once("prompt=Say it 3.")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == NASTY + "\n"
    assert once("prompt=-", input=b"Say it 3.\n").stdout == done.stdout
    cut = once("prompt=Say it 3.", "decode.max_new_tokens=2")
    assert cut.returncode == 0
    assert cut.stderr.decode() == "warning: the answer is cut at decode.max_new_tokens\n"


def test_one_answer_is_of_one_run(run, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(run, tmp_path / name)
    command = [*CHAT, f"run={tmp_path}/*", "prompt=Say it 3."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: prompt= is answered once, and run={tmp_path}/* names 2 runs: name one of them.\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run=nowhere"], "run=nowhere names no run directory"),
        (["prompt= "], "prompt= is empty"),
        (["prompt=what is ${x}?"], "holds ${, which an option's value reads as a reference; give it on standard input"),
        (["seed=3"], "seed is given, but greedy decoding does not read it"),
        (["allow_other_backbone=true"], "allow_other_backbone is given, but nothing reads it without run=DIR"),
        (["decode.batch_size=3"], "decode.batch_size is given, but this command does not read it"),
        (["-m"], "a chat is no sweep"),
        (["model=nothing"], "no option 'model/nothing'"),
    ],
)
def test_a_mistake_is_one_line(words, line, tmp_path):
    done = subprocess.run([*CHAT, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("prompt", ["a, b", "1e3", "[x]", "key=value", 'it\'s "so" \\ {y}', "null", "é 漢 🙂"])
def test_a_question_is_taken_letter_by_letter(prompt):
    from ladder_cli.config.compose import composed
    from ladder_cli.config.quoting import quoted_words
    from ladder_cli.config.using import ChatConfig

    words = quoted_words([f"prompt={prompt}"], ChatConfig, sweep=False)
    assert composed("chat", ChatConfig, words).prompt == prompt


def test_what_a_terminal_obeys_is_shown():
    assert printable("plain é 漢 🙂\u200d\tand\nlines\u00a0\u3000") == "plain é 漢 🙂\u200d\tand\nlines\u00a0\u3000"
    assert printable("\x1b[2J\r\x00\x7f\x9b\u202e\u2028\ud800\U000e0001") == (
        "\\x1b[2J\\x0d\\x00\\x7f\\x9b\\u202e\\u2028\\ud800\\U000e0001"
    )
