"""LoRA through peft, on all layers (QLoRA) or on the last ones (suffix), with the same chunked loss as the ladder."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.pytorch_utils import Conv1D

from ladder_cli.errors import UserError
from ladder_cli.nn.loss import completion_cross_entropy
from ladder_cli.trunk.compact import QuantizedHead
from ladder_cli.trunk.parts import anatomy_of, keep_differentiable


def attach(
    backbone: PreTrainedModel,
    rank: int,
    alpha: int,
    dropout: float,
    gradient_checkpointing: bool,
    loss_chunk: int,
    last_layers: int | None = None,
) -> PeftModel:
    """Low-rank adapters on the linear layers of a frozen backbone (Dettmers et al., 2023).

    Args:
        backbone: frozen.
        rank, alpha, dropout: of the adapters.
        gradient_checkpointing: layers that gradients pass through are recomputed in the backward pass.
        loss_chunk: counted tokens whose logits exist at the same time.
        last_layers: decoder layers that get adapters, counted from the last; the layers below see no gradient and
            keep nothing for the backward pass. None: every linear layer but the head, and gradients everywhere.

    Experts are no linear layers but stacked parameters: of gpt-oss the attention alone is adapted.

    Raises:
        UserError: where peft would adapt stacked experts (Mixtral, Qwen3-MoE).
    """
    if last_layers is None:
        prepare(backbone, gradient_checkpointing, loss_chunk)
        return _with_adapters(backbone, _lora(backbone, rank, alpha, dropout, target_modules="all-linear"))
    prepare(backbone, gradient_checkpointing=False, loss_chunk=loss_chunk)
    layers = anatomy_of(backbone).layers
    learning = range(len(layers) - last_layers, len(layers))
    config = _lora(
        backbone,
        rank,
        alpha,
        dropout,
        target_modules=sorted({name for number in learning for name in _linear_names(layers[number])}),
        layers_to_transform=list(learning),
        layers_pattern=_name_of(layers, backbone).rpartition(".")[2],
    )
    model = _with_adapters(backbone, config)
    if gradient_checkpointing:
        _checkpoint(backbone)
        # Transformers lets gradients enter at the embeddings, for adapters in the lowest layers; here are none.
        backbone.disable_input_require_grads()
    return model


def _lora(backbone: PreTrainedModel, rank: int, alpha: int, dropout: float, **where: Any) -> LoraConfig:
    head = backbone.get_output_embeddings()
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in backbone.modules()),
        # peft leaves the head out by itself, but not the parts of a quantised one.
        exclude_modules=rf"{_name_of(head, backbone)}\..*" if isinstance(head, QuantizedHead) else None,
        **where,
    )


def _with_adapters(backbone: PreTrainedModel, config: LoraConfig) -> PeftModel:
    with quiet_peft():
        model = get_peft_model(backbone, config)
    if getattr(model.peft_config["default"], "target_parameters", None):
        raise UserError(
            f"method=qlora is not supported for {backbone.config.model_type}: peft adapts its stacked experts by other "
            "means than low-rank matrices on linear layers, and such adapters are not read here. Use method=ladder."
        )
    # Embeddings are never trained; left to find out by itself, peft asks the hub at every checkpoint.
    model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)  # type: ignore[method-assign]
    return model


def _linear_names(layer: nn.Module) -> list[str]:
    """Names of the linear layers inside a decoder layer, from that layer on (`mlp.up_proj`)."""
    return [name for name, module in layer.named_modules() if isinstance(module, nn.Linear | Conv1D)]


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without what peft says of itself: a former name in Transformers, and ranks for experts that are not adapted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys", category=RuntimeWarning)
        yield


def _name_of(module: nn.Module, model: nn.Module) -> str:
    return next(name for name, candidate in model.named_modules() if candidate is module)


def prepare(backbone: PreTrainedModel, gradient_checkpointing: bool, loss_chunk: int) -> None:
    """Make a frozen backbone fit for gradients that pass through it, and its loss lean."""
    keep_differentiable(backbone)
    if gradient_checkpointing:
        _checkpoint(backbone)
    lean_loss(backbone, loss_chunk)


def _checkpoint(backbone: PreTrainedModel) -> None:
    """Recompute layers in the backward pass; one that no gradient passes through is not run again."""
    if hasattr(backbone, "activation_checkpointing_enable"):
        backbone.activation_checkpointing_enable({"use_reentrant": False})
    else:  # its name before transformers 5.2x
        backbone.gradient_checkpointing_enable({"use_reentrant": False})


def lean_loss(model: PreTrainedModel, chunk: int) -> None:
    """Let `model(labels=...)` compute the loss on counted tokens in chunks, in place of Transformers' full logits.

    Adapter weights stay float32 and compute in the backbone's type, by autocast, in training and evaluation alike.
    """
    plain_forward = model.forward
    anatomy = anatomy_of(model)

    @wraps(plain_forward)  # `generate` and the trainer read the signature
    def forward(
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        with anatomy.autocast():
            if labels is None:
                return plain_forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
            for name in ("return_dict", "output_attentions", "output_hidden_states"):
                kwargs.pop(name, None)
            features = anatomy.decoder(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **kwargs
            ).last_hidden_state
            loss = completion_cross_entropy(features, anatomy.head_logits, labels, num_items_in_batch, chunk)
            return CausalLMOutputWithPast(loss=loss)

    model.forward = forward
