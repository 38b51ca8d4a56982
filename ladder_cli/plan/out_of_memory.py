"""Out of memory, told as the setting to lower."""

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch

from ladder_cli.errors import UserError

# What torch's allocators say on a CPU, where they raise a plain RuntimeError.
_CPU_WORDS = ("can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the device or of the host, has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(word in str(error).lower() for word in _CPU_WORDS)


def free_memory() -> None:
    """Give back what a failed attempt held, so that a smaller one finds it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def out_of_memory_advised(settings: Callable[[], list[str]]) -> Iterator[None]:
    """Turn it into one line that names what to change.

    Args:
        settings: gives what takes less memory, the cheapest first; asked only if it is needed.

    Raises:
        UserError: in place of whatever was raised.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory. What takes less, the cheapest first: {'; '.join(settings())}. dry_run=true shows the plan "
            "without reading a weight."
        ) from error
