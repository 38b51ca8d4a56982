"""Loading a backbone as a trunk, of whatever kind."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import torch

from ladder_cli.config.choices import Quantization, Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.config.trunk import StreamingConfig
from ladder_cli.trunk.base import Trunk
from ladder_cli.trunk.compact import make_lean
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.partial import CannotBePartial, PartialTrunk, load_upper
from ladder_cli.trunk.sharded import ShardedTrunk
from ladder_cli.trunk.streamed import StreamedTrunk, open_streamed, over_files


class TrunkKind(StrEnum):
    """Where the layers are."""

    LIVE = "live"  # all of them on the computing device
    SHARDED = "sharded"  # over several processes
    HOST = "host"  # in page-locked memory of the host, streamed to a GPU
    DISK = "disk"  # in files, streamed


# Where layers are while they do not compute -> the kind of trunk; `auto` is settled before.
KINDS: dict[Residency, TrunkKind] = {
    Residency.RESIDENT: TrunkKind.LIVE,
    Residency.HOST: TrunkKind.HOST,
    Residency.DISK: TrunkKind.DISK,
}


def _live(model: ModelConfig, device: torch.device, streaming: StreamingConfig) -> LiveTrunk:
    return LiveTrunk(load_backbone(model, device), home_of(model), model.revision)


def _sharded(model: ModelConfig, device: torch.device, streaming: StreamingConfig) -> ShardedTrunk:
    return _SHARDED[model.quantization](model, device, streaming)


def _cut_as_loaded(model: ModelConfig, device: torch.device, streaming: StreamingConfig) -> ShardedTrunk:
    return ShardedTrunk(load_backbone(model, device, on_host=True), device, home_of(model), model.revision)


def _cut_from_files(model: ModelConfig, device: torch.device, streaming: StreamingConfig) -> ShardedTrunk:
    backbone, files, _ = over_files(model, device, _place(streaming))
    make_lean(backbone, model, device)
    return ShardedTrunk(backbone, device, home_of(model), model.revision, files)


# bitsandbytes would quantise each layer as it is loaded, whole in every process.
_SHARDED: dict[Quantization, Callable[[ModelConfig, torch.device, StreamingConfig], ShardedTrunk]] = {
    Quantization.NONE: _cut_as_loaded,
    Quantization.INT8: _cut_from_files,
    Quantization.NF4: _cut_from_files,
}


def _host(model: ModelConfig, device: torch.device, streaming: StreamingConfig) -> StreamedTrunk:
    return _streamed(model, device, streaming, Residency.HOST)


def _disk(model: ModelConfig, device: torch.device, streaming: StreamingConfig) -> StreamedTrunk:
    return _streamed(model, device, streaming, Residency.DISK)


def _streamed(
    model: ModelConfig, device: torch.device, streaming: StreamingConfig, residency: Residency
) -> StreamedTrunk:
    return open_streamed(model, device, residency, streaming.window, _place(streaming), home_of(model))


def _place(streaming: StreamingConfig) -> Path | None:
    return None if streaming.layer_files is None else Path(streaming.layer_files)


TRUNKS: dict[TrunkKind, Callable[[ModelConfig, torch.device, StreamingConfig], Trunk]] = {
    TrunkKind.LIVE: _live,
    TrunkKind.SHARDED: _sharded,
    TrunkKind.HOST: _host,
    TrunkKind.DISK: _disk,
}


def open_trunk(
    model: ModelConfig,
    device: torch.device,
    kind: TrunkKind = TrunkKind.LIVE,
    streaming: StreamingConfig | None = None,
) -> Trunk:
    """Load a backbone, frozen.

    Args:
        model: what to load.
        device: where it will compute.
        kind: where its layers will be.
        streaming: of a streamed one, its window and its files.

    Raises:
        UserError: if it cannot be read, or is no decoder-only model of the known shape.
    """
    return TRUNKS[kind](model, device, streaming or StreamingConfig())


def open_upper(
    model: ModelConfig,
    device: torch.device,
    kept: int,
    kind: TrunkKind = TrunkKind.LIVE,
    streaming: StreamingConfig | None = None,
) -> Trunk:
    """Load the last `kept` layers of a backbone, for whoever reads the others out of a cache; all of them where they
    cannot be told apart, or are needed after all: as `open_trunk` does, which has the other arguments.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        upper = load_upper(model, device, kept)
    except CannotBePartial:
        return open_trunk(model, device, kind, streaming)
    return PartialTrunk(upper, home_of(model), model.revision, lambda: open_trunk(model, device, kind, streaming))


def home_of(model: ModelConfig) -> str:
    """Where an adapter says that its backbone can be found again: the hub, or a local folder given in its place."""
    return model.hub_id if model.path is None and model.hub_id else model.location
