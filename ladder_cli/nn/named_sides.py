"""Several named side networks beside one backbone, one of them active, under the method names that peft users know."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.nn import adapter
from ladder_cli.nn.ladder_config import LadderConfig, read_ladder_config
from ladder_cli.nn.side_network import SideNetwork
from ladder_cli.trunk.live_taps import LiveTaps, TapSource
from ladder_cli.trunk.loading import identity
from ladder_cli.trunk.parts import Anatomy

DEFAULT_ADAPTER = "default"


class NamedSides:
    """The part of a ladder that keeps its side networks; `backbone` and `_anatomy` are the ladder's."""

    config: PreTrainedConfig
    backbone: PreTrainedModel
    _anatomy: Anatomy

    def _start_sides(self, config: LadderConfig) -> None:
        """Begin with one untrained side network."""
        self._disabled = False
        self._configs: dict[str, LadderConfig] = {}
        self._tap_sources: dict[str, TapSource] = {}
        self.sides = nn.ModuleDict()
        self.add_adapter(DEFAULT_ADAPTER, config)

    @property
    def side(self) -> SideNetwork:
        """The active side network."""
        return cast(SideNetwork, self.sides[self.active_adapter])

    @property
    def tap_source(self) -> TapSource:
        """Where the active side network's taps come from."""
        return self._tap_sources[self.active_adapter]

    @tap_source.setter
    def tap_source(self, source: TapSource) -> None:
        self._tap_sources[self.active_adapter] = source

    def add_adapter(self, name: str, config: LadderConfig) -> None:
        """Put one more, untrained side network beside the backbone and make it the active one.

        Raises:
            UserError: if the name is taken.
        """
        if name in self._configs:
            raise UserError(f"there is an adapter named '{name}' already: choose another name.")
        # Masks are made for one attention kernel, and both networks share them.
        config._attn_implementation = self.backbone.config._attn_implementation
        with self._anatomy.device:
            self.sides[name] = side = SideNetwork(self._anatomy, config)
        self._configs[name] = config
        self._tap_sources[name] = LiveTaps(self._anatomy, side.connections.taps, bool(side.combine.reads_final))
        self.set_adapter(name)

    def load_adapter(self, folder: str | Path, name: str) -> None:
        """Load a saved side network beside the ones that are there, under a name, and make it the active one.

        Raises:
            UserError: if the name is taken, or the folder holds no ladder of this backbone.
        """
        config = read_ladder_config(folder)
        adapter.check_backbone(folder, identity(config.backbone_config()), identity(self.backbone.config))
        self.add_adapter(name, config)
        self.load_adapter_weights(folder)

    def set_adapter(self, name: str) -> None:
        """Make the named side network the active one: the one that runs, is trained and is saved.

        Raises:
            UserError: if there is none of that name.
        """
        if name not in self._configs:
            raise UserError(f"there is no adapter named '{name}': there are {', '.join(self._configs)}.")
        self.active_adapter = name
        self.config = self._configs[name]
        for other, side in self.sides.items():
            side.requires_grad_(other == name)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The bare backbone, within a `with` block."""
        self._disabled, self.config = True, self.backbone.config
        try:
            yield
        finally:
            self._disabled, self.config = False, self._configs[self.active_adapter]

    def merge_and_unload(self, *_: Any, **__: Any) -> None:
        """Where users of peft look for merging.

        Raises:
            UserError: always; a ladder changes no weight of the backbone, so there is nothing to merge into.
        """
        raise UserError(
            "a ladder cannot be merged: it is a second network beside the backbone, not a change of its weights. "
            "Keep the adapter folder and serve both together."
        )

    def load_adapter_weights(self, folder: str | Path) -> None:
        """Overwrite the active side network's weights by those in `folder`, which must fit exactly.

        Raises:
            UserError: if a weight is missing, left over, or of another shape.
        """
        adapter.load_into(self.side, folder)
