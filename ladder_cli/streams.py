"""Standard output and error that outlast whoever reads them. Imports no torch.

A run of days must not end because a pipe was closed, a terminal went away or cannot show a character: what can no
longer be printed is dropped, and the work goes on.
"""

import codecs
import contextlib
import errno
import io
import logging
import os
import sys
import unicodedata
import warnings
from typing import Any

# The reader has gone: a closed pipe, a terminal that was hung up.
_READER_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET, errno.ESHUTDOWN)
_STAND_INS = str.maketrans(
    {
        **dict.fromkeys("─━═╌┄╴╶", "-"),
        **dict.fromkeys("│┃║╎┆", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╞╡╪", "+"),
        **{"●": "o", "▶": ">", "→": ">", "»": "[", "«": "]", "·": ".", "±": "~"},
        **{"…": "~", "≤": "<", "≥": ">", "█": "#", "━": "-", "╸": "-", "╺": "-"},
    }
)
_HANDLER = "ladder_cli.readable"
# Joiners of emoji and of Indic and Arabic letters, which move nothing.
_HARMLESS = frozenset("\n\t\u200c\u200d")


def shield_streams() -> None:
    """Make `sys.stdout` and `sys.stderr` of this process fit for a long run; a second call changes nothing."""
    _fill_closed_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Python found the descriptor closed at its start.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (lives as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=_HANDLER)
            setattr(sys, name, LastingStream(stream, name))


def printable(text: str) -> str:
    r"""A text from elsewhere, for a terminal: what the terminal would obey is shown and not sent.

    Control characters (among them the escape that begins colours, titles, clipboard writes and answers to the shell),
    marks that turn the direction of writing, and lone surrogates become `\x1b`, `\u202e`. New lines and tabs stay.
    """
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _HARMLESS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def quiet_libraries(downloads: bool) -> None:
    """Keep the console for what this toolkit says itself; to be called before torch and Transformers are imported.

    Args:
        downloads: a model may have to be downloaded, so that progress bars stay.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not downloads:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # It says at import which kernels it lacks, and prints a line per int8 product.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")


class LastingStream(io.TextIOBase):
    """A text stream whose writes never fail. Once one did, the rest goes to /dev/null."""

    def __init__(self, stream: io.TextIOWrapper, name: str) -> None:
        """`name`: `stdout` or `stderr`, for the line that says why nothing more is printed."""
        self._stream, self._name = stream, name
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write what can be written; returns the length of `text`."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered, if anyone still reads."""
        self._try(self._stream.flush)

    def _try(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            self._lose(error)
            # What was still buffered goes to /dev/null now, so that the interpreter's last flush finds nothing to do.
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def _lose(self, error: OSError) -> None:
        first, self.lost = self.lost is None, error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if first and error.errno not in _READER_GONE and self._name != "stderr":
            print(f"warning: {self._name} cannot be written ({error.strerror}): going on without it", file=sys.stderr)

    def isatty(self) -> bool:
        """Whether a person looks on."""
        return self.lost is None and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor below."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream below."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How characters are treated that the encoding does not have."""
        return self._stream.errors

    @property
    def buffer(self) -> Any:
        """The bytes below, for who writes bytes."""
        return self._stream.buffer

    @property
    def name(self) -> Any:
        """Of the stream below."""
        return self._stream.name


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode what an encoding does not have: odd bytes of file names as they are, our own signs by look-alikes, and
    anything else as a question mark.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    parts = []
    for character in text:
        if 0xDC80 <= ord(character) <= 0xDCFF:
            parts.append(bytes([ord(character) - 0xDC00]))
        else:
            stand_in = character.translate(_STAND_INS)
            parts.append(stand_in.encode("ascii") if stand_in.isascii() else b"?")
    return b"".join(parts), error.end


codecs.register_error(_HANDLER, _readable)


def _fill_closed_descriptors() -> None:
    """Open /dev/null wherever 0, 1 or 2 is closed: the next file opened would get that number, and stray output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
