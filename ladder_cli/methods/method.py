"""What every method must do, and the one place that maps a method's kind to its code.

A method attaches its trained part to a frozen backbone, hands it out, loads it, and says what it costs. The trainer
knows nothing else of it, and the evaluator needs only `load_adapter`.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from ladder_cli.config.methods import (
    LADDER_CHOICES,
    LadderMethodConfig,
    MethodConfig,
    QLoRAMethodConfig,
    SuffixMethodConfig,
)
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.methods import lora as qlora
from ladder_cli.methods import peft_adapter
from ladder_cli.methods.proof import prove
from ladder_cli.nn import adapter
from ladder_cli.nn.combine import reads_final
from ladder_cli.nn.connections import Connections, connect, draw
from ladder_cli.nn.importance import Batch
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.loss import DEFAULT_CHUNK
from ladder_cli.trunk.parts import anatomy_of


class Method(Protocol):
    """One way of fine-tuning.

    The model it returns gives `model(input_ids, attention_mask, labels, num_items_in_batch).loss`, generates, and
    writes its adapter alone on `save_pretrained`.
    """

    def attach(
        self,
        backbone: PreTrainedModel,
        model: ModelConfig,
        loss_chunk: int = DEFAULT_CHUNK,
        sample: Iterable[Batch] = (),
        proven: bool = True,
    ) -> nn.Module:
        """A model to train; `backbone` belongs to it from now on.

        Args:
            backbone: frozen.
            model: where the backbone came from.
            loss_chunk: counted tokens whose logits may exist at the same time.
            sample: training data, one row a batch, for methods whose first weights depend on it.
            proven: hold the model against `proof.prove`; false where the caller does so later (layers that will be
                shared out are not yet where they compute).

        Raises:
            UserError: if method and architecture do not go together, naming the architecture.
        """
        ...

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the trained part of `model` by a checkpoint's."""
        ...

    def picture(self, backbone: PreTrainedModel) -> list[str]:
        """What `attach` would build over this backbone, drawn in lines for a terminal; empty if there is no shape to
        see.
        """
        ...

    def leaner(self) -> list[tuple[str, MethodConfig]]:
        """Settings of this method that take less memory, as overrides, each with the config that it and those before
        it lead to; in rising order of what they cost.
        """
        ...

    def training_flops_per_parameter(self, layers: int) -> tuple[float, float, int]:
        """FLOPs per token for each backbone parameter, as the paper counts and as really done, and for each
        trained parameter.

        Args:
            layers: L, decoder layers of the backbone.
        """
        ...


class LadderMethod:
    """Ladder and xLadder: they differ in their connections alone."""

    def __init__(self, config: LadderMethodConfig) -> None:
        self.config = config

    def attach(
        self,
        backbone: PreTrainedModel,
        model: ModelConfig,
        loss_chunk: int = DEFAULT_CHUNK,
        sample: Iterable[Batch] = (),
        proven: bool = True,
    ) -> LadderModel:
        """A side network beside the backbone."""
        config = self.config
        ladder = LadderModel.on(
            backbone,
            self._connections(backbone),
            reduction=config.reduction,
            name=model.hub_id if model.path is None and model.hub_id else model.location,
            backbone_revision=model.revision,
            sample=islice(sample, config.init_samples),
            projection_rank=config.projection_rank,
            **{name: getattr(config, name) for name in LADDER_CHOICES},
        )
        ladder.loss_chunk = loss_chunk
        ladder.side.recompute = config.recompute
        ladder.side.int8_taps = config.int8_taps
        if proven:
            prove(ladder, untrained=True)
        return ladder

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the side network's weights."""
        assert isinstance(model, LadderModel)
        model.load_adapter_weights(folder)

    def picture(self, backbone: PreTrainedModel) -> list[str]:
        """The connections."""
        return draw(self._connections(backbone), reads_final(self.config.combine))

    def _connections(self, backbone: PreTrainedModel) -> Connections:
        config = self.config
        return connect(len(anatomy_of(backbone).layers), config.connections, config.layers, config.delta)

    def leaner(self) -> list[tuple[str, MethodConfig]]:
        """Side layers recomputed, taps in eight bits."""
        settings: list[tuple[str, MethodConfig]] = []
        config = self.config
        if not config.recompute:
            config = replace(config, recompute=True)
            settings.append(("method.recompute=true", config))
        if not config.int8_taps:
            config = replace(config, int8_taps=True)
            settings.append(("method.int8_taps=true", config))
        return settings

    def training_flops_per_parameter(self, layers: int) -> tuple[float, float, int]:
        """2N + 6n: the backbone runs forward only (paper section 3)."""
        return 2, 2, 6


