"""How a tap joins the state of the side network: s, P(h) -> the input of the next block.

The names are those of the methods that came before: `sum` is the paper's (section 3), `fixed` and `learned` are Ladder
Side-Tuning's (Sung et al., 2022), `vector` is Quantized Side Tuning's (Zhang et al., 2024).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ladder_cli.config.choices import Gate


class SumGate(nn.Module):
    """s + P(h)."""

    def forward(self, state: Tensor, tap: Tensor) -> Tensor:
        """`[..., side width]` each."""
        return state + tap


class TapGate(nn.Module):
    """P(h) alone: the tap takes the state's place."""

    def forward(self, state: Tensor, tap: Tensor) -> Tensor:
        """`[..., side width]` each."""
        return tap


class FixedGate(nn.Module):
    """alpha s + (1 - alpha) P(h) with a constant alpha."""

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, state: Tensor, tap: Tensor) -> Tensor:
        """`[..., side width]` each."""
        return self.alpha * state + (1 - self.alpha) * tap


class LearnedGate(nn.Module):
    """mu s + (1 - mu) P(h), mu = sigmoid(a / T) with one learned number a, 0 at the start, and T = 0.1."""

    temperature = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, state: Tensor, tap: Tensor) -> Tensor:
        """`[..., side width]` each."""
        mu = torch.sigmoid(self.logit / self.temperature).to(state.dtype)
        return mu * state + (1 - mu) * tap


class VectorGate(nn.Module):
    """beta s + (1 - beta) P(h) with one learned number per channel, 1/2 at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, state: Tensor, tap: Tensor) -> Tensor:
        """`[..., side width]` each."""
        beta = self.beta.to(state.dtype)
        return beta * state + (1 - beta) * tap


_GATES: dict[Gate, Callable[[int], nn.Module]] = {
    Gate.SUM: lambda width: SumGate(),
    Gate.TAP: lambda width: TapGate(),
    Gate.FIXED: lambda width: FixedGate(),
    Gate.LEARNED: lambda width: LearnedGate(),
    Gate.VECTOR: VectorGate,
}


def make_gate(kind: Gate, width: int) -> nn.Module:
    """The gate of that kind for states of `width` channels."""
    return _GATES[kind](width)
