"""Signals that end a run after its step, with a checkpoint."""

import signal
import time
from types import FrameType

import torch

from ladder_cli.distributed import highest
from ladder_cli.ranks import interrupt

# A launcher such as torchrun passes on a Ctrl-C that the terminal has sent to everyone already.
_SAME_SIGNAL_SECONDS = 2.0
# They end a process that does not heed them: a closed terminal, a batch system's notice, a limit on processor time.
# Windows has none of them.
_DEADLY = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name))


class StopOnSignal:
    """Ctrl-C, SIGTERM and whatever else would end the process (a terminal that is closed, the warnings of a batch
    system) end the run after the current step, with a checkpoint; a second signal ends it at once.

    A signal that was ignored before (`nohup`) or that someone else handles (a launcher) is left alone, Ctrl-C and
    SIGTERM excepted. Of several processes, all stop at the same step as soon as one was told to.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0

    def __enter__(self) -> "StopOnSignal":
        heeded = [signal.SIGINT, signal.SIGTERM]
        heeded += [number for number in _DEADLY if signal.getsignal(number) in (signal.SIG_DFL, interrupt)]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and time.monotonic() - self._when > _SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt
        self.received, self._when = number, time.monotonic()

    def requested(self, device: torch.device) -> bool:
        """Whether any process was told to stop; to be asked by all of them after the same step.

        Args:
            device: where the processes exchange numbers.
        """
        told = highest(self.received or 0, device)
        if told:
            self.received = told  # never set back: a signal may arrive in between
        return told != 0
