"""Loading a decoder-only Transformers model frozen, and naming the parts of it that a method needs.

Nothing of a model's own code is copied: the backbone runs through its own `forward`, and what a ladder needs is
found by the attribute names that Transformers uses.
"""

import hashlib
import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import bitsandbytes
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ladder_cli.config import ModelConfig
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
        """Where embeddings and readout live."""
        return next(self.embeddings.parameters()).device

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


def architecture(model: ModelConfig) -> PreTrainedConfig:
    """The backbone's shape without its weights: of its folder if one is given, else of `conf/model`, else of the hub.

    Raises:
        UserError: if none of them can be read, or Transformers does not know the `model_type`.
    """
    if model.path is None and model.shape:
        try:
            return AutoConfig.for_model(**model.shape)
        except (TypeError, ValueError) as error:
            raise UserError(f"model.shape of {model.name}: {' '.join(str(error).split())[:200]}.") from error
    return _published_architecture(model)


def _published_architecture(model: ModelConfig) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(
            model.location, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise UserError(_unreadable(model, model.location, error)) from error


def load_backbone(model: ModelConfig, device: torch.device) -> PreTrainedModel:
    """Load the backbone frozen and in evaluation mode.

    Raises:
        UserError: if the folder or the hub repository cannot be read, or is no decoder-only model.
    """
    location = model.location
    dtype = _dtype(model, device)
    try:
        backbone = AutoModelForCausalLM.from_pretrained(
            location,
            revision=model.revision,
            dtype=dtype,
            attn_implementation=model.attention,
            quantization_config=_quantization(model, dtype),
            device_map={"": device},
            trust_remote_code=model.trust_remote_code,
            local_files_only=Path(location).is_dir(),
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(_unreadable(model, location, error)) from error
    # Copies that `.to()` or quantisation left behind are as frozen as the weights themselves.
    backbone.requires_grad_(False)
    return backbone.eval()


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer, with a padding token (the end token where it brings none).

    Raises:
        UserError: if the folder or the hub repository has none.
    """
    location = model.location
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            location,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            local_files_only=Path(location).is_dir(),
        )
    except (OSError, ValueError) as error:
        raise UserError(_unreadable(model, location, error)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def identity(config: PreTrainedConfig) -> str:
    """A hash of the architecture that an adapter is bound to: shapes, positions and vocabulary.

    How the weights are stored (dtype, quantisation, attention kernel) does not enter, nor the place they came from.
    """
    volatile = {
        "dtype",
        "torch_dtype",
        "quantization_config",
        "transformers_version",
        "_name_or_path",
        "use_cache",
        "architectures",
    }
    values = {key: value for key, value in config.to_dict().items() if key not in volatile}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def parameter_count(model: nn.Module, trained: bool | None = None) -> int:
    """Parameters of a model, each once: all, or only the trained (True) or frozen (False) ones.

    4-bit weights, which bitsandbytes packs two in a byte, count as the weights they stand for.
    """
    total = 0
    for parameter in model.parameters():
        if trained is None or parameter.requires_grad == trained:
            state = getattr(parameter, "quant_state", None)
            total += state.shape.numel() if state is not None else parameter.numel()
    return total


def resolve_device(device: str) -> torch.device:
    """`auto` is the GPU of this process if there is one; `cpu` never touches CUDA.

    Raises:
        UserError: for `cuda` on a machine without.
    """
    if device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        # One process for each card under torchrun and accelerate; everything is loaded where it will be trained.
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
        torch.cuda.set_device(found)
        return found
    if device == "cuda":
        raise UserError("hardware.device=cuda, but torch finds no GPU: use hardware=cpu, or check the driver.")
    return torch.device("cpu")


def _dtype(model: ModelConfig, device: torch.device) -> torch.dtype:
    if model.dtype != "auto":
        return getattr(torch, model.dtype)
    if device.type == "cuda":
        return torch.bfloat16
    stored: Any = _published_architecture(model).dtype
    return stored or torch.float32


def _quantization(model: ModelConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if model.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if model.quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def _unreadable(model: ModelConfig, location: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    where = "the folder" if Path(location).is_dir() else "the hub (or its cache)"
    return (
        f"model={model.name}: cannot load '{location}' from {where}: {reason} -- give a local folder as "
        "model.path=DIR where there is no network."
    )
