"""A chat in a terminal: lines in, answers out as they are generated. Ctrl-C stops an answer and not the chat.

Answers are other people's text as far as a terminal is concerned: what it would obey is shown instead of sent
(`streams.printable`).
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.table import Table
from rich.text import Text

from ladder_cli.console import make_console
from ladder_cli.errors import Interrupted, RunFailed, UserError
from ladder_cli.serve.conversation import Answer, Conversation
from ladder_cli.streams import printable

_PROMPT, _MORE = "> ", ". "
HELP = """  /reset              forget what was said
  /system TEXT        a system message from now on; /system alone takes it away
  /adapter            who answers; /adapter on, off, or the name of another one
  /compare [TEXT]     the answers of backbone and adapter side by side (without a text: to the last question)
  /help               this list
  /quit               end the chat, as Ctrl-D does
A line that begins with // is a question that begins with /. A line that ends with \\ goes on in the next one.
Ctrl-C stops an answer; what was said of it is kept."""


class Stop:
    """Whether the answer that is being generated shall end."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """For who generates."""
        return self.asked

    @contextmanager
    def heeding_ctrl_c(self) -> Iterator[None]:
        """Within the block Ctrl-C asks for the end of the answer, and a second one does not wait for it."""
        self.asked = False

        def stop(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class Terminal:
    """The loop of a chat."""

    def __init__(self, conversation: Conversation, name: str) -> None:
        """`name`: of the backbone, for the first line."""
        self._conversation, self._name = conversation, name
        self._console = make_console()
        self._stop = Stop()
        self._last = ""
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._system,
            "/adapter": self._adapter,
            "/compare": self._compare,
            "/help": lambda rest: self._say(HELP),
        }

    def run(self) -> None:
        """Chat until /quit or the end of input.

        Raises:
            Interrupted: after SIGTERM or SIGHUP.
        """
        _end_on_signals()
        _edit_lines()
        self._say(f"{printable(self._name)}, {self._who()}. /help lists the commands; Ctrl-D ends the chat.")
        while True:
            try:
                line = self._read()
            except KeyboardInterrupt:
                self._say("\n(Ctrl-D or /quit ends the chat)")
                continue
            if line is None or line.strip() == "/quit":
                break
            if line.strip():
                self._obey_or_ask(line)

    def _read(self) -> str | None:
        """A line, with those that it is continued by; None at the end of input."""
        lines: list[str] = []
        while True:
            try:
                line = input(_MORE if lines else _PROMPT)
            except EOFError:
                if sys.stdin.isatty():
                    self._say("")
                return "\n".join(lines) if lines else None
            except UnicodeDecodeError:
                self._say("that line is not in the terminal's encoding: nothing was asked.")
                return ""
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _obey_or_ask(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        try:
            if word.startswith("//"):
                self._ask(line.strip()[1:])
            elif word.startswith("/"):
                command = self._commands.get(word)
                if command is None:
                    raise UserError(f"there is no command {printable(word)}: /help lists them.")
                command(rest.strip())
            else:
                self._ask(line)
        except (UserError, RunFailed) as error:
            # The chat goes on.
            self._say(printable(str(error)))
        except KeyboardInterrupt:
            self._say("\n(stopped; nothing of it is kept)")

    def _ask(self, question: str) -> None:
        self._last = question
        with self._stop.heeding_ctrl_c():
            answer = self._conversation.ask(question, show, self._stop)
        self._say(_ending(answer))

    def _reset(self, rest: str) -> None:
        self._conversation.reset()
        self._say("(nothing was said)")

    def _system(self, rest: str) -> None:
        self._conversation.system = rest or None
        self._say("(system message set)" if rest else "(no system message)")

    def _adapter(self, rest: str) -> None:
        switches = {"on": True, "off": False}
        if rest in switches:
            self._conversation.switch(switches[rest])
        elif rest:
            self._conversation.choose(rest)
            self._conversation.load()
        names = ", ".join(map(printable, self._conversation.voices))
        self._say(f"({self._who()}; there are: {names})")

    def _compare(self, rest: str) -> None:
        question = rest or self._last
        if not question:
            raise UserError("there is no question to compare on yet: /compare TEXT.")
        with self._stop.heeding_ctrl_c():
            answers = self._conversation.compare(question, self._stop)
        table = Table(expand=True, pad_edge=False)
        for name in answers:
            table.add_column(Text(printable(name)), ratio=1, overflow="fold")
        cells = [f"{printable(each.completion.text)}\n{_ending(each)}".strip("\n") for each in answers.values()]
        table.add_row(*map(Text, cells))
        self._console.print(table)

    def _who(self) -> str:
        conversation = self._conversation
        if conversation.active.trained is None:
            return "the backbone alone"
        name = printable(conversation.active.name)
        return f"with {name}" if conversation.adapter_on else f"the backbone without {name}"

    def _say(self, text: str) -> None:
        print(text, flush=True)


def show(piece: str) -> None:
    """Print a piece of an answer."""
    sys.stdout.write(printable(piece))
    sys.stdout.flush()


def _ending(answer: Answer) -> str:
    """What stands behind an answer, on a line of its own where it did not end by itself."""
    if answer.completion.stop_reason is None:
        return "\n(stopped)"
    return "\n(cut at decode.max_new_tokens)" if answer.cut else ""


def _end_on_signals() -> None:
    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted("the chat is over")

    for number in filter(None, (signal.SIGTERM, getattr(signal, "SIGHUP", None))):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _edit_lines() -> None:
    """Editing and history of lines, where there is a terminal and Python was built with readline."""
    if sys.stdin.isatty():
        try:
            import readline  # noqa: F401  (importing it is what switches it on)
        except ImportError:
            return
