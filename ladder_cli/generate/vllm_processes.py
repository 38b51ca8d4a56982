"""Several processes (torchrun) that answer with vLLM, each with an engine of its own on a card of its own.

vLLM starts processes itself, which read a launcher's variables as theirs. So a start is shielded from them. What is
served is written once on each machine.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
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
# Reads until the process at the other end of the pipe has closed it, or is no more. A number that another process has
# got in the meantime is not mistaken: what is held are the processes themselves.
_KEEPER = """
import contextlib, os, signal, sys
held = [os.pidfd_open(int(number)) for number in sys.argv[1:]]
sys.stdin.buffer.read()
for process in held:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
"""
_LOOK_SECONDS = 0.5  # between two looks whether vLLM's process is there
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


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started within never hear SIGINT, which a terminal sends to all that belong to a command.

    The mask of blocked signals is what a process inherits whatever handlers it sets. Here it comes back afterwards, and
    with it what came in the meantime.
    """
    resource_tracker.ensure_running()  # starting it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_this_process(numbers: Sequence[int]) -> None:
    """Have processes of vLLM end when this one has, however it ends: killed, it cannot tell them, and they would wait
    for it for ever, with their share of the card.

    Linux alone can hold a process by more than its number; elsewhere nothing is done.
    """
    if not hasattr(os, "pidfd_open") or not numbers:
        return
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _KEEPER, *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _KEEPERS.append(keeper)  # its pipe stays open as long as this process is


_KEEPERS: list[subprocess.Popen[bytes]] = []


@contextmanager
def told_of_its_end(llm: Any) -> Iterator[None]:
    """Within a `with` block vLLM's process may end, and whoever waits for it is told.

    vLLM 0.32 notes that its process has ended, but leaves those who wait for its answer waiting.

    Raises:
        EngineDeadError: vLLM's own.
    """
    from vllm.v1.engine.core_client import SyncMPClient
    from vllm.v1.engine.exceptions import EngineDeadError

    client: Any = llm.llm_engine.engine_core
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            if client.resources.engine_dead:
                client.outputs_queue.put_nowait(EngineDeadError())
                for waiting in list(client.utility_results.values()):
                    if not waiting.done():
                        waiting.set_exception(EngineDeadError())
                return

    if not isinstance(client, SyncMPClient):  # it computes in this process
        yield
        return
    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def engine_processes(llm: Any) -> list[int]:
    """Numbers of the processes that vLLM has started for its engine; they end what they have started themselves."""
    manager = getattr(getattr(llm.llm_engine.engine_core, "resources", None), "engine_manager", None)
    return [process.pid for process in getattr(manager, "processes", ())]


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
