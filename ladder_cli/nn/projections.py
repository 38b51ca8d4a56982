"""P_j: from the backbone's width down to the side network's, and the norm that a tap may get before it."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers.pytorch_utils import Conv1D

from ladder_cli.config.choices import Projection, TapNorm

_SHARED = "shared"


def _whole(tap: Tensor) -> Tensor:
    return tap


def _rms(tap: Tensor) -> Tensor:
    return rms_norm(tap.float(), tap.shape[-1:], eps=1e-6).to(tap.dtype)


_TAP_NORMS: dict[TapNorm, Callable[[Tensor], Tensor]] = {TapNorm.NONE: _whole, TapNorm.RMS: _rms}


class DownProjections(nn.Module):
    """One projection for each rung 0..l that has a tap, or one for all of them.

    * `full`: a matrix per rung.
    * `low_rank`: two thin matrices per rung, d -> rank -> d_s (Quantized Side Tuning).
    * `shared`: one matrix for all rungs.
    * `none`: the tap itself, for a side network of the backbone's own width.
    """

    def __init__(
        self, kind: Projection, width: int, side_width: int, rungs: Iterable[int], rank: int, tap_norm: TapNorm
    ) -> None:
        """`rungs`: side layers that have a tap, 0 for the embeddings."""
        super().__init__()
        self._norm = _TAP_NORMS[tap_norm]
        self.by_rung = nn.ModuleDict()
        self._none = nn.Identity() if kind is Projection.NONE else None
        own = [str(rung) for rung in rungs]

        def whole() -> nn.Module:
            return nn.Linear(width, side_width, bias=False)

        def thin() -> nn.Module:
            return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, side_width, bias=False))

        matrices: dict[Projection, tuple[list[str], Callable[[], nn.Module]]] = {
            Projection.FULL: (own, whole),
            Projection.LOW_RANK: (own, thin),
            Projection.SHARED: ([_SHARED], whole),
            Projection.NONE: ([], nn.Identity),
        }
        names, make = matrices[kind]
        self.by_rung.update({name: make() for name in names})

    def of(self, rung: int) -> nn.Module:
        """The module that projects the tap of `rung`."""
        if self._none is not None:
            return self._none
        return self.by_rung[_SHARED if _SHARED in self.by_rung else str(rung)]

    @torch.no_grad()  # no gradient enters the backbone, so only the normed tap need be kept
    def normed(self, tap: Tensor) -> Tensor:
        """What a projection is given: the tap `[..., d]`, normed if that was asked for."""
        return self._norm(tap)

    def forward(self, rung: int, tap: Tensor) -> Tensor:
        """`[..., d]` to `[..., d_s]`."""
        return self.of(rung)(self.normed(tap))

    @torch.no_grad()
    def select(self, rung: int, channels: Tensor) -> None:
        """Let the projection of `rung` read the given backbone channels `[d_s]` and nothing else.

        A low-rank projection gets the best approximation of its rank that random directions allow: an orthonormal
        basis of `rank` directions in the space of those channels.
        """
        module = self.of(rung)
        wide, narrow = _shape(module)
        selection = torch.zeros(narrow, wide)
        selection[torch.arange(narrow), channels.cpu()] = 1.0
        if isinstance(module, nn.Linear):
            module.weight.copy_(selection)
            return
        assert isinstance(module, nn.Sequential)
        first, second = module
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        basis, _ = torch.linalg.qr(torch.randn(narrow, first.out_features))
        first.weight.copy_(basis.T @ selection)
        second.weight.copy_(basis)


def _shape(module: nn.Module) -> tuple[int, int]:
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return linears[0].in_features, linears[-1].out_features


@torch.no_grad()
def uniform_(module: nn.Module) -> None:
    """Every matrix uniform in +-1/sqrt(fan in), every bias zero; norms stay as they were made (one)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | Conv1D):
            fan_in = part.in_features if isinstance(part, nn.Linear) else part.weight.shape[0]
            bound = 1 / math.sqrt(fan_in)
            nn.init.uniform_(part.weight, -bound, bound)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
