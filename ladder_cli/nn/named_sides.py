"""Several named side networks beside one backbone, one of them active, under the method names that peft users know."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.nn import adapter
from ladder_cli.nn.ladder_config import LadderConfig, read_ladder_config
from ladder_cli.nn.runtime import Runtime
from ladder_cli.nn.side_network import SideNetwork
from ladder_cli.nn.suffix import PREFIX, Suffix
from ladder_cli.trunk.base import WHOLE, TapRequest
from ladder_cli.trunk.loading import identity
from ladder_cli.trunk.parts import Anatomy

DEFAULT_ADAPTER = "default"


class NamedSides:
    """The part of a ladder that keeps its side networks; `backbone`, `suffix` and `_anatomy` are the ladder's."""

    config: PreTrainedConfig
    backbone: PreTrainedModel
    suffix: Suffix | None
    _anatomy: Anatomy
    training: bool

    def _start_sides(self, config: LadderConfig, runtime: Runtime) -> None:
        """Begin with one untrained side network."""
        self._disabled = False
        self._runtime = runtime
        self._configs: dict[str, LadderConfig] = {}
        self.sides = nn.ModuleDict()
        self.add_adapter(DEFAULT_ADAPTER, config)

    @property
    def side(self) -> SideNetwork:
        """The active side network."""
        return cast(SideNetwork, self.sides[self.active_adapter])

    @property
    def request(self) -> TapRequest:
        """What the active side network reads of the backbone; with adapters disabled, its last state alone.

        The last state is read in any case where it is handed out as the reference.
        """
        if self._disabled:
            return WHOLE
        taps = frozenset(self.side.connections.taps)
        if self.suffix is not None:
            return self.suffix.request(taps)
        return TapRequest(taps, bool(self.side.combine.reads_final) or self._runtime.reference)

    @property
    def runtime(self) -> Runtime:
        """How all side networks run, those that are added later included."""
        return self._runtime

    @runtime.setter
    def runtime(self, runtime: Runtime) -> None:
        self._runtime = runtime
        for side in self.sides.values():
            cast(SideNetwork, side).runtime = runtime

    def add_adapter(self, name: str, config: LadderConfig) -> None:
        """Put one more, untrained side network beside the backbone and make it the active one.

        Raises:
            UserError: if the name is taken, or one of the ladders has a suffix, which changes the backbone's layers.
        """
        if name in self._configs:
            raise UserError(f"there is an adapter named '{name}' already: choose another name.")
        if self._configs and (config.suffix_layers or self.suffix is not None):
            raise UserError(
                "a ladder with a suffix (method.suffix_layers) changes how the backbone's last layers compute, so that "
                "it stands on its backbone alone: load the other one on a backbone of its own."
            )
        # Masks are made for one attention kernel, and both networks share them.
        config._attn_implementation = self.backbone.config._attn_implementation
        with self._anatomy.device:
            self.sides[name] = SideNetwork(self._anatomy, config, self._runtime)
        self._configs[name] = config
        self.set_adapter(name)

    def load_adapter(self, folder: str | Path | adapter.AdapterFolder, name: str) -> None:
        """Load a saved side network beside the ones that are there, under a name, and make it the active one.

        Raises:
            UserError: if the name is taken, or the folder holds no ladder of this backbone; then the one that was
                active stays so.
        """
        folder = adapter.AdapterFolder.open(folder)
        config = read_ladder_config(folder)
        adapter.check_backbone(folder, identity(config.backbone_config()), identity(self.backbone.config))
        active = self.active_adapter
        self.add_adapter(name, config)
        try:
            self.load_adapter_weights(folder)
        except BaseException:
            self.set_adapter(active)
            self.delete_adapter(name)
            raise
        self.sides[name].train(self.training)

    def delete_adapter(self, name: str) -> None:
        """Take a side network away that is not the active one.

        Raises:
            UserError: if there is none of that name, or it is the active one.
        """
        self._refuse_unknown(name)
        if name == self.active_adapter:
            raise UserError(f"adapter '{name}' is the active one: make another one active, then delete it.")
        del self.sides[name], self._configs[name]

    def set_adapter(self, name: str) -> None:
        """Make the named side network the active one: the one that runs, is trained and is saved.

        Raises:
            UserError: if there is none of that name.
        """
        self._refuse_unknown(name)
        self.active_adapter = name
        self.config = self._configs[name]
        for other, side in self.sides.items():
            side.requires_grad_(other == name)

    def _refuse_unknown(self, name: str) -> None:
        if name not in self._configs:
            raise UserError(f"there is no adapter named '{name}': there are {', '.join(self._configs)}.")

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The bare backbone, within a `with` block."""
        self._disabled, self.config = True, self.backbone.config
        try:
            with self.suffix.off() if self.suffix is not None else nullcontext():
                yield
        finally:
            self._disabled, self.config = False, self._configs[self.active_adapter]

    def merge_and_unload(self, *_: Any, **__: Any) -> None:
        """Where users of peft look for merging.

        Raises:
            UserError: always; a ladder changes no weight of the backbone, so there is nothing to merge into, and a
                branch is merged as it is written.
        """
        if self.config.takes_place_of():
            raise UserError(
                "a branch becomes an ordinary model where it is written: ladder-export run=DIR format=merged output=DIR"
            )
        raise UserError(
            "a ladder cannot be merged: it is a second network beside the backbone, not a change of its weights. "
            "Keep the adapter folder and serve both together."
        )

    def adapter_weights(self) -> dict[str, Tensor]:
        """What the active adapter is on disk: the side network's weights, and those of the suffix behind `suffix.`."""
        weights: dict[str, Tensor] = self.side.state_dict()
        return weights if self.suffix is None else {**weights, **self.suffix.weights()}

    def load_adapter_weights(self, folder: str | Path | adapter.AdapterFolder) -> None:
        """Overwrite the active adapter's weights by those in `folder`, which must fit exactly.

        Raises:
            UserError: if a weight is missing, left over, or of another shape.
        """
        folder = folder if isinstance(folder, adapter.AdapterFolder) else adapter.AdapterFolder.of_checkpoint(folder)
        stored = folder.tensors(self.adapter_weights())
        if self.suffix is not None:
            self.suffix.load(stored)
        self.side.load_state_dict({name: weight for name, weight in stored.items() if not name.startswith(PREFIX)})
