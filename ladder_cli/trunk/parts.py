"""Finds the parts of a decoder-only Transformers model that a method needs.

No code of a model is copied: the backbone runs through its own `forward`, and its parts are found by the attribute
names that Transformers uses.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
# Parts between the last layer and the logits that `Anatomy.head_logits` does not know how to apply.
_UNSUPPORTED_READOUT = ("mup_width_scale", "lm_head_multiplier", "output_multiplier_scale")
# The names of a decoder layer's argument for the key-value cache.
_CACHE_NAMES = ("past_key_values", "layer_past")
# The side network shares masks and caches of these kinds of attention with the backbone. Others (linear, chunked,
# convolutions) have a state of another form.
FULL_ATTENTION, SLIDING_ATTENTION = "full_attention", "sliding_attention"


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
        rotary_by_type: rotary positions differ between full and sliding attention (Gemma 3, OLMo 3).
        softcap: logits are squashed to +-this (Gemma 2).
        logit_factor: logits are multiplied by this (Cohere).
        logit_divisor: logits are divided by this (Granite).
        cache_name: the argument by which a layer is handed the key-value cache.
        initialise: sets the first weights of a module of the backbone's classes.
    """

    config: PreTrainedConfig
    decoder: nn.Module
    embeddings: nn.Module
    layers: nn.ModuleList
    final_norm: nn.Module | None
    project_out: nn.Module | None
    head: nn.Module
    rotary: nn.Module | None
    rotary_by_type: bool
    softcap: float | None
    logit_factor: float | None
    logit_divisor: float | None
    cache_name: str
    initialise: Callable[[nn.Module], None]

    @property
    def name(self) -> str:
        """The architecture, for messages."""
        return self.config.model_type

    @property
    def device(self) -> torch.device:
        """Where it computes: the device of the head, for layers may be kept elsewhere."""
        return next(self.head.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the backbone computes in."""
        return next(self.embeddings.parameters()).dtype

    def autocast(self) -> AbstractContextManager:
        """Return a context in which trained parts, with float32 weights, compute in the backbone's type."""
        if self.dtype in (torch.float32, torch.float64):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def head_logits(self, features: Tensor) -> Tensor:
        """Compute logits `[..., vocabulary]` from the decoder's last hidden state `[..., d]`."""
        logits = self.head(features)
        if self.logit_factor is not None:
            logits = logits * self.logit_factor
        if self.logit_divisor is not None:
            logits = logits / self.logit_divisor
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def features(self, hidden: Tensor, normed: bool = False) -> Tensor:
        """Compute the input of the head from the last layer's output `[..., d]`, `normed` or not yet."""
        if not normed and self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return hidden if self.project_out is None else self.project_out(hidden)


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Find the parts of a causal language model.

    Raises:
        UserError: if the architecture is not of the known shape; the message names it.
    """
    kind = f"{type(model).__name__} ({model.config.model_type})"
    with refused_by_name(model, "its parts cannot be found"):
        return _anatomy_of(model, kind)


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers, of which there may be none."""
    layers: nn.ModuleList = _first_attribute(model.get_decoder(), _LAYER_NAMES)
    return layers


def _anatomy_of(model: PreTrainedModel, kind: str) -> Anatomy:
    if getattr(model.config, "is_encoder_decoder", False):
        raise UserError(f"{kind} cannot be tapped: it is an encoder-decoder model.")
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
    other = set(getattr(model.config, "layer_types", None) or ()) - {FULL_ATTENTION, SLIDING_ATTENTION}
    if other:
        raise UserError(f"{kind} cannot be tapped: its layers of {', '.join(sorted(other))} are not supported.")
    if getattr(model.config, "use_bidirectional_attention", False):
        raise UserError(f"{kind} cannot be tapped: its attention looks ahead (use_bidirectional_attention).")
    unknown = [name for name in _UNSUPPORTED_READOUT if getattr(model.config, name, None) not in (None, 1, 1.0)]
    if unknown:
        raise UserError(f"{kind} cannot be tapped: its {', '.join(unknown)} is not supported.")
    arguments = signature(type(layers[0]).forward).parameters
    cache_name = next((name for name in _CACHE_NAMES if name in arguments), None)
    if cache_name is None:
        raise UserError(f"{kind} cannot be tapped: its layers take no key-value cache.")
    rotary = getattr(decoder, "rotary_emb", None)
    return Anatomy(
        config=model.config,
        decoder=decoder,
        embeddings=model.get_input_embeddings(),
        layers=layers,
        final_norm=final_norm,
        project_out=getattr(decoder, "project_out", None),
        head=head,
        rotary=rotary,
        rotary_by_type=rotary is not None and "layer_type" in signature(type(rotary).forward).parameters,
        softcap=getattr(model.config, "final_logit_softcapping", None),
        logit_factor=getattr(model.config, "logit_scale", None),
        logit_divisor=getattr(model.config, "logits_scaling", None),
        cache_name=cache_name,
        initialise=model._init_weights,
    )


@contextmanager
def refused_by_name(model: Any, what: str) -> Iterator[None]:
    """Turn any error in an unknown architecture's code into one line that names the architecture.

    Args:
        model: a Transformers model (or anything with its `config`).
        what: what could not be done.

    Raises:
        UserError: instead of any exception other than out of memory.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # several hundred architectures fail in many ways; each means "not this one"
        reason = " ".join(str(error).split())[:160]
        if isinstance(error, RuntimeError) and "memory" in reason.lower():
            raise
        raise UserError(
            f"{type(model).__name__} ({model.config.model_type}) is not supported: {what} "
            f"({type(error).__name__}: {reason}). docs/models.md lists what is."
        ) from error


def keep_differentiable(module: nn.Module) -> None:
    """Let gradients pass through the 4-bit layers of `module`.

    On CPUs with avx512_bf16 bitsandbytes packs the weight in place at the first evaluation, for a product without a
    gradient. Training after that would be silently wrong.
    """
    for part in module.modules():
        if isinstance(part, bitsandbytes.nn.Linear4bit):
            part.support_avx512bf16_for_cpu = False


def _first_attribute(module: nn.Module, names: tuple[str, ...]) -> Any:
    return next((getattr(module, name) for name in names if getattr(module, name, None) is not None), None)
