"""Ladder and xLadder, and all that differs from them in its parts alone: a side network beside the backbone.

With `method.suffix_layers` it ends below the backbone's last layers, which learn by LoRA (`nn.suffix`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from ladder_cli.config.choices import Init
from ladder_cli.config.methods import LADDER_CHOICES, LadderMethodConfig
from ladder_cli.methods.base import Cost, Method
from ladder_cli.methods.proof import prove
from ladder_cli.methods.suffix import cost_of_suffix, half
from ladder_cli.nn.combine import reads_final
from ladder_cli.nn.connections import Connections, connect, draw
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.loss import DEFAULT_CHUNK
from ladder_cli.nn.runtime import Runtime
from ladder_cli.trunk.base import Batch, Trunk, TrunkCost

# What a suffix's adapters are made of.
_OF_SUFFIX = ("rank", "alpha", "dropout")


class LadderMethod:
    """A side network that reads taps (paper section 3)."""

    def __init__(self, config: LadderMethodConfig) -> None:
        self.config = config

    def attach(
        self,
        trunk: Trunk,
        sample: Iterable[Batch] = (),
        loss_chunk: int = DEFAULT_CHUNK,
        proven: bool = True,
        reference: bool = False,
    ) -> LadderModel:
        """A side network beside the backbone."""
        examples = islice(sample, self.config.init_samples)
        runtime = self._runtime(loss_chunk, reference)
        model = LadderModel.on(sample=examples, runtime=runtime, **self._ladder(trunk))
        trunk.settle(model)
        if proven:
            prove(model, untrained=True)
        return model

    def shape(self, trunk: Trunk, reference: bool = False) -> LadderModel:
        """A side network of random weights."""
        return LadderModel.shaped(runtime=self._runtime(reference=reference), **self._ladder(trunk))

    def _ladder(self, trunk: Trunk) -> dict[str, Any]:
        """What `LadderModel.on` and `LadderModel.shaped` are told."""
        config = self.config
        return {
            "backbone": trunk,
            "connections": self._connections(trunk),
            "reduction": config.reduction,
            "name": trunk.name,
            "backbone_revision": trunk.revision,
            "projection_rank": config.projection_rank,
            "suffix_layers": self._suffix(len(trunk.parts.layers)),
            **({name: getattr(config, name) for name in _OF_SUFFIX} if config.suffix_layers != 0 else {}),
            **{name: getattr(config, name) for name in LADDER_CHOICES},
        }

    def _runtime(self, loss_chunk: int = DEFAULT_CHUNK, reference: bool = False) -> Runtime:
        config = self.config
        return Runtime(config.recompute, config.int8_taps, loss_chunk, config.gradient_checkpointing, reference)

    def _connections(self, trunk: Trunk) -> Connections:
        config = self.config
        layers = len(trunk.parts.layers)
        return connect(layers, config.connections, config.layers, config.delta, self._suffix(layers))

    def _suffix(self, layers: int) -> int:
        """Of L layers, those that learn, counted from the last."""
        asked = self.config.suffix_layers
        return half(layers) if asked is None else asked

    def layers_needed(self, layers: int) -> int:
        """Those of the suffix, or all where first weights are read off them."""
        return self._suffix(layers) if self.config.init is Init.UNIFORM else layers

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the side network's weights."""
        assert isinstance(model, LadderModel)
        model.load_adapter_weights(folder)

    def picture(self, trunk: Trunk) -> list[str]:
        """The connections."""
        return draw(self._connections(trunk), reads_final(self.config.combine))

    def cost(self, trunk: TrunkCost, reference: bool = False) -> Cost:
        """2N + 6n: the backbone runs forward only (paper section 3), and no further than it is read; above that, a
        suffix costs what it costs without a side network. The reference of a ladder without one is of the same pass,
        and takes the head's product once more.
        """
        k = self._suffix(trunk.layers)
        if k:
            return cost_of_suffix(trunk, k, self.config.gradient_checkpointing, reference)
        again = 2 * trunk.head * reference
        return Cost(paper=2 * trunk.parameters + again, actual=trunk.flops_per_token + again)

    def cheaper(self) -> Iterator[tuple[str, Method]]:
        """Side layers recomputed, taps in eight bits, the suffix recomputed."""
        config = self.config
        if not config.recompute:
            config = replace(config, recompute=True)
            yield "method.recompute=true", LadderMethod(config)
        if not config.int8_taps:
            config = replace(config, int8_taps=True)
            yield "method.int8_taps=true", LadderMethod(config)
        if config.suffix_layers != 0 and not config.gradient_checkpointing:
            config = replace(config, gradient_checkpointing=True)
            yield "method.gradient_checkpointing=true", LadderMethod(config)
