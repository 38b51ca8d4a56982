"""Dense feed-forward layers for the side network of a backbone with experts and a router.

A router over narrow experts would be a second thing to train, with a loss of its own. The dense layer has the experts'
activation, and as many inner units as a token uses in the experts that are chosen for it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ladder_cli.errors import UserError


def holds_experts(module: nn.Module) -> bool:
    """Return whether a module stacks the matrices of several experts in one parameter `[experts, ...]`."""
    return any(parameter.dim() == 3 for parameter in module.parameters())


class DenseFeedForward(nn.Module):
    """Computes down(gate(W_gate x, W_up x)), as one expert does."""

    def __init__(
        self, width: int, inner: int, bias: bool, gate: Callable[[Tensor, Tensor], Tensor], returns_scores: bool
    ) -> None:
        """`gate`: a function of two `[..., inner]`; `returns_scores`: return a pair, whose second part is ignored."""
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self._gate = gate
        self.returns_scores = returns_scores

    def forward(self, hidden: Tensor) -> Any:
        """Map `[..., d_s]` to `[..., d_s]`."""
        result = self.down_proj(self._gate(self.gate_proj(hidden), self.up_proj(hidden)))
        return (result, None) if self.returns_scores else result


def dense_in_place_of(block: nn.Module, kind: str, experts_per_token: int) -> None:
    """Replace the experts of a decoder layer, in place.

    Args:
        block: a side layer of the backbone's own class, with at least one expert of the side's sizes.
        kind: the architecture's name, for messages.
        experts_per_token: how many experts of the backbone a token uses.

    Raises:
        UserError: if the experts have no known form.
    """
    experts: Any = next((module for module in block.modules() if _is_experts(module)), None)
    mlp: Any = getattr(block, "mlp", None)
    if experts is None or mlp is None or not any(module is experts for module in mlp.modules()):
        raise UserError(f"{kind} is not supported: its experts are not of a known form. docs/models.md lists what is.")
    clamped = hasattr(experts, "alpha") and hasattr(experts, "limit")
    # gpt-oss stores `[experts, in, out]`, the others `[experts, out, in]`.
    _, first, second = experts.down_proj.shape
    inner, width = (first, second) if clamped else (second, first)
    gate = _clamped(experts.alpha, experts.limit) if clamped else _gated(experts.act_fn)
    bias = hasattr(experts, "down_proj_bias")
    block.mlp = DenseFeedForward(width, inner * experts_per_token, bias, gate, returns_scores=clamped)


def _is_experts(module: nn.Module) -> bool:
    names = ("gate_up_proj", "down_proj")
    stacked = all(getattr(getattr(module, name, None), "ndim", 0) == 3 for name in names)
    return stacked and (hasattr(module, "act_fn") or (hasattr(module, "alpha") and hasattr(module, "limit")))


def _gated(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda gate, up: activation(gate) * up


def _clamped(alpha: float, limit: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the SwiGLU of gpt-oss: both inputs are clamped, and the linear one is shifted by one."""

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        gate = gate.clamp(max=limit)
        return (up.clamp(-limit, limit) + 1) * gate * torch.sigmoid(alpha * gate)

    return gated
