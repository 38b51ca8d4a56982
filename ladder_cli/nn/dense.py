"""The side network of a mixture of experts: a dense feed-forward layer where the backbone has experts and a router.

A side network is narrow; a router over narrow experts would be a second thing to train, with losses of its own. The
dense layer has the experts' own activation, and as many inner units as one token meets in the experts chosen for it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ladder_cli.errors import UserError


def holds_experts(module: nn.Module) -> bool:
    """Whether a module stacks the matrices of several experts in one parameter `[experts, ...]`."""
    return any(parameter.dim() == 3 for parameter in module.parameters())


class DenseFeedForward(nn.Module):
    """down(gate(W_gate x, W_up x)), as one expert computes it."""

    def __init__(
        self, width: int, inner: int, bias: bool, gate: Callable[[Tensor, Tensor], Tensor], returns_scores: bool
    ) -> None:
        """`gate`: of `[..., inner]` twice; `returns_scores`: the layer unpacks a pair, whose second part it ignores."""
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self._gate = gate
        self.returns_scores = returns_scores

    def forward(self, hidden: Tensor) -> Any:
        """`[..., d_s]` to `[..., d_s]`."""
        result = self.down_proj(self._gate(self.gate_proj(hidden), self.up_proj(hidden)))
        return (result, None) if self.returns_scores else result


def dense_in_place_of(block: nn.Module, kind: str, experts_per_token: int) -> None:
    """Replace the experts of a decoder layer, in place.

    Args:
        block: a side layer of the backbone's own class, with at least one expert of the side's sizes.
        kind: the architecture's name, for messages.
        experts_per_token: how many experts a token meets in the backbone.

    Raises:
        UserError: if the experts are not of a known form.
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
    """The SwiGLU of gpt-oss: both sides clamped, and the linear one shifted by one."""

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        gate = gate.clamp(max=limit)
        return (up.clamp(-limit, limit) + 1) * gate * torch.sigmoid(alpha * gate)

    return gated
