"""Backbones without weights: shapes on the meta device, quantised layers at their real size, and fake tensors."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# bitsandbytes' NF4 with double quantisation: a byte of scale for 64 weights, a float32 for 256 of those scales, and
# two tables.
_NF4_BLOCK, _SCALES_BLOCK, _TABLES = 64, 256, 4 * (256 + 16 + 1)


class QuantizedShape(nn.Linear):
    """A linear layer that holds and allocates what bitsandbytes' layer of the same shape does.

    It is a linear layer to everyone who looks for one (peft), and computes shapes alone.
    """

    def __init__(self, rows: int, columns: int, kind: str, bias: nn.Parameter | None = None) -> None:
        """`rows`, `columns`: of the weight `[out, in]`; `kind`: `int8` or `nf4`."""
        nn.Module.__init__(self)
        self.out_features, self.in_features, self.kind = rows, columns, kind
        size = stored_bytes(rows, columns, kind)
        self.weight = nn.Parameter(torch.empty(size, dtype=torch.uint8), requires_grad=False)
        self.register_parameter("bias", bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        result = _Dequantized.apply(hidden, self.out_features, self.kind)
        return result if self.bias is None else result + self.bias


class _Dequantized(torch.autograd.Function):
    """The allocations of `bitsandbytes.matmul_4bit` and `bitsandbytes.matmul`; the input is not kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, out_features: int, kind: str) -> Tensor:
        ctx.out_features, ctx.in_features = out_features, hidden.shape[-1]
        if kind == "int8":
            rows = hidden.flatten(0, -2)
            half, codes = rows.to(torch.float16, copy=True), rows.to(torch.int8)
            summed = codes.new_empty(len(rows), out_features, dtype=torch.int32)
            del half, codes
            return summed.to(hidden.dtype).view(*hidden.shape[:-1], out_features)
        return linear(hidden, hidden.new_empty(out_features, hidden.shape[-1]))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        weight = grad_output.new_empty(ctx.out_features, ctx.in_features)
        return grad_output @ weight, None, None


def stored_bytes(rows: int, columns: int, kind: str) -> int:
    """Bytes of a quantised matrix with its scales and tables."""
    weights = rows * columns
    if kind == "int8":
        return weights + 4 * rows
    scales = math.ceil(weights / _NF4_BLOCK)
    return math.ceil(weights / 2) + scales + 4 * math.ceil(scales / _SCALES_BLOCK) + _TABLES


def quantize_shapes(model: nn.Module, kind: str, keep: nn.Module) -> None:
    """Put quantised shapes in place of every linear layer but `keep`, the output head, as Transformers does."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child is not keep:
                setattr(module, name, QuantizedShape(child.out_features, child.in_features, kind, child.bias))


def quantized_shape(weight: Tensor, kind: str) -> QuantizedShape:
    """In place of a quantised copy of `weight` `[out, in]`, without bias."""
    rows, columns = weight.shape
    return QuantizedShape(rows, columns, kind)


def materialise_fake(model: nn.Module) -> None:
    """Fake CPU tensors in place of meta ones, shared where those were; to be called under `FakeTensorMode`."""
    replaced: dict[int, Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = replaced.get(id(parameter))
                if fake is None:
                    values = torch.empty(parameter.shape, dtype=parameter.dtype)
                    fake = replaced[id(parameter)] = nn.Parameter(values, requires_grad=parameter.requires_grad)
                module._parameters[name] = fake  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
