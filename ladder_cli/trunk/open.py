"""Loading a backbone as a trunk, of whatever kind."""

from collections.abc import Callable
from enum import StrEnum

import torch

from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.base import Trunk
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import load_backbone
from ladder_cli.trunk.partial import CannotBePartial, PartialTrunk, load_upper
from ladder_cli.trunk.sharded import ShardedTrunk


class TrunkKind(StrEnum):
    """Where the layers are."""

    LIVE = "live"  # all of them on the computing device
    SHARDED = "sharded"  # over several processes


def _live(model: ModelConfig, device: torch.device) -> LiveTrunk:
    return LiveTrunk(load_backbone(model, device), home_of(model), model.revision)


def _sharded(model: ModelConfig, device: torch.device) -> ShardedTrunk:
    return ShardedTrunk(load_backbone(model, device, on_host=True), device, home_of(model), model.revision)


TRUNKS: dict[TrunkKind, Callable[[ModelConfig, torch.device], Trunk]] = {
    TrunkKind.LIVE: _live,
    TrunkKind.SHARDED: _sharded,
}


def open_trunk(model: ModelConfig, device: torch.device, kind: TrunkKind = TrunkKind.LIVE) -> Trunk:
    """Load a backbone, frozen.

    Args:
        model: what to load.
        device: where it will compute.
        kind: where its layers will be.

    Raises:
        UserError: if it cannot be read, or is no decoder-only model of the known shape.
    """
    return TRUNKS[kind](model, device)


def open_upper(model: ModelConfig, device: torch.device, kept: int) -> Trunk:
    """Load the last `kept` layers of a backbone, for whoever reads the others out of a cache; all of them where they
    cannot be told apart.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        upper = load_upper(model, device, kept)
    except CannotBePartial:
        return _live(model, device)
    return PartialTrunk(upper, home_of(model), model.revision, lambda: _live(model, device))


def home_of(model: ModelConfig) -> str:
    """Where an adapter says that its backbone can be found again: the hub, or a local folder given in its place."""
    return model.hub_id if model.path is None and model.hub_id else model.location
