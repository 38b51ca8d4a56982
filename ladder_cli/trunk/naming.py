"""Is a folder the model whose name it goes by? Asked of its content, before anything slow is imported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.trunk.weights_identity import CONFIG_FILE, same_tensors, weights_files

# What two models of one name share, by the keys of their config.json. A fine-tuned one may well have another
# vocabulary, another range of positions and another type.
_SIZES = (
    *("model_type", "hidden_size", "n_embd", "intermediate_size", "ffn_dim", "n_inner", "num_hidden_layers", "n_layer"),
    *("num_attention_heads", "n_head", "num_key_value_heads", "head_dim"),
)


def named_by_content(model: ModelConfig, given: list[str]) -> ModelConfig:
    """The model under a name that is true: its preset's, or where the preset describes another model its folder's.

    Args:
        given: options of the command line (`unread.given_options`). A `model.name` among them is the user's word.

    Raises:
        UserError: if a folder was given that is not of the shape which the chosen preset describes.
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
        # The preset said no more than where the model lies, and now it lies elsewhere.
        return replace(model, name=_folder_name(folder))
    if _differences(_config(home), _config(folder)) or not _same_tensors(home, folder):
        return replace(model, name=_folder_name(folder))
    return model


def _same_tensors(home: Path, folder: Path) -> bool:
    """Whether two folders hold the same weights; a folder whose weights cannot be read is refused when it is loaded."""
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
