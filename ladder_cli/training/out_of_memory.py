"""Out of memory, told as the setting to lower."""

import contextlib
import gc
from collections.abc import Iterator

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
def out_of_memory_advised(micro_batch: int, max_length: int, loss_chunk: int, quantization: str) -> Iterator[None]:
    """Turn it into one line that names what to lower, the cheapest first.

    Raises:
        UserError: in place of whatever was raised.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        ways = []
        if micro_batch > 1:
            ways.append(f"train.micro_batch_size={micro_batch // 2} (now {micro_batch}; the global batch stays)")
        ways.append(f"data.max_length (now {max_length})")
        ways.append(f"train.loss_chunk (now {loss_chunk})")
        if quantization != "nf4":
            ways.append(f"model.quantization=nf4 (now {quantization})")
        ways.append("or recompute: method.recompute=true for ladders, method.gradient_checkpointing=true for qlora")
        raise UserError(
            f"out of memory. What to lower, the first one first: {'; '.join(ways)}. dry_run=true shows the plan "
            "without reading a weight."
        ) from error
