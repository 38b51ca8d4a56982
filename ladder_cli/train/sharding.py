"""Whether the processes hold the backbone's layers together: asked for by an option, or by accelerate's launcher."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console

from ladder_cli.config.schema import TrainConfig
from ladder_cli.ranks import processes

_LAUNCHER = "ACCELERATE_USE_FSDP"


@contextlib.contextmanager
def sharding_settled(config: TrainConfig, console: Console) -> Iterator[TrainConfig]:
    """The config with `hardware.shard_backbone` as it will be done.

    accelerate's own FSDP would shard the trained part too; within the block its variable is not in the environment.
    """
    launcher = os.environ.get(_LAUNCHER)
    from_launcher = (launcher or "false").lower() in ("true", "1", "yes", "on", "y", "t")
    wanted = config.hardware.shard_backbone or from_launcher
    if wanted and processes() == 1:
        console.print("one process has nobody to share the backbone's layers with: it holds them all", soft_wrap=True)
        wanted = False
    if wanted and from_launcher:
        console.print(
            "the launcher asks for FSDP: the frozen layers are shared out (hardware.shard_backbone=true), what is "
            "trained stays whole, and the launcher's other FSDP settings do not count",
            soft_wrap=True,
        )
    if launcher is not None:
        del os.environ[_LAUNCHER]
    try:
        yield replace(config, hardware=replace(config.hardware, shard_backbone=wanted))
    finally:
        if launcher is not None:
            os.environ[_LAUNCHER] = launcher