class QLoRAMethod:
    """The baseline."""

    def __init__(self, config: QLoRAMethodConfig) -> None:
        self.config = config

    def attach(
        self,
        backbone: PreTrainedModel,
        model: ModelConfig,
        loss_chunk: int = DEFAULT_CHUNK,
        sample: Iterable[Batch] = (),
        proven: bool = True,
    ) -> PeftModel:
        """Low-rank adapters that start as no change at all."""
        config = self.config
        attached = qlora.attach(
            backbone,
            config.rank,
            config.alpha,
            config.dropout,
            config.gradient_checkpointing,
            loss_chunk,
            self._last_layers(backbone.config.num_hidden_layers),
        )
        peft_config = attached.peft_config["default"]
        peft_config.base_model_name_or_path = model.hub_id if model.path is None else model.location
        peft_config.revision = model.revision
        if proven:
            prove(attached, untrained=True)
        return attached

    def _last_layers(self, layers: int) -> int | None:
        """Of L layers, those that get adapters, counted from the last; None: all, and gradients everywhere."""
        return None

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the low-rank matrices."""
        assert isinstance(model, PeftModel)
        peft_adapter.load_weights(model, folder)

    def picture(self, backbone: PreTrainedModel) -> list[str]:
        """Every linear layer alike: nothing to see."""
        return []

    def leaner(self) -> list[tuple[str, MethodConfig]]:
        """Gradient checkpointing."""
        if self.config.gradient_checkpointing:
            return []
        return [("method.gradient_checkpointing=true", replace(self.config, gradient_checkpointing=True))]

    def training_flops_per_parameter(self, layers: int) -> tuple[float, float, int]:
        """The paper counts 6(N + n); a frozen weight needs no weight gradient, so 4N + 6n is what is done, and
        6N + 6n with gradient checkpointing.
        """
        return 6, 6 if self.config.gradient_checkpointing else 4, 6


class SuffixMethod(QLoRAMethod):
    """LoRA on the last k layers: what lies below is only read, as a ladder reads, and can be cached like taps."""

    config: SuffixMethodConfig

    def _last_layers(self, layers: int) -> int:
        k = self.config.layers if self.config.layers is not None else max(1, layers // 2)
        if k > layers:
            raise UserError(f"method.layers={k}, but the backbone has {layers} layers: give at most that many.")
        return k

    def picture(self, backbone: PreTrainedModel) -> list[str]:
        """What is read, and what learns."""
        layers = backbone.config.num_hidden_layers
        read = layers - self._last_layers(layers)
        below = [f"layers 1-{read}: read only, no gradient"] if read else []
        return [*below, f"layers {read + 1}-{layers}: LoRA of rank {self.config.rank}"]

    def training_flops_per_parameter(self, layers: int) -> tuple[float, float, int]:
        """With share = k/L: 2N + 2 share N + 6n, since gradients pass through the last k layers alone; 2 share N more
        where those are recomputed. The paper does not know the method; by its way of counting a backward pass twice
        the forward one it is 2N + 4 share N + 6n.
        """
        share = self._last_layers(layers) / layers
        return 2 + 4 * share, 2 + (4 if self.config.gradient_checkpointing else 2) * share, 6


_METHODS: dict[type[MethodConfig], type] = {
    LadderMethodConfig: LadderMethod,
    QLoRAMethodConfig: QLoRAMethod,
    SuffixMethodConfig: SuffixMethod,
}


def method_for(config: MethodConfig) -> Method:
    """The code of a method's config."""
    method: Method = _METHODS[type(config)](config)
    return method


def load_adapter(folder: str | Path, backbone: PreTrainedModel) -> nn.Module:
    """A trained adapter of whatever method on its loaded backbone, in evaluation mode.

    Raises:
        UserError: if the folder holds no adapter, or one of another backbone, or adapter and architecture do not go
            together.
    """
    model: nn.Module
    if adapter.read_config(folder).get("peft_type") is not None:
        model = peft_adapter.load(folder, backbone)
    else:
        model = LadderModel.from_pretrained(folder, backbone=backbone)
    prove(model, untrained=False)
    return model
