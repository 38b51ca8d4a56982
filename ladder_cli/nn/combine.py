"""How the side network's last state and the backbone's become the hidden state that the head reads."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ladder_cli.config.choices import Combination


class Combine(nn.Module):
    """What every combination says of itself.

    Attributes:
        normed: whether the result has had a final norm already; if not, the backbone's follows.
        reads_final: whether the backbone's last state is needed at all; if not, its layers after the last tap need
            not run.
    """

    normed: ClassVar[bool]
    reads_final: ClassVar[bool]

    @classmethod
    def build(cls, width: int, side_width: int, final_norm: nn.Module | None) -> Self:
        """For states of these widths; `final_norm` is the backbone's."""
        return cls(width, side_width)

    def reset(self) -> None:
        """Go to the starting state."""


class ResidualCombine(Combine):
    """h_L + U(s_l), then the backbone's final norm. U is zero at the start: an untrained ladder is the backbone."""

    normed = False
    reads_final = True

    def __init__(self, width: int, side_width: int) -> None:
        super().__init__()
        self.up = nn.Linear(side_width, width, bias=False)

    def reset(self) -> None:
        """Start as the backbone."""
        nn.init.zeros_(self.up.weight)

    def forward(self, final: Tensor, state: Tensor) -> Tensor:
        """`[..., d]` and `[..., d_s]` to `[..., d]`."""
        return final + self.up(state)


class SideCombine(Combine):
    """U(norm(s_l)): the side network alone, with a final norm of its own (Ladder Side-Tuning)."""

    normed = True
    reads_final = False

    @classmethod
    def build(cls, width: int, side_width: int, final_norm: nn.Module | None) -> Self:
        """With a narrow norm like the backbone's last one."""
        return cls(width, side_width, final_norm)

    def __init__(self, width: int, side_width: int, final_norm: nn.Module | None) -> None:
        super().__init__()
        self.norm = narrow_norm(final_norm, side_width)
        self.up = nn.Linear(side_width, width, bias=False)

    def reset(self) -> None:
        """Start as a random readout of the side network."""
        bound = self.up.in_features**-0.5
        nn.init.uniform_(self.up.weight, -bound, bound)

    @torch.no_grad()
    def select(self, channels: Tensor, final_norm: nn.Module | None) -> None:
        """Put each side channel back at the backbone channel `[d_s]` that it came from, under that one's norm."""
        self.up.weight.zero_()
        self.up.weight[channels.cpu(), torch.arange(len(channels))] = 1.0
        if final_norm is not None:
            for name, parameter in self.norm.named_parameters():
                parameter.copy_(final_norm.get_parameter(name).detach()[channels].float())

    def forward(self, final: Tensor | None, state: Tensor) -> Tensor:
        """`[..., d]` (unused) and `[..., d_s]` to `[..., d]`."""
        return self.up(self.norm(state))


class ReplaceCombine(Combine):
    """s_l in place of h_L, for a side network of the backbone's own width."""

    normed = False
    reads_final = False

    @classmethod
    def build(cls, width: int, side_width: int, final_norm: nn.Module | None) -> Self:
        """Nothing of it depends on the widths."""
        return cls()

    def forward(self, final: Tensor | None, state: Tensor) -> Tensor:
        """`[..., d]` (the first unused)."""
        return state


class GatedCombine(Combine):
    """a h_L + (1 - a) U(s_l) with a learned number a, one at the start (Quantized Side Tuning)."""

    normed = False
    reads_final = True

    def __init__(self, width: int, side_width: int) -> None:
        super().__init__()
        self.up = nn.Linear(side_width, width, bias=False)
        self.backbone_share = nn.Parameter(torch.ones(()))

    def reset(self) -> None:
        """Start as the backbone, with a random readout of the side network behind a closed gate."""
        bound = self.up.in_features**-0.5
        nn.init.uniform_(self.up.weight, -bound, bound)
        nn.init.ones_(self.backbone_share)

    def forward(self, final: Tensor, state: Tensor) -> Tensor:
        """`[..., d]` and `[..., d_s]` to `[..., d]`."""
        side = self.up(state)
        share = self.backbone_share.to(final.dtype)
        return share * final + (1 - share) * side.to(final.dtype)


_COMBINES: dict[Combination, type[Combine]] = {
    Combination.RESIDUAL: ResidualCombine,
    Combination.SIDE: SideCombine,
    Combination.GATED: GatedCombine,
    Combination.REPLACE: ReplaceCombine,
}


def reads_final(kind: str) -> bool:
    """Whether the combination of that kind needs the backbone's last state."""
    return _COMBINES[Combination(kind)].reads_final


def make_combine(kind: Combination, width: int, side_width: int, final_norm: nn.Module | None) -> Combine:
    """The combination of that kind, in its starting state."""
    module = _COMBINES[kind].build(width, side_width, final_norm)
    module.reset()
    return module


def narrow_norm(norm: nn.Module | None, width: int) -> nn.Module:
    """A trainable norm of the same class for `width` channels; a layer norm where the backbone ends without one."""
    if norm is None:
        return nn.LayerNorm(width)
    epsilon = getattr(norm, "variance_epsilon", None) or getattr(norm, "eps", 1e-6)
    return type(norm)(width, eps=epsilon)
