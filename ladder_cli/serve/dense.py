"""A quantised model, or one with LoRA in it, as an ordinary model: every linear layer one dense matrix.

The matrix is the one that training computed with. A 4-bit or 8-bit weight is dequantised as its kernel does it, the
product of the low-rank matrices is added in float32, and the sum is rounded once, to the type that is written. peft's
own merge quantises the sum again, which throws most of a small change away.

An int8 kernel rounds what goes into a layer too. That is no matrix's affair, so it is lost when the matrix is written.
"""

from typing import Any

import bitsandbytes
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.integrations.bitsandbytes import dequantize_bnb_weight
from transformers.pytorch_utils import Conv1D

from ladder_cli.errors import RunFailed, UserError
from ladder_cli.trunk.compact import QuantizedHead

_QUANTISED = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)


# A kernel's product may be rounded to half precision.
_KERNEL_TOLERANCE = 0.02


class _Dequantised(nn.Linear):
    """A linear layer that computes in its weight's type and answers in its input's."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        bias = None if self.bias is None else self.bias.to(self.weight.dtype)
        return linear(input.to(self.weight.dtype), self.weight, bias).to(input.dtype)


@torch.no_grad()
def dequantise(model: PreTrainedModel) -> None:
    """Put the dense matrix in place of every quantised one, in place, each held against its kernel; LoRA stays.

    What the model says then is what a merged one has to say. Of a model without quantised layers nothing changes.

    Args:
        model: as for `densify`.

    Raises:
        RunFailed: if a matrix is not the one that its kernel multiplies with.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, _QUANTISED):
            weight = dense_weight(module)
            _hold_against_kernel(name, module, weight)
            model.set_submodule(name, _linear(weight, module.bias, _Dequantised))


@torch.no_grad()
def densify(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Make a loaded model dense, in place: LoRA merged, quantised weights dequantised, everything in `dtype`.

    Args:
        model: the backbone itself, with or without LoRA layers in it; it must not have been packed by bitsandbytes'
            CPU kernel (`parts.keep_differentiable`, called before its first pass).
        dtype: of the weights.

    Returns:
        The same model, without any mark of its quantisation.

    Raises:
        UserError: if a layer was changed by anything else than a plain LoRA.
        RunFailed: if a matrix is not the one that its kernel multiplies with.
    """
    dequantise(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            layer: Any = module
            model.set_submodule(name, _rebuilt(layer.get_base_layer(), merged_weight(name, module).to(dtype)))
        elif isinstance(module, QuantizedHead):
            rows = torch.cat([dense_weight(block) for block in module.blocks])
            model.set_submodule(name, _linear(rows, None))
            # It was quantised on its own, so that it is no longer what the embeddings are.
            model.config.tie_word_embeddings = False
    _without_marks(model)
    # Not `.to`, which parts that stay on the host do not follow.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return model


@torch.no_grad()
def merged_weight(name: str, layer: Any) -> Tensor:
    """The matrix of a layer with LoRA, its product added in float32; as the layer beneath stores its own.

    Args:
        name: of the layer, for messages.
        layer: peft's.

    Raises:
        UserError: if it was changed by anything else than one plain LoRA.
    """
    if len(layer.lora_embedding_A) or len(layer.active_adapters) != 1:
        raise UserError(f"layer {name} holds more than one plain LoRA: it cannot be merged.")
    base = layer.get_base_layer()
    delta = layer.get_delta_weight(layer.active_adapters[0]).float()
    merged: Tensor = dense_weight(base).float() + delta.to(base.weight.device)
    return merged


def _hold_against_kernel(name: str, layer: Any, weight: Tensor) -> None:
    """Multiply with vectors of signs, which every kernel takes as they are: int8 rounds none of them.

    Raises:
        RunFailed: if the products differ.
    """
    draw = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (8, weight.shape[1]), generator=draw).mul(2).sub(1)
    signs = signs.to(weight.device, getattr(layer, "compute_dtype", None) or torch.float16)
    bias = 0.0 if layer.bias is None else layer.bias.float()
    kernel = layer(signs).float() - bias
    product = signs.float() @ weight.float().T
    apart = float((kernel - product).norm() / product.norm().clamp_min(1e-30))
    if not apart <= _KERNEL_TOLERANCE:
        raise RunFailed(
            f"layer {name} was not dequantised as its kernel computes ({apart:.1%} apart): nothing is written."
        )


def _without_marks(model: PreTrainedModel) -> None:
    """Take away what Transformers and peft know a changed model by, and would save or refuse it for."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit", "peft_config"):
        vars(model).pop(name, None)


def dense_weight(layer: Any) -> Tensor:
    """The matrix that a linear layer computes with, as it stores it: `[out, in]`, of a `Conv1D` `[in, out]`."""
    weight: Tensor = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None))
    return weight.detach()


def _rebuilt(base: Any, weight: Tensor) -> nn.Module:
    if isinstance(base, Conv1D):
        layer = Conv1D(base.nf, base.nx).to(weight.device, weight.dtype)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = base.bias
        return layer
    return _linear(weight, base.bias)


def _linear(weight: Tensor, bias: nn.Parameter | None, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    rows, columns = weight.shape
    layer = kind(columns, rows, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer
