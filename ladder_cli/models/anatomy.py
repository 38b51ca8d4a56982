"""Naming the parts of a decoder-only Transformers model that a method needs.

Nothing of a model's own code is copied: the backbone runs through its own `forward`, and what a ladder needs is found
by the attribute names that Transformers uses.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import bitsandbytes
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ladder_cli.errors import UserError

_LAYER_NAMES = ("layers", "h")
_FINAL_NORM_NAMES = ("norm", "final_layernorm", "final_layer_norm", "ln_f")
# Parts between the last layer and the logits that `Anatomy.logits` does not know how to apply.
_UNSUPPORTED_READOUT = ("logit_scale", "logits_scaling", "mup_width_scale", "lm_head_multiplier")


@dataclass(frozen=True)
class Anatomy:
    """The parts of a causal language model.

    Attributes:
        config: the model's.
        decoder: embeddings and layers.
        embeddings: of the tokens.
        layers: 1 to L.
        final_norm: between the last layer and the head; OPT-350m has none.
        project_out: after the final norm, down to the width of the embeddings (OPT-350m); mostly none.
        head: makes logits.
        rotary: makes rotary positions for the layers; none where positions are learned.
        softcap: logits are squashed to +-this (Gemma 2).
    """

    config: PreTrainedConfig
    decoder: nn.Module
    embeddings: nn.Module
    layers: nn.ModuleList
    final_norm: nn.Module | None
    project_out: nn.Module | None
    head: nn.Module
    rotary: nn.Module | None
    softcap: float | None

    @property
    def device(self) -> torch.device:
        """Where the layers live."""
        return next(self.layers.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the backbone computes in."""
        return next(self.embeddings.parameters()).dtype

    def autocast(self) -> AbstractContextManager:
        """Trained parts keep float32 weights and compute in the backbone's type."""
        if self.dtype in (torch.float32, torch.float64):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def head_logits(self, features: Tensor) -> Tensor:
        """Logits `[..., vocabulary]` of what the decoder hands out as its last hidden state."""
        logits = self.head(features)
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def features(self, hidden: Tensor, normed: bool = False) -> Tensor:
        """What the head reads, of the last layer's output `[..., d]` (or of one that is `normed` already)."""
        if not normed and self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return hidden if self.project_out is None else self.project_out(hidden)


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Find the parts of a causal language model.

    Raises:
        UserError: if the architecture is not of the known shape; the message names it.
    """
    kind = f"{type(model).__name__} ({model.config.model_type})"
    decoder = model.get_decoder()
    layers = _first_attribute(decoder, _LAYER_NAMES)
    final_norm = _first_attribute(decoder, _FINAL_NORM_NAMES)
    head = model.get_output_embeddings()
    if not isinstance(layers, nn.ModuleList) or head is None:
        raise UserError(f"{kind} cannot be tapped: its layers or output head were not found.")
    if final_norm is None and not hasattr(decoder, "final_layer_norm"):
        raise UserError(f"{kind} cannot be tapped: its final norm was not found.")
    if len({type(layer) for layer in layers}) > 1:
        raise UserError(f"{kind} cannot be tapped: its layers are of different kinds.")
    rotary = getattr(decoder, "rotary_emb", None)
    if rotary is not None and "layer_type" in signature(rotary.forward).parameters:
        raise UserError(f"{kind} cannot be tapped: its rotary positions differ from layer to layer.")
    unknown = [name for name in _UNSUPPORTED_READOUT if getattr(model.config, name, None) not in (None, 1, 1.0)]
    if unknown:
        raise UserError(f"{kind} cannot be tapped: its {', '.join(unknown)} is not supported.")
    return Anatomy(
        config=model.config,
        decoder=decoder,
        embeddings=model.get_input_embeddings(),
        layers=layers,
        final_norm=final_norm,
        project_out=getattr(decoder, "project_out", None),
        head=head,
        rotary=rotary,
        softcap=getattr(model.config, "final_logit_softcapping", None),
    )


def keep_differentiable(module: nn.Module) -> None:
    """Let gradients pass through the 4-bit layers of `module`.

    On CPUs with avx512_bf16 bitsandbytes packs the weight in place at the first evaluation, for a product that has no
    gradient: training after it would silently go wrong.
    """
    for part in module.modules():
        if isinstance(part, bitsandbytes.nn.Linear4bit):
            part.support_avx512bf16_for_cpu = False


def _first_attribute(module: nn.Module, names: tuple[str, ...]) -> Any:
    return next((getattr(module, name) for name in names if getattr(module, name, None) is not None), None)
