"""Names for what a training step allocates, so that a count of its memory can say what takes it.

The models mark their passages; whoever counts (`plan.memory`) asks which passage is under way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

BACKBONE = "backbone"  # the frozen forward pass; what outlives it are taps
LOSS = "loss"  # logits of one chunk, and the gradient that the loss hands back
ACTIVATIONS = "activations"  # everything else of the forward pass

_current: ContextVar[str] = ContextVar("memory_part", default=ACTIVATIONS)


@contextmanager
def memory_part(name: str) -> Iterator[None]:
    """What is allocated within belongs to this part."""
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


def current_part() -> str:
    """The part of the passage that is under way."""
    return _current.get()
