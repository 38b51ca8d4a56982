"""Taps kept for the backward pass as int8: half of bfloat16's bytes, at the price of rounded gradients of P.

One scale for each channel: hidden states have a few channels a thousand times larger than the rest, the same ones at
every position, and a scale for each position would round everything else to zero.
"""

from typing import Any

import torch
from torch import Tensor, nn

_LARGEST = 127


class _Int8TapProjection(torch.autograd.Function):
    """tap W^T, computed exactly; the gradient of W reads the tap from eight bits."""

    @staticmethod
    def forward(ctx: Any, tap: Tensor, weight: Tensor) -> Tensor:
        rows = tap.flatten(0, -2).float()
        scale = rows.abs().amax(0).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
        ctx.save_for_backward((rows / scale).round_().to(torch.int8), scale)
        return tap @ weight.T

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor]:
        codes, scale = ctx.saved_tensors
        grad = grad_output.flatten(0, -2)
        return None, (grad.T @ codes.to(grad.dtype)) * scale.to(grad.dtype)


class Int8Taps(nn.Module):
    """A down-projection (a matrix, or two in sequence) whose tap is kept in eight bits."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, tap: Tensor) -> Tensor:
        """`[..., d]` to `[..., d_s]`."""
        if isinstance(self.projection, nn.Linear):
            return _Int8TapProjection.apply(tap, self.projection.weight)
        assert isinstance(self.projection, nn.Sequential)
        first, second = self.projection
        assert isinstance(first, nn.Linear)
        return second(_Int8TapProjection.apply(tap, first.weight))
