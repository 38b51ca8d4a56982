"""Low-rank adapters (LoRA) on linear layers of a frozen backbone: which layers, and what peft is told of them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ladder_cli.trunk.compact import QuantizedHead
from ladder_cli.trunk.parts import anatomy_of


def on_all_layers(backbone: PreTrainedModel, rank: int, alpha: float, dropout: float) -> LoraConfig:
    """Adapters on every linear layer but the head."""
    return _config(backbone, rank, alpha, dropout, target_modules="all-linear")


def on_last_layers(backbone: PreTrainedModel, last: int, rank: int, alpha: float, dropout: float) -> LoraConfig:
    """Adapters on every linear layer inside of the last decoder layers.

    Args:
        backbone: whose layers carry no adapters yet.
        last: decoder layers that get some, counted from the last.
        rank, alpha, dropout: of the adapters.
    """
    layers = anatomy_of(backbone).layers
    learning = range(len(layers) - last, len(layers))
    return _config(
        backbone,
        rank,
        alpha,
        dropout,
        target_modules=sorted({name for number in learning for name in linear_names(layers[number])}),
        layers_to_transform=list(learning),
        layers_pattern=_name_of(layers, backbone).rpartition(".")[2],
    )


def _config(backbone: PreTrainedModel, rank: int, alpha: float, dropout: float, **where: Any) -> LoraConfig:
    head = backbone.get_output_embeddings()
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft reads any number
        lora_dropout=dropout,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in backbone.modules()),
        # peft leaves the head out by itself, but not the parts of a quantised one.
        exclude_modules=rf"{_name_of(head, backbone)}\..*" if isinstance(head, QuantizedHead) else None,
        **where,
    )


def linear_names(layer: nn.Module) -> list[str]:
    """Names of the linear layers inside a decoder layer, from that layer on (`mlp.up_proj`)."""
    return [name for name, module in layer.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def _name_of(module: nn.Module, model: nn.Module) -> str:
    return next(name for name, candidate in model.named_modules() if candidate is module)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without what peft says of itself: a former name in Transformers, ranks for experts that are not adapted, and a
    quantised head that is left out and not there.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message="You have passed exclude_modules=.*", category=UserWarning)
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys", category=RuntimeWarning)
        yield


def recompute_layers(backbone: PreTrainedModel, from_embeddings: bool = True) -> None:
    """Recompute layers in the backward pass; one that no gradient passes through is not run again.

    Args:
        backbone: whose layers are in training mode where this holds.
        from_embeddings: gradients enter at the embeddings, for adapters in the lowest layers.
    """
    if hasattr(backbone, "activation_checkpointing_enable"):
        backbone.activation_checkpointing_enable({"use_reentrant": False})
    else:  # its name before transformers 5.2x
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    if not from_embeddings:
        backbone.disable_input_require_grads()


@contextmanager
def without_dropout(layers: nn.Module) -> Iterator[None]:
    """Evaluation mode within a `with` block; each module has its own mode again behind it."""
    training = [module for module in layers.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
