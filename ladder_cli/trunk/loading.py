"""Loading a decoder-only Transformers model frozen, and its identity."""

import hashlib
import json
import os
from collections.abc import Callable
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
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ladder_cli import hub
from ladder_cli.config.choices import Device, Dtype, Quantization, parse_choice
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import NotReachable, UserError
from ladder_cli.trunk.checkpoint import load_weights
from ladder_cli.trunk.compact import make_lean


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
    published = _published_architecture(model)
    return _text_part(published) or published


def _text_part(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """Of a model for text and images the language model alone, where it is one that can stand alone (Gemma 3)."""
    text = config.get_text_config(decoder=True)
    if text is config or text.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return None
    text.dtype = text.dtype or config.dtype
    return text


def _published_architecture(model: ModelConfig) -> PreTrainedConfig:
    _ask_hub_first(model)
    try:
        return AutoConfig.from_pretrained(
            model.location, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise _unreadable(model, model.location, error) from error


def backbone_shape(model: ModelConfig, dtype: torch.dtype, attention: str | None = None) -> PreTrainedModel:
    """The backbone on the default device without its weights being read: on `meta`, for whoever asks for shapes alone.

    Args:
        model: what it is.
        dtype: the type that it computes in.
        attention: implementation in place of `model.attention`, for whoever counts on another device.

    Raises:
        UserError: if its shape cannot be read, it is no decoder-only model, or it has no such attention.
    """
    config = architecture(model)
    try:
        return AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation=attention or model.attention,
            trust_remote_code=model.trust_remote_code,
        )
    except Exception as error:  # several hundred architectures' own code
        raise _not_built(model, config.model_type, error) from error


def _not_built(model: ModelConfig, kind: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    if "attention" in reason or "flash" in reason:
        return UserError(
            f"model.attention={model.attention} does not go with {model.name} ({kind}): use model.attention=eager "
            f"({reason})."
        )
    return UserError(f"model={model.name} ({kind}) is no decoder-only model that can be built: {reason}.")


def has_sdpa(config: PreTrainedConfig) -> bool:
    """Whether Transformers computes this architecture's attention by PyTorch's SDPA too; attention sinks, it cannot."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING
    return bool(getattr(known[type(config)], "_supports_sdpa", True)) if type(config) in known else True


def load_backbone(model: ModelConfig, device: torch.device, on_host: bool = False) -> PreTrainedModel:
    """Load the backbone frozen and in evaluation mode.

    Args:
        model: what to load.
        device: where it will compute.
        on_host: leave the weights in the host's memory, for who cuts them before they go to the device.

    Raises:
        UserError: if the folder or the hub repository cannot be read, is no decoder-only model, or holds other weights
            than its config.json says (`checkpoint.load_weights`).
    """
    published = _published_architecture(model)
    config = _text_part(published) or published
    backbone = _load(model, device, config if config is not published else None, None if on_host else {"": device})
    make_lean(backbone, model, device)
    return backbone


def load_first_layer(model: ModelConfig, device: torch.device) -> PreTrainedModel:
    """The backbone with the first of its layers alone, and all that is not in a layer; raises as `load_backbone`."""
    config = loaded_architecture(model)
    config.num_hidden_layers = 1  # the types of the others stay, for which rotary positions are made too
    return _load(model, device, config, {"": device}, layers=1)


def loaded_architecture(model: ModelConfig) -> PreTrainedConfig:
    """The architecture as `load_backbone` takes it: of the folder or repository, never of `conf/model`.

    Raises:
        UserError: if it cannot be read.
    """
    published = _published_architecture(model)
    return _text_part(published) or published


def _load(
    model: ModelConfig,
    device: torch.device,
    config: PreTrainedConfig | None,
    device_map: dict[str, torch.device] | None,
    layers: int | None = None,
) -> PreTrainedModel:
    location = model.location
    dtype = planned_dtype(model, device)
    refuse_attention(model, config if config is not None else _published_architecture(model))
    try:
        backbone = load_weights(
            location,
            config,
            layers,
            revision=model.revision,
            dtype=dtype,
            attn_implementation=model.attention,
            quantization_config=quantization(model, dtype),
            device_map=device_map,
            trust_remote_code=model.trust_remote_code,
            local_files_only=Path(location).is_dir(),
        )
    except (OSError, ValueError, ImportError, SafetensorError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(model, location, error) from error
    except RuntimeError as error:  # what Transformers cannot convert to its own form of experts
        if "conversion" not in str(error):
            raise
        raise _unreadable(model, location, error) from error
    # Copies that `.to()` or quantisation left behind are as frozen as the weights themselves.
    return backbone.requires_grad_(False).eval()


def refuse_attention(model: ModelConfig, config: PreTrainedConfig) -> None:
    """Refuse SDPA where an architecture's attention is not made of it.

    Raises:
        UserError: with what to use.
    """
    if model.attention == "sdpa" and not has_sdpa(config):
        raise UserError(
            f"model.attention=sdpa does not go with {model.name} ({config.model_type}), whose attention is not made of "
            "PyTorch's SDPA: use model.attention=eager."
        )


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer, with a padding token (the end token where it brings none).

    Raises:
        UserError: if the folder or the hub repository has none.
    """
    location = model.location
    _ask_hub_first(model)
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

    4-bit weights, which bitsandbytes packs two in a byte, count as the weights they stand for, and of those that lie
    with other processes too.
    """
    counted: dict[int, int] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and (trained is None or parameter.requires_grad == trained):
                # A plain weight in its place is one that several processes hold (`stored_modules.lay_bare`).
                beside = getattr(module, "quant_state", None) if name == "weight" else None
                state = getattr(parameter, "quant_state", None) or beside
                counted[id(parameter)] = state.shape.numel() if state is not None else parameter.numel()
    return sum(counted.values())


def resolve_device(device: Device | str) -> torch.device:
    """`auto` is the GPU of this process if there is one; `cpu` never touches CUDA.

    Raises:
        UserError: for a device that this machine, or this build of torch, does not have; or no such choice.
    """
    return _DEVICES[parse_choice("hardware.device", device, Device)]()


def _cpu() -> torch.device:
    return torch.device("cpu")


def _card() -> torch.device:
    if not torch.cuda.is_available():
        raise UserError("hardware.device=cuda, but torch finds no GPU: use hardware=cpu, or check the driver.")
    # One process for each card under torchrun and accelerate; everything is loaded where it will be trained.
    found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    torch.cuda.set_device(found)
    return found


def _card_if_any() -> torch.device:
    return _card() if torch.cuda.is_available() else _cpu()


def _apple() -> torch.device:
    if not torch.backends.mps.is_available():
        raise UserError("hardware.device=mps, but torch finds no Apple GPU: use hardware=cpu.")
    return torch.device("mps")


def _intel() -> torch.device:
    if not torch.xpu.is_available():
        raise UserError(
            "hardware.device=xpu, but torch finds no Intel GPU: use hardware=cpu, or torch's build for XPU."
        )
    return torch.device("xpu")


_DEVICES: dict[Device, Callable[[], torch.device]] = {
    Device.AUTO: _card_if_any,
    Device.CPU: _cpu,
    Device.CUDA: _card,
    Device.MPS: _apple,
    Device.XPU: _intel,
}


def planned_device(device: Device | str) -> torch.device:
    """The device that a run would use, whether or not it is there: a plan may be made on another machine."""
    chosen = parse_choice("hardware.device", device, Device)
    return torch.device(chosen) if chosen not in (Device.AUTO, Device.CPU) else resolve_device(chosen)


def planned_dtype(model: ModelConfig, device: torch.device) -> torch.dtype:
    """The type that the backbone would compute in on `device`: bfloat16 on a GPU, the checkpoint's own on a CPU.

    Raises:
        UserError: if the checkpoint's own cannot be read.
    """
    if model.dtype is not Dtype.AUTO:
        return _DTYPES[model.dtype]
    if device.type == "cuda":
        return torch.bfloat16
    stored: Any = architecture(model).dtype
    return stored or torch.float32


_DTYPES: dict[Dtype, torch.dtype] = {
    Dtype.FLOAT32: torch.float32,
    Dtype.BFLOAT16: torch.bfloat16,
    Dtype.FLOAT16: torch.float16,
}


def quantization(model: ModelConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How bitsandbytes stores the layers; None: as they are."""
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    settings: dict[Quantization, dict[str, Any]] = {
        Quantization.NONE: {},
        Quantization.INT8: {"load_in_8bit": True},
        Quantization.NF4: {"load_in_4bit": True, **nf4},
    }
    chosen = settings[model.quantization]
    return BitsAndBytesConfig(**chosen) if chosen else None


def _ask_hub_first(model: ModelConfig) -> None:
    """Where the model comes from the hub and that does not answer: its cache alone, without a minute of retries."""
    if not Path(model.location).is_dir():
        hub.settle_offline()


def _unreadable(model: ModelConfig, location: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    if Path(location).is_dir():
        return UserError(f"model={model.name}: cannot load the folder '{location}': {reason}.")
    if hub.offline() and not hub.cached(location, model.revision):
        return NotReachable(hub.missing_model(model.name, location))
    source = f"the cache ({hub.reason()})" if hub.offline() else "the hub"
    return NotReachable(f"model={model.name}: cannot load '{location}' from {source}: {reason}.")
