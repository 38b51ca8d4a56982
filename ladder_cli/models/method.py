"""What every method must do, and the one place that maps a method's kind to its code.

A method attaches its trained part to a frozen backbone, hands it out, loads it, and says what it costs. The trainer
knows nothing else of it, and the evaluator needs only `load_adapter`.
"""

from pathlib import Path
from typing import Protocol

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from ladder_cli.config import LadderMethodConfig, MethodConfig, ModelConfig, QLoRAMethodConfig
from ladder_cli.models import adapter, qlora
from ladder_cli.models.connections import connect
from ladder_cli.models.ladder import LadderModel
from ladder_cli.models.loss import DEFAULT_CHUNK


class Method(Protocol):
    """One way of fine-tuning.

    The model it returns gives `model(input_ids, attention_mask, labels, num_items_in_batch).loss`, generates, and
    writes its adapter alone on `save_pretrained`.
    """

    def attach(self, backbone: PreTrainedModel, model: ModelConfig, loss_chunk: int = DEFAULT_CHUNK) -> nn.Module:
        """A model to train; `backbone` belongs to it from now on."""
        ...

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the trained part of `model` by a checkpoint's."""
        ...

    def training_flops_per_parameter(self) -> tuple[int, int, int]:
        """FLOPs per token for each backbone parameter, as the paper counts and as really done, and for each
        trained parameter.
        """
        ...


class LadderMethod:
    """Ladder and xLadder: they differ in their connections alone."""

    def __init__(self, config: LadderMethodConfig) -> None:
        self.config = config

    def attach(self, backbone: PreTrainedModel, model: ModelConfig, loss_chunk: int = DEFAULT_CHUNK) -> LadderModel:
        """A side network that starts as no change at all."""
        config = self.config
        connections = connect(backbone.config.num_hidden_layers, config.connections, config.layers, config.delta)
        ladder = LadderModel.on(
            backbone,
            connections,
            reduction=config.reduction,
            name=model.hub_id if model.path is None and model.hub_id else model.location,
            backbone_revision=model.revision,
            gate=config.gate,
            combine=config.combine,
            init=config.init,
        )
        ladder.loss_chunk = loss_chunk
        return ladder

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the side network's weights."""
        assert isinstance(model, LadderModel)
        model.load_adapter_weights(folder)

    def training_flops_per_parameter(self) -> tuple[int, int, int]:
        """2N + 6n: the backbone runs forward only (paper section 3)."""
        return 2, 2, 6


class QLoRAMethod:
    """The baseline."""

    def __init__(self, config: QLoRAMethodConfig) -> None:
        self.config = config

    def attach(self, backbone: PreTrainedModel, model: ModelConfig, loss_chunk: int = DEFAULT_CHUNK) -> PeftModel:
        """Low-rank adapters that start as no change at all."""
        config = self.config
        attached = qlora.attach(
            backbone, config.rank, config.alpha, config.dropout, config.gradient_checkpointing, loss_chunk
        )
        peft_config = attached.peft_config["default"]
        peft_config.base_model_name_or_path = model.hub_id if model.path is None else model.location
        peft_config.revision = model.revision
        return attached

    def load_weights(self, model: nn.Module, folder: Path) -> None:
        """Overwrite the low-rank matrices."""
        assert isinstance(model, PeftModel)
        set_peft_model_state_dict(model, load_file(folder / adapter.WEIGHTS_FILE))

    def training_flops_per_parameter(self) -> tuple[int, int, int]:
        """The paper counts 6(N + n); a frozen weight needs no weight gradient, so 4N + 6n is what is done, and
        6N + 6n with gradient checkpointing.
        """
        return 6, 6 if self.config.gradient_checkpointing else 4, 6


def method_for(config: MethodConfig) -> Method:
    """The code of a method's config."""
    if isinstance(config, LadderMethodConfig):
        return LadderMethod(config)
    if isinstance(config, QLoRAMethodConfig):
        return QLoRAMethod(config)
    raise TypeError(f"no method for {type(config).__name__}")


def load_adapter(folder: str | Path, backbone: PreTrainedModel) -> nn.Module:
    """A trained adapter of whatever method on its loaded backbone, in evaluation mode.

    Raises:
        UserError: if the folder holds no adapter, or one of another backbone.
    """
    if adapter.read_config(folder).get("peft_type") is not None:
        return _load_peft(folder, backbone)
    return LadderModel.from_pretrained(folder, backbone=backbone)


def _load_peft(folder: str | Path, backbone: PreTrainedModel) -> PeftModel:
    qlora.prepare(backbone, gradient_checkpointing=False, loss_chunk=DEFAULT_CHUNK)
    return PeftModel.from_pretrained(backbone, folder).eval()
