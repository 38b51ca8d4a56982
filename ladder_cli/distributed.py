"""Several processes that train one model together (torchrun, accelerate launch): who goes first, who decides."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, distributed

from ladder_cli.errors import UserError
from ladder_cli.ranks import process_index, process_index_here, processes

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


def from_first_here(value: Any) -> Any:
    """The value that the first process of each machine has, in all processes of that machine. All have to call it."""
    if processes() == 1:
        return value
    values: list[Any] = [None] * processes()
    distributed.all_gather_object(values, value)
    # Launchers number the processes of a machine one after the other.
    return values[process_index() - process_index_here()]


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Process 0 does what is inside before the others do, who then find it done (a cache, say)."""
    if processes() == 1:
        yield
        return
    with PartialState().main_process_first():
        yield


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in each of them and in the place of `values`."""
    if processes() > 1:
        distributed.all_reduce(values)
    return values


def summed_numbers(values: list[int], device: torch.device) -> list[int]:
    """The sums over all processes, which exchange them on `device`."""
    return values if processes() == 1 else summed(torch.tensor(values, device=device)).tolist()


def highest(value: int, device: torch.device) -> int:
    """The highest of the values that the processes have; they exchange them on `device`."""
    if processes() == 1:
        return value
    found = torch.tensor(value, device=device)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return int(found.item())


def from_each(value: float, device: torch.device) -> list[float]:
    """The value of each process, in order; they exchange them on `device`."""
    if processes() == 1:
        return [value]
    values = torch.zeros(processes(), dtype=torch.float64, device=device)
    values[process_index()] = value
    return summed(values).tolist()


def start_alike(tensors: Iterable[Tensor]) -> None:
    """Give all processes the values of process 0."""
    if processes() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), src=0)


def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum the gradients of all processes, in one exchange for each type of number.

    Which parameters have a gradient depends on the model alone, so that all processes send as much.
    """
    if processes() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():
        flat = summed(torch.cat([gradient.flatten() for gradient in gradients]))
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))
