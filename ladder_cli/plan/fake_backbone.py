"""Backbones without weights: shapes on the meta device, quantised layers at their real size, and fake tensors."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import masking_utils

from ladder_cli.config.choices import Quantization

# bitsandbytes' NF4 with double quantisation: a byte of scale for 64 weights, a float32 for 256 of those scales, and
# two tables.
_NF4_BLOCK, _SCALES_BLOCK, _TABLES = 64, 256, 4 * (256 + 16 + 1)


class QuantizedShape(nn.Linear):
    """A linear layer that holds and allocates what bitsandbytes' layer of the same shape does.

    It is a linear layer to everyone who looks for one (peft), and computes shapes alone.

    Attributes:
        scales: bytes of its weight that are its scales and tables.
    """

    scales: int

    def __init__(self, rows: int, columns: int, kind: str, bias: nn.Parameter | None = None) -> None:
        """`rows`, `columns`: of the weight `[out, in]`; `kind`: `int8` or `nf4`."""
        nn.Module.__init__(self)
        self.out_features, self.in_features, self.kind = rows, columns, kind
        size = stored_bytes(rows, columns, kind)
        self.scales = size - _CODES[Quantization(kind)](rows * columns)
        self.weight = nn.Parameter(torch.empty(size, dtype=torch.uint8), requires_grad=False)
        self.register_parameter("bias", bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        result = _Dequantized.apply(hidden, self.out_features, self.kind)
        return result if self.bias is None else result + self.bias


def _int8_product(hidden: Tensor, out_features: int) -> Tensor:
    rows = hidden.flatten(0, -2)
    half, codes = rows.to(torch.float16, copy=True), rows.to(torch.int8)
    summed = codes.new_empty(len(rows), out_features, dtype=torch.int32)
    del half, codes
    return summed.to(hidden.dtype).view(*hidden.shape[:-1], out_features)


def _nf4_product(hidden: Tensor, out_features: int) -> Tensor:
    return linear(hidden, hidden.new_empty(out_features, hidden.shape[-1]))


# A layer that is not quantised is none of these.
_PRODUCTS: dict[Quantization, Callable[[Tensor, int], Tensor]] = {
    Quantization.INT8: _int8_product,
    Quantization.NF4: _nf4_product,
}


class _Dequantized(torch.autograd.Function):
    """The allocations of `bitsandbytes.matmul_4bit` and `bitsandbytes.matmul`; the input is not kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, out_features: int, kind: str) -> Tensor:
        ctx.out_features, ctx.in_features = out_features, hidden.shape[-1]
        return _PRODUCTS[Quantization(kind)](hidden, out_features)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        weight = grad_output.new_empty(ctx.out_features, ctx.in_features)
        return grad_output @ weight, None, None


def stored_bytes(rows: int, columns: int, kind: str) -> int:
    """Bytes of a quantised matrix with its scales and tables."""
    return _STORED[Quantization(kind)](rows, columns)


def _int8_bytes(rows: int, columns: int) -> int:
    return rows * columns + 4 * rows


def _nf4_bytes(rows: int, columns: int) -> int:
    weights = rows * columns
    scales = math.ceil(weights / _NF4_BLOCK)
    return math.ceil(weights / 2) + scales + 4 * math.ceil(scales / _SCALES_BLOCK) + _TABLES


_STORED: dict[Quantization, Callable[[int, int], int]] = {
    Quantization.INT8: _int8_bytes,
    Quantization.NF4: _nf4_bytes,
}


# Bytes of so many weights without their scales.
_CODES: dict[Quantization, Callable[[int], int]] = {
    Quantization.INT8: lambda weights: weights,
    Quantization.NF4: lambda weights: math.ceil(weights / 2),
}


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


def fold_experts(model: nn.Module) -> None:
    """Let every token meet one and the same expert as often as it would meet several, in place.

    Which experts the tokens choose depends on values, which shapes do not have. How much is computed and kept does not:
    so many rows of the experts' width as tokens times experts for each token, as a grouped product has them.
    """
    for module in model.modules():
        if _is_experts(module):
            module.forward = partial(_one_expert, module)


def _is_experts(module: Any) -> bool:
    return all(getattr(getattr(module, name, None), "ndim", 0) == 3 for name in ("gate_up_proj", "down_proj"))


def _one_expert(experts: Any, hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """`[tokens, d]`, chosen experts and their weights `[tokens, k]` each, to `[tokens, d]`."""
    times = indices.shape[-1]
    rows = hidden.repeat_interleave(times, 0)
    if getattr(experts, "gate_up_proj_bias", None) is not None:  # gpt-oss: stored `[experts, in, out]`
        inner = rows @ experts.gate_up_proj[0] + experts.gate_up_proj_bias[0]
        out = experts._apply_gate(inner) @ experts.down_proj[0] + experts.down_proj_bias[0]
    else:
        gate, up = linear(rows, experts.gate_up_proj[0]).chunk(2, dim=-1)
        out = linear(experts.act_fn(gate) * up, experts.down_proj[0])
    weighted = out * weights.reshape(-1, 1)
    return weighted.view(len(hidden), times, -1).sum(1).to(hidden.dtype)


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


@contextmanager
def one_document_a_row() -> Iterator[None]:
    """Tell Transformers that no row holds several documents, within a `with` block.

    It looks for them in the values of the positions, which fake tensors do not have.
    """
    finds = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = finds
