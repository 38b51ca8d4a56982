"""An adapter on disk: `adapter_config.json` and `adapter_model.safetensors`, the layout that peft users know.

Files are written whole or not at all. Loading runs no code and checks every name and shape.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.run.files import SUMS, damage, sync, write_text
from ladder_cli.trunk import checkpoint

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# A few kilobytes in truth; whatever is larger is something else.
_LARGEST_CONFIG_BYTES = 16 * 2**20


def write(folder: str | Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Write config and weights into `folder`, replacing what was there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    temporary = folder / (WEIGHTS_FILE + ".tmp")
    save_file(contiguous, temporary, metadata={"format": "pt"})
    sync(temporary)
    os.replace(temporary, folder / WEIGHTS_FILE)
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_config(folder: str | Path, expected: str | None = None) -> dict[str, Any]:
    """The adapter's config.

    Raises:
        UserError: if there is none, it is no JSON object, it is not as it was written, or the adapter is of another
            type than `expected`.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        if path.stat().st_size > _LARGEST_CONFIG_BYTES:
            raise UserError(f"{path} is no adapter's config: it is larger than {_LARGEST_CONFIG_BYTES:,} bytes.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no adapter ({CONFIG_FILE} is missing): did its training finish?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore the file or train again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not an adapter's config: it holds no JSON object.")
    # Adapters of other makers bring no checksums.
    if (Path(folder) / SUMS).is_file() and (wrong := damage(Path(folder))):
        raise UserError(f"{folder}: {wrong}: restore it, or delete {SUMS} if that was your own change.")
    kind = values.pop("adapter_type", None)
    if expected is not None and kind != expected:
        raise UserError(f"{folder} holds no {expected} adapter (its adapter_type is {kind}).")
    return values


def weights_size(folder: str | Path) -> int:
    """Bytes of the weights' file.

    Raises:
        UserError: if there is none.
    """
    try:
        return (Path(folder) / WEIGHTS_FILE).stat().st_size
    except OSError as error:
        raise UserError(f"{folder} holds no adapter weights ({WEIGHTS_FILE} is missing).") from error


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """The stored weights, without what `torch.compile` put into their names; nothing but safetensors is ever read.

    Raises:
        UserError: if the file is missing or broken, or holds a value that is no finite number.
    """
    path = Path(folder) / WEIGHTS_FILE
    try:
        stored = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no adapter weights ({WEIGHTS_FILE} is missing).") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}).") from error
    for name, tensor in stored.items():
        if not tensor.is_floating_point():
            raise UserError(f"{path}: weight {name} is of type {_dtype(tensor)}, not of floating point.")
        if not torch.isfinite(tensor.float()).all():
            raise UserError(f"{path}: weight {name} holds values that are not finite.")
    return {checkpoint.without_compile(name): tensor for name, tensor in stored.items()}


def check_fit(stored: dict[str, Tensor], own: dict[str, Tensor], folder: str | Path) -> None:
    """Refuse weights that are not exactly those that a model has.

    Raises:
        UserError: if a weight is missing, left over, of another shape or of another type.
    """
    path = Path(folder) / WEIGHTS_FILE
    wrong = sorted(own.keys() ^ stored.keys())
    if wrong:
        name, more = wrong[0], f", and {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
        raise UserError(f"{path}: weight {name} is {'missing' if name in own else 'not part of this adapter'}{more}.")
    for name, tensor in own.items():
        if tensor.shape != stored[name].shape:
            raise UserError(f"{path}: weight {name} has shape {list(stored[name].shape)}, not {list(tensor.shape)}.")
        if tensor.dtype != stored[name].dtype:
            raise UserError(f"{path}: weight {name} is of type {_dtype(stored[name])}, not {_dtype(tensor)}.")


def load_into(module: nn.Module, folder: str | Path) -> None:
    """Copy the stored weights into `module`, whose parameters they must match exactly.

    Raises:
        UserError: if the file is missing or broken, or a weight is missing, left over or of another shape or type.
    """
    stored = read_weights(folder)
    check_fit(stored, module.state_dict(), folder)
    module.load_state_dict(stored)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def check_backbone(folder: str | Path, trained_on: str, given: str) -> None:
    """Refuse a backbone of another architecture than the adapter was trained on.

    Raises:
        UserError: if the two identities differ.
    """
    if trained_on != given:
        raise UserError(
            f"the adapter in {folder} was trained on another backbone (architecture {trained_on}, this one is "
            f"{given}): load it on the model that its {CONFIG_FILE} names."
        )


def load_recorded_backbone(name: str, revision: str | None, load_options: dict[str, Any]) -> PreTrainedModel:
    """The backbone that an adapter names.

    Raises:
        UserError: if it cannot be loaded.
    """
    try:
        return checkpoint.load_weights(name, revision=revision, **load_options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot load the adapter's backbone '{name}': {reason} -- pass backbone=.") from error
