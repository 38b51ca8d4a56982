"""What was written, held against the model that was trained, logit by logit."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ladder_cli.config.choices import Quantization
from ladder_cli.errors import RunFailed
from ladder_cli.generate.trained import TrainedRun
from ladder_cli.serve.dense import dequantise

# Rendered as in training; what is compared are the logits of every token of them.
_PROBES = (
    "What is 17 + 25?",
    "Name the capital of France, and say in one sentence where it lies.",
    "Solve x^2 - 5x + 6 = 0. Then write a short function in Python that checks the two solutions.",
)
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}


@dataclass(frozen=True)
class Difference:
    """How far the written model is from the trained one.

    Attributes:
        largest: of all logits, absolute.
        scale: the largest absolute logit of the trained one.
        relative: of the logits of a token, as a share of their norm; the median token's.
        same: tokens with the same largest logit.
        tokens: tokens that were compared.
    """

    largest: float
    scale: float
    relative: float
    same: int
    tokens: int

    @classmethod
    def between(cls, trained: list[Tensor], written: list[Tensor]) -> "Difference":
        """Of logits `[tokens, vocabulary]`, prompt by prompt."""
        one, other = torch.cat(trained), torch.cat(written)
        by_token = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-30)
        return cls(
            largest=float((one - other).abs().max()),
            scale=float(one.abs().max()),
            relative=float(by_token.median()),
            same=int((one.argmax(-1) == other.argmax(-1)).sum()),
            tokens=len(one),
        )

    def __str__(self) -> str:
        return (
            f"largest difference of a logit {self.largest:.3g} (logits reach {self.scale:.3g}); the same most likely "
            f"token at {self.same} of {self.tokens} places"
        )


@dataclass(frozen=True)
class Said:
    """Logits of every probe, `[tokens, vocabulary]`.

    Attributes:
        trained: of the model as it was trained.
        dense: of the same, every quantised layer a dense matrix.
        dtype: that it computed in.
    """

    trained: list[Tensor]
    dense: list[Tensor]
    dtype: torch.dtype


@dataclass(frozen=True)
class Check:
    """Asks the models of a trained run.

    Attributes:
        trained: the run.
        device: where its models are.
    """

    trained: TrainedRun
    device: torch.device

    @torch.no_grad()
    def logits(self, model: Any) -> list[Tensor]:
        """Logits `[tokens, vocabulary]` of every probe, in float32 on the host."""
        found = []
        for probe in _PROBES:
            ids = torch.tensor([self.trained.renderer.prompt_ids(probe)], device=self.device)
            found.append(model(input_ids=ids).logits[0].float().cpu())
        return found

    def dequantised(self, model: Any) -> Said:
        """What the trained model says, before and after its quantised layers become dense: they stay so."""
        trained = self.logits(model)
        dequantise(model.bare_backbone)
        return Said(trained, self.logits(model), model.bare_backbone.dtype)

    def hold(self, said: Said, written: nn.Module) -> Difference:
        """Hold what was read back against the trained model.

        Against the one with dense matrices always; against the one with its own kernels but for int8, which rounds
        more than matrices (`int8_warning`).

        Raises:
            RunFailed: if they are not the same, up to rounding.
        """
        found = self.logits(written)
        floats = [weight.dtype for weight in written.parameters() if weight.dtype in _TOLERANCE]
        tolerance = max(_TOLERANCE[dtype] for dtype in (said.dtype, *floats))
        difference = Difference.between(said.trained, found)
        self._refuse_beyond(tolerance, Difference.between(said.dense, found))
        if not self._in_int8:
            quantised = self.trained.model.quantization is not Quantization.NONE
            self._refuse_beyond(max(tolerance, _TOLERANCE[torch.bfloat16]) if quantised else tolerance, difference)
        return difference

    def int8_warning(self, difference: Difference) -> str | None:
        """What has to be said where dense matrices are written of what int8 products trained; None elsewhere.

        An int8 kernel rounds what goes into a layer, which no matrix repeats: the bare backbone changes as much.
        """
        if not self._in_int8:
            return None
        return (
            f"{self.trained.run.path} was trained, and its scores come, from int8 products, which round what goes into "
            "a layer too. What is written are the matrices, so that this is not quite the model that was evaluated: "
            f"{difference}. Evaluate it before you rely on it (docs/serving.md)."
        )

    @property
    def _in_int8(self) -> bool:
        return Quantization.INT8 in (self.trained.model.quantization, self.trained.model.head_quantization)

    def _refuse_beyond(self, tolerance: float, found: Difference) -> None:
        if not found.relative <= tolerance:
            raise RunFailed(
                f"what was written for {self.trained.run.path} does not say what the trained model says ({found}; "
                f"{found.relative:.1%} of the logits' norm): nothing is left of it."
            )
