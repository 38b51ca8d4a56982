"""Checks by content whether a folder is the model that it is named after, before anything slow is imported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.trunk.weights_identity import CONFIG_FILE, same_tensors, weights_files

# Keys of config.json in which two models of one name agree. A fine-tuned model may have another vocabulary, another
# range of positions and another type.
_SIZES = (
    *("model_type", "hidden_size", "n_embd", "intermediate_size", "ffn_dim", "n_inner", "num_hidden_layers", "n_layer"),
    *("num_attention_heads", "n_head", "num_key_value_heads", "head_dim"),
)


def named_by_content(model: ModelConfig, given: list[str]) -> ModelConfig:
    """Return the model under a true name: its preset's, or its folder's if the preset describes another model.

    Args:
        given: options of the command line (`unread.given_options`). `model.name` among them settles the name.

    Raises:
        UserError: if the folder has another shape than the chosen preset describes.
    """
    if model.path is None or "model.name" in given:
        return model
    folder = Path(model.location)
    if model.shape:
        if differences := _differences(model.shape, _config(folder)):
            raise UserError(
                f"model.path={model.path} is not the model that model={model.name} describes "
                f"({'; '.join(differences)}): choose its own preset, or give it a name of its own with model.name=NAME."
            )
        return model
    if "model.path" not in given:
        return model
    preset = replace(model, path=f"builtin:{model.name}")
    try:
        home = Path(preset.location)
    except UserError:
        # The preset gives only a location, and the model is elsewhere now.
        return replace(model, name=_folder_name(folder))
    if _differences(_config(home), _config(folder)) or not _same_tensors(home, folder):
        return replace(model, name=_folder_name(folder))
    return model


def _same_tensors(home: Path, folder: Path) -> bool:
    """Return whether two folders hold the same weights. Unreadable weights are refused later, by the load."""
    try:
        return same_tensors(weights_files(str(home)), weights_files(str(folder)))
    except UserError:
        return False


def _config(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG_FILE} cannot be read as the config of a model ({error}).") from error
    return values if isinstance(values, dict) else {}


def _differences(described: dict[str, Any], there: dict[str, Any]) -> list[str]:
    return [
        f"{key} {there[key]}, not {described[key]}"
        for key in _SIZES
        if None not in (described.get(key), there.get(key)) and described[key] != there[key]
    ]


def _folder_name(folder: Path) -> str:
    return folder.resolve().name or "model"
