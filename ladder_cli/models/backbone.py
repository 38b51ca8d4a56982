"""Loading a decoder-only Transformers model frozen, and its identity."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
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
from ladder_cli.errors import NotReachable, UserError
from ladder_cli.models.lean import make_lean


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
        raise _unreadable(model, model.location, error) from error


def load_backbone(model: ModelConfig, device: torch.device, on_host: bool = False) -> PreTrainedModel:
    """Load the backbone frozen and in evaluation mode.

    Args:
        model: what to load.
        device: where it will compute.
        on_host: leave the weights in the host's memory, for who cuts them before they go to the device.

    Raises:
        UserError: if the folder or the hub repository cannot be read, or is no decoder-only model.
    """
    location = model.location
    dtype = planned_dtype(model, device)
    try:
        backbone = AutoModelForCausalLM.from_pretrained(
            location,
            revision=model.revision,
            dtype=dtype,
            attn_implementation=model.attention,
            quantization_config=_quantization(model, dtype),
            device_map=None if on_host else {"": device},
            trust_remote_code=model.trust_remote_code,
            local_files_only=Path(location).is_dir(),
            use_safetensors=True,
        )
    except (OSError, ValueError, ImportError, SafetensorError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(model, location, error) from error
    # Copies that `.to()` or quantisation left behind are as frozen as the weights themselves.
    backbone.requires_grad_(False)
    make_lean(backbone, model, device)
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
        raise _unreadable(model, location, error) from error
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        # Transformers makes an empty one where the folder holds none.
        raise UserError(
            f"{location} has no tokenizer: put tokenizer.json and tokenizer_config.json beside its config.json "
            "(`tokenizer.save_pretrained` writes them)."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def identity(config: PreTrainedConfig) -> str:
    """A hash of the architecture that an adapter is bound to: shapes, positions and vocabulary.

    How the weights are stored (dtype, quantisation, attention kernel) does not enter, nor the place they came from,
    nor what an adapter's copy of the config leaves out: private names and those of code (`read_ladder_config`).
    """
    volatile = {
        "dtype",
        "torch_dtype",
        "quantization_config",
        "transformers_version",
        "use_cache",
        "architectures",
        "auto_map",
    }
    values = {key: value for key, value in config.to_dict().items() if key not in volatile and not key.startswith("_")}
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


def planned_device(device: str) -> torch.device:
    """The device that a run would use, whether or not it is there: a plan may be made on another machine."""
    return torch.device("cuda") if device == "cuda" else resolve_device(device)


def planned_dtype(model: ModelConfig, device: torch.device) -> torch.dtype:
    """The type that the backbone would compute in on `device`: bfloat16 on a GPU, the checkpoint's own on a CPU.

    Raises:
        UserError: if the checkpoint's own cannot be read.
    """
    if model.dtype != "auto":
        return getattr(torch, model.dtype)
    if device.type == "cuda":
        return torch.bfloat16
    stored: Any = architecture(model).dtype
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


def _unreadable(model: ModelConfig, location: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    local = Path(location).is_dir()
    message = (
        f"model={model.name}: cannot load '{location}' from {'the folder' if local else 'the hub (or its cache)'}: "
        f"{reason} -- give a local folder as model.path=DIR where there is no network."
    )
    return UserError(message) if local else NotReachable(message)
