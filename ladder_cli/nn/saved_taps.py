"""How a tap is saved for the backward pass: in full, in eight bits, or not at all (recomputed).

Autograd saves the input of every trained matrix, and a tap is as wide as the backbone, so taps are most of what a
ladder saves. No gradient enters the backbone: a tap is needed for the gradient of its down-projection alone.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_LARGEST = 127


class TapSaving(Protocol):
    """How a tap is saved for the backward pass."""

    def pack(self, tap: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors to save for the tap `[..., d]`."""
        ...

    def weight_gradient(self, grad: Tensor, *saved: Tensor) -> Tensor:
        """Sum `grad` `[n, d_s]` times the tap over positions: `[d_s, d]`."""
        ...


class EightBits:
    """Saves a byte for each value: half of bfloat16's bytes, at the price of rounded gradients of P.

    Each channel has a scale. Hidden states have a few channels a thousand times larger than the rest, the same ones at
    every position; a scale for each position would round everything else to zero.
    """

    def pack(self, tap: Tensor) -> tuple[Tensor, ...]:
        """Return codes `[n, d]` and scales `[d]`."""
        rows = tap.flatten(0, -2).float()
        scale = rows.abs().amax(0).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
        return (rows / scale).round_().to(torch.int8), scale

    def weight_gradient(self, grad: Tensor, *saved: Tensor) -> Tensor:
        """Compute it from the rounded tap."""
        codes, scale = saved
        return (grad.T @ codes.to(grad.dtype)) * scale.to(grad.dtype)


class Recomputed:
    """Saves nothing: the backward pass recomputes the tap, bit for bit the same."""

    def __init__(self, recompute: Callable[[], Tensor]) -> None:
        """`recompute`: returns the tap `[..., d]`."""
        self._recompute = recompute

    def pack(self, tap: Tensor) -> tuple[Tensor, ...]:
        """Return no tensors."""
        return ()

    def weight_gradient(self, grad: Tensor, *saved: Tensor) -> Tensor:
        """Recompute the tap, and compute it from that."""
        return grad.T @ self._recompute().flatten(0, -2)


class _TapProjection(torch.autograd.Function):
    """Computes tap W^T exactly; the gradient of W reads the tap as `saving` saved it."""

    @staticmethod
    def forward(ctx: Any, tap: Tensor, weight: Tensor, saving: TapSaving) -> Tensor:
        ctx.saving = saving
        ctx.save_for_backward(*saving.pack(tap))
        return linear(tap, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.saving.weight_gradient(grad_output.flatten(0, -2), *ctx.saved_tensors), None


class CompactProjection(nn.Module):
    """A down-projection (a matrix, or two in sequence) that saves its tap in its own way instead of autograd's."""

    def __init__(self, projection: nn.Module, saving: TapSaving) -> None:
        super().__init__()
        self.projection = projection
        self._saving = saving

    def forward(self, tap: Tensor) -> Tensor:
        """Project `[..., d]` to `[..., d_s]`."""
        if isinstance(self.projection, nn.Linear):
            return _TapProjection.apply(tap, self.projection.weight, self._saving)
        assert isinstance(self.projection, nn.Sequential)
        first, second = self.projection
        assert isinstance(first, nn.Linear)
        return second(_TapProjection.apply(tap, first.weight, self._saving))
