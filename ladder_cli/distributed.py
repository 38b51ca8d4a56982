"""Several processes that train one model together (torchrun, accelerate launch): who goes first, who decides."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ladder_cli.config.ranks import processes
from ladder_cli.errors import UserError

_OTHERWISE = "launch with torchrun, and let hardware.shard_backbone=true or model.quantization=nf4 make a backbone fit"
# Training takes the first of them over before it comes here.
_REFUSED = {
    "FSDP": "in an evaluation each process holds the whole backbone. Launch with torchrun or accelerate's MULTI_GPU, "
    "and let model.quantization=nf4 make a large one fit",
    "DEEPSPEED": f"an adapter is not gathered from its shards; {_OTHERWISE}",
    "MEGATRON_LM": f"an adapter is not gathered from its shards; {_OTHERWISE}",
}
# For one process to wait for another: a shard of an evaluation may take days. The launcher ends all when one dies.
_PATIENCE = timedelta(days=7)


def join(device: torch.device) -> None:
    """Meet the other processes, if there are any: gloo on a CPU, nccl on GPUs.

    Raises:
        UserError: if the launcher was told to shard the model in a way that is not ours (`train.sharding`).
    """
    for name, reason in _REFUSED.items():
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise UserError(f"{name} is not supported: {reason}.")
    if processes() > 1:
        PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)


def wait_for_everyone() -> None:
    """Go on when all processes have come this far."""
    if processes() > 1:
        PartialState().wait_for_everyone()


def decided_by_main(value: Any) -> Any:
    """The value that process 0 has, in all processes."""
    if processes() == 1:
        return value
    values = [value]
    broadcast_object_list(values, from_process=0)
    return values[0]


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Process 0 does what is inside before the others do, who then find it done (a cache, say)."""
    if processes() == 1:
        yield
        return
    with PartialState().main_process_first():
        yield
