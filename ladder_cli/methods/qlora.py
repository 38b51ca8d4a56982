"""QLoRA, the baseline: low-rank adapters on every linear layer of a (quantised) backbone."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from peft import PeftModel
from torch import nn

from ladder_cli.config.methods import QLoRAMethodConfig
from ladder_cli.methods import lora as qlora
from ladder_cli.methods import peft_adapter
from ladder_cli.methods.base import Cost, Method
from ladder_cli.methods.proof import prove
from ladder_cli.nn.loss import DEFAULT_CHUNK
from ladder_cli.nn.runtime import Runtime
from ladder_cli.trunk.base import Batch, Trunk, TrunkCost


class QLoRAMethod:
    """Gradients pass through the whole backbone (Dettmers et al., 2023)."""

    def __init__(self, config: QLoRAMethodConfig) -> None:
        self.config = config

    def attach(
        self,
        trunk: Trunk,
        sample: Iterable[Batch] = (),
        loss_chunk: int = DEFAULT_CHUNK,
        proven: bool = True,
        reference: bool = False,
    ) -> qlora.LowRankModel:
        """Low-rank adapters that start as no change at all."""
        model = self._with_adapters(trunk, loss_chunk, reference)
        trunk.settle(model)
        if proven:
            prove(model, untrained=True)
        return model

    def shape(self, trunk: Trunk, reference: bool = False) -> qlora.LowRankModel:
        """The same: no first weight is read off the backbone."""
        return self._with_adapters(trunk, DEFAULT_CHUNK, reference)

    def _with_adapters(self, trunk: Trunk, loss_chunk: int, reference: bool) -> qlora.LowRankModel:
        config = self.config
        model = qlora.attach(
            trunk,
            config.rank,
            config.alpha,
            config.dropout,
            config.gradient_checkpointing,
            self._last_layers(len(trunk.parts.layers)),
            Runtime(loss_chunk=loss_chunk, reference=reference),
        )
        peft_config = model.peft_config["default"]
        peft_config.base_model_name_or_path = trunk.name
        peft_config.revision = trunk.revision
        return model

    def _last_layers(self, layers: int) -> int | None:
        """Of L layers, those that get adapters, counted from the last; None: all, and gradients everywhere."""
        return None

    def layers_needed(self, layers: int) -> int:
        """Those with adapters."""
        adapted = self._last_layers(layers)
        return layers if adapted is None else adapted

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the low-rank matrices."""
        assert isinstance(model, PeftModel)
        peft_adapter.load_weights(model, folder)

    def picture(self, trunk: Trunk) -> list[str]:
        """Every linear layer alike: nothing to see."""
        return []

    def cost(self, trunk: TrunkCost, reference: bool = False) -> Cost:
        """The paper counts 6(N + n); a frozen weight needs no weight gradient, so 4N + 6n is what is done, and
        6N + 6n with gradient checkpointing. The reference is a second pass, 2N more.
        """
        actual, again = 6 if self.config.gradient_checkpointing else 4, 2 if reference else 0
        return Cost(paper=(6 + again) * trunk.parameters, actual=(actual + again) * trunk.parameters)

    def cheaper(self) -> Iterator[tuple[str, Method]]:
        """Gradient checkpointing."""
        if not self.config.gradient_checkpointing:
            setting = "method.gradient_checkpointing=true"
            yield setting, type(self)(replace(self.config, gradient_checkpointing=True))
