"""Several processes (torchrun) that answer with vLLM, each with an engine of its own on a card of its own.

vLLM starts processes itself, which read a launcher's variables as theirs. So a start is shielded from them. What is
served is written once on each machine.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ladder_cli.distributed import from_first_here
from ladder_cli.errors import UserError
from ladder_cli.ranks import process_index_here, processes, processes_here

# Of torchrun and accelerate. vLLM's CPU platform writes LOCAL_WORLD_SIZE itself; torch waits for a store of the
# launcher where TORCHELASTIC_USE_AGENT_STORE stands.
_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE"),
)
_LAUNCHERS_OWN = ("TORCHELASTIC_", "ACCELERATE_")
_CARDS, _BINDING, _START = "CUDA_VISIBLE_DEVICES", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_WORKER_MULTIPROC_METHOD"
# Of a machine's memory that the engines on its CPU take together; vLLM's own default counts on one.
_CPU_MEMORY = 0.9


@dataclass(frozen=True)
class ServedModel:
    """A folder that vLLM can read.

    Attributes:
        folder: model folder or hub repository.
        dtype: type that it computes in.
        owner: keeps a temporary folder alive.
    """

    folder: str
    dtype: torch.dtype
    owner: object = None


def refuse_in_process() -> None:
    """Refuse vLLM inside of one of several processes, whose process group it would take for its own.

    Raises:
        UserError: if the environment asks for that.
    """
    if processes() > 1 and os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") == "0":
        raise UserError(
            "VLLM_ENABLE_V1_MULTIPROCESSING=0 does not go with torchrun: vLLM would compute inside of a process that "
            "has a process group already. Unset it, or start ladder-eval without torchrun."
        )


def options_of_one(device: torch.device | None) -> dict[str, Any]:
    """What `LLM` is told, so that several engines find room on one machine's CPU; to be asked outside `as_if_alone`."""
    on_cpu = device is None or device.type == "cpu"
    return {"gpu_memory_utilization": _CPU_MEMORY / processes_here()} if on_cpu and processes_here() > 1 else {}


@contextmanager
def as_if_alone(device: torch.device | None) -> Iterator[None]:
    """The environment of a single process that sees one card, for what is started inside; the old one afterwards.

    Raises:
        UserError: if there are more processes than cards.
    """
    if processes() == 1:
        yield
        return
    set_here = {_START: "spawn"}  # a fork would share the process group's sockets
    if device is not None and device.type == "cuda":
        set_here[_CARDS] = _card(device)
    elif _BINDING not in os.environ:
        # Each engine would bind its threads to the same cores.
        set_here[_BINDING] = "nobind"
    hidden = {*_LAUNCHER, *(name for name in os.environ if name.startswith(_LAUNCHERS_OWN))}
    before = {name: os.environ.get(name) for name in {*hidden, *set_here}}
    try:
        for name in hidden:
            os.environ.pop(name, None)
        os.environ.update(set_here)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _card(device: torch.device) -> str:
    """The card of this process, by the name that CUDA_VISIBLE_DEVICES has for it."""
    number = process_index_here() if device.index is None else device.index
    given = os.environ.get(_CARDS)
    names = given.split(",") if given else [str(each) for each in range(torch.cuda.device_count())]
    if number >= len(names):
        raise UserError(
            f"engine=vllm takes a card for each process, and process {number} of this machine finds {len(names)}: "
            f"start torchrun with --nproc-per-node {len(names)}."
        )
    return names[number].strip()


def served_by_first(make: Callable[[], ServedModel]) -> ServedModel:
    """What the first process of each machine makes, for all of its processes; all have to call this."""
    own = make() if process_index_here() == 0 else None
    folder, dtype = from_first_here(None if own is None else (own.folder, own.dtype))
    return own or ServedModel(folder, dtype)
