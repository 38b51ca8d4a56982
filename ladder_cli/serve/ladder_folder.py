"""A ladder and its backbone as one model folder: what `vllm serve` reads with this package's plugin.

    config.json                     model_type `served_ladder`; with all sizes of the side network
    model*.safetensors              the backbone, under Transformers' names
    side.safetensors                the side network, every name behind `side.`
    model.safetensors.index.json    which weight is where
    generation_config.json, tokenizer

The adapter alone (`LadderModel.save_pretrained`) is what training writes; this is for those who serve it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import cached_file

from ladder_cli.errors import UserError
from ladder_cli.nn.ladder import LadderModel
from ladder_cli.nn.ladder_config import LadderConfig, checked_config, plain_config
from ladder_cli.run.files import write_text
from ladder_cli.serve.served import ARCHITECTURE, MODEL_TYPE, SERVED_BACKBONES, SIDE_PREFIX
from ladder_cli.trunk.weights_identity import CONFIG_FILE, INDEX_FILE, SINGLE_FILE

SIDE_FILE = "side.safetensors"
# Where Transformers is to look for files.
_FROM_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")


def write_ladder_folder(
    model: LadderModel, folder: Path, backbone_name: str, side_dtype: torch.dtype = torch.float32
) -> None:
    """Write a ladder whose backbone is dense, what was put into its layers added to their weights (`densify`).

    Args:
        model: its active side network is written, and its backbone in the type that it is in.
        folder: to fill.
        backbone_name: where the backbone came from, for the record.
        side_dtype: of the side network's weights; by default as they were trained.

    Raises:
        UserError: if the plugin cannot serve such a backbone.
    """
    config: Any = model.config
    refuse_unserved(config)
    backbone = model.bare_backbone
    backbone.save_pretrained(folder)
    state = model.side.state_dict()
    stored = {f"{SIDE_PREFIX}{name}": weight.to("cpu", side_dtype).contiguous() for name, weight in state.items()}
    save_file(stored, folder / SIDE_FILE, metadata={"format": "pt"})
    write_text(folder / INDEX_FILE, json.dumps(_index(folder, stored), indent=2) + "\n")
    values = plain_config(config) | {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "backbone": plain_config(backbone.config),
        "backbone_name": backbone_name,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "tie_word_embeddings": bool(backbone.config.tie_word_embeddings),
        "side": _side(model),
        **({"rank": 0} if config.suffix_layers else {}),  # it is in the weights
    }
    write_text(folder / CONFIG_FILE, json.dumps(values, indent=2, sort_keys=True) + "\n")


def refuse_unserved(config: LadderConfig) -> None:
    """Refuse a backbone that the plugin has no layers for.

    Raises:
        UserError: naming it.
    """
    kind = config.backbone_config().model_type
    if kind not in SERVED_BACKBONES:
        raise UserError(
            f"format=vllm knows ladders on {', '.join(SERVED_BACKBONES)}, and this one stands on {kind}: ask it with "
            "ladder-chat or ladder-eval."
        )


def _side(model: LadderModel) -> dict[str, Any]:
    """The side network's sizes, as its layers have them."""
    side, shape = model.side, model.config.side_attention()
    return {
        "hidden_size": side.config.hidden_size,
        "intermediate_size": side.config.intermediate_size,
        **shape.as_dict(),
        "layer_types": list(side.layer_types),
        "rms_norm_eps": side.config.rms_norm_eps,
        "rope_parameters": side.config.rope_parameters,
        "sliding_window": getattr(side.config, "sliding_window", None),
        "reads_final": bool(side.combine.reads_final),
        **_built_of(side.layers[0]),
    }


def _built_of(layer: Any) -> dict[str, bool]:
    """Which optional weights a side layer has."""
    attention, feed_forward = layer.self_attn, getattr(layer.mlp, "up_proj", None)
    return {
        "qkv_bias": attention.q_proj.bias is not None,
        "o_bias": attention.o_proj.bias is not None,
        "mlp_bias": feed_forward is not None and feed_forward.bias is not None,
        "qk_norm": hasattr(attention, "q_norm"),
    }


def _index(folder: Path, side: dict[str, Any]) -> dict[str, Any]:
    """The backbone's index with the side network in it."""
    found, total = {}, sum(weight.nbytes for weight in side.values())
    path = folder / INDEX_FILE
    if path.is_file():
        index = json.loads(path.read_text(encoding="utf-8"))
        found, total = index["weight_map"], total + int(index["metadata"]["total_size"])
    else:
        stored = load_file(folder / SINGLE_FILE)
        found, total = dict.fromkeys(stored, SINGLE_FILE), total + sum(weight.nbytes for weight in stored.values())
    return {"metadata": {"total_size": total}, "weight_map": found | dict.fromkeys(side, SIDE_FILE)}


def read_ladder_folder(folder: str | Path, config: LadderConfig | None = None, **options: Any) -> LadderModel:
    """The ladder in a folder that `write_ladder_folder` wrote, in evaluation mode.

    Args:
        folder: on this machine, or the name of a repository of the hub that holds its files.
        config: as it stands in the folder; None reads it.
        options: as `AutoModelForCausalLM.from_pretrained` takes them, for the backbone: dtype, device_map,
            quantization_config, revision, token, ...

    Raises:
        UserError: if a weight is missing, left over, or of another shape, or the folder holds no ladder.
    """
    from_hub = {name: options[name] for name in _FROM_HUB if name in options}
    try:
        values = json.loads(_file(folder, CONFIG_FILE, from_hub).read_text(encoding="utf-8"))
        side = load_file(_file(folder, SIDE_FILE, from_hub))
        written = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[values["dtype"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder} holds no exported ladder ({' '.join(str(error).split())[:160]}).") from error
    config = config or checked_config(values, str(folder))
    asked = options.pop("dtype", "auto")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config.backbone_config(),
        dtype=written if asked in ("auto", None) else asked,
        output_loading_info=True,
        use_safetensors=True,
        **options,
    )
    backbone, info = loaded
    wrong = [name for name in info["unexpected_keys"] if not name.startswith(SIDE_PREFIX)]
    wrong += [*info["missing_keys"], *info["mismatched_keys"]]
    if wrong:
        raise UserError(f"{folder}: the backbone's weights are not those of its config ({wrong[0]}).")
    model = LadderModel(config, backbone)
    try:
        model.side.load_state_dict({name.removeprefix(SIDE_PREFIX): weight for name, weight in side.items()})
    except RuntimeError as error:
        raise UserError(f"{folder}/{SIDE_FILE}: {' '.join(str(error).split())[:200]}.") from error
    return model.eval()


def _file(folder: str | Path, name: str, from_hub: dict[str, Any]) -> Path:
    """A file of the folder, or of the repository, on this machine.

    Raises:
        OSError: if it is not there.
    """
    return Path(str(cached_file(str(folder), name, **from_hub)))
