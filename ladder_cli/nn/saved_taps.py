"""What the backward pass finds of a tap: all of it, eight bits of it, or nothing, where it can be made again.

Autograd keeps the input of every trained matrix, and a tap is as wide as the backbone: what is kept of the taps is
most of what a ladder keeps. No gradient enters the backbone, so a tap is needed for the gradient of its
down-projection and for nothing else.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_LARGEST = 127


class Keeping(Protocol):
    """How a tap is kept."""

    def pack(self, tap: Tensor) -> tuple[Tensor, ...]:
        """What is kept of `[..., d]`."""
        ...

    def weight_gradient(self, grad: Tensor, *kept: Tensor) -> Tensor:
        """The sum over positions of `grad` `[n, d_s]` times the tap: `[d_s, d]`."""
        ...


class EightBits:
    """A byte for each value: half of bfloat16's bytes, at the price of rounded gradients of P.

    One scale for each channel: hidden states have a few channels a thousand times larger than the rest, the same ones
    at every position, and a scale for each position would round everything else to zero.
    """

    def pack(self, tap: Tensor) -> tuple[Tensor, ...]:
        """Codes `[n, d]` and scales `[d]`."""
        rows = tap.flatten(0, -2).float()
        scale = rows.abs().amax(0).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
        return (rows / scale).round_().to(torch.int8), scale

    def weight_gradient(self, grad: Tensor, *kept: Tensor) -> Tensor:
        """From the rounded tap."""
        codes, scale = kept
        return (grad.T @ codes.to(grad.dtype)) * scale.to(grad.dtype)


class MadeAgain:
    """Nothing: the backward pass makes the tap a second time, bit for bit the same."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        """`make`: gives the tap `[..., d]`."""
        self._make = make

    def pack(self, tap: Tensor) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def weight_gradient(self, grad: Tensor, *kept: Tensor) -> Tensor:
        """From the tap, made now."""
        return grad.T @ self._make().flatten(0, -2)


class _TapProjection(torch.autograd.Function):
    """tap W^T, computed exactly; the gradient of W asks `keeping` for the tap."""

    @staticmethod
    def forward(ctx: Any, tap: Tensor, weight: Tensor, keeping: Keeping) -> Tensor:
        ctx.keeping = keeping
        ctx.save_for_backward(*keeping.pack(tap))
        return linear(tap, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.keeping.weight_gradient(grad_output.flatten(0, -2), *ctx.saved_tensors), None


class ThriftyProjection(nn.Module):
    """A down-projection (a matrix, or two in sequence) that does not leave its tap to autograd."""

    def __init__(self, projection: nn.Module, keeping: Keeping) -> None:
        super().__init__()
        self.projection = projection
        self._keeping = keeping

    def forward(self, tap: Tensor) -> Tensor:
        """`[..., d]` to `[..., d_s]`."""
        if isinstance(self.projection, nn.Linear):
            return _TapProjection.apply(tap, self.projection.weight, self._keeping)
        assert isinstance(self.projection, nn.Sequential)
        first, second = self.projection
        assert isinstance(first, nn.Linear)
        return second(_TapProjection.apply(tap, first.weight, self._keeping))
