"""An adapter on disk: `adapter_config.json` and `adapter_model.safetensors`, the layout that peft users know.

Files are written whole or not at all. Loading runs no code and checks every name and shape.
"""

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.run.files import SUMS, Damaged, sha256, sync, verified, write_text
from ladder_cli.trunk import checkpoint

PEFT, LADDER = "peft", "ladder"  # what reads an adapter (`AdapterFolder.loader`)
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


class AdapterFolder:
    """An adapter on disk, opened and verified once; whoever needs its config, digest or weights asks this object.

    The weights' file is read once when the folder is verified (or its digest first asked for), and once by `tensors`.
    As a text it is its path.
    """

    def __init__(self, path: Path, values: dict[str, Any], digests: Mapping[str, str]) -> None:
        """Use `open`.

        Args:
            values: of the config's JSON.
            digests: SHA-256 by name of the files that were verified; empty where the folder brings no checksums.
        """
        self.path = path
        self._values = dict(values)
        # What other makers write has `peft_type` alone.
        self.kind: str | None = self._values.pop("adapter_type", None)
        self._digests = digests

    @classmethod
    def open(cls, path: "str | Path | AdapterFolder") -> "AdapterFolder":
        """Verify a folder: its checksums, where it brings some, and that its config is a JSON object.

        A folder that is open already is given back as it is.

        Raises:
            UserError: if there is no config, it is no JSON object, or a file is not as it was written.
        """
        if isinstance(path, AdapterFolder):
            return path
        folder = Path(path)
        values = _read_values(folder)
        digests: dict[str, str] = {}
        # Adapters of other makers bring no checksums.
        if (folder / SUMS).is_file():
            try:
                digests = verified(folder)
            except Damaged as wrong:
                raise UserError(
                    f"{folder}: {wrong}: restore it, or delete {SUMS} if that was your own change."
                ) from wrong
        return cls(folder, values, digests)

    @classmethod
    def of_checkpoint(cls, path: str | Path) -> "AdapterFolder":
        """The weights in a folder that its owner has verified, and whose config is known: nothing is read yet."""
        return cls(Path(path), {}, {})

    @staticmethod
    def has_weights(path: str | Path) -> bool:
        """Whether a folder holds an adapter's weights, in whatever state."""
        return (Path(path) / WEIGHTS_FILE).is_file()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def weights(self) -> Path:
        """The weights' file, which need not be there."""
        return self.path / WEIGHTS_FILE

    def config(self, kind: str | None = None) -> dict[str, Any]:
        """The values of `adapter_config.json`, without the kind.

        Raises:
            UserError: if the adapter is of another kind than `kind`, where that is given.
        """
        if kind is not None and self.kind != kind:
            raise UserError(f"{self} holds no {kind} adapter (its adapter_type is {self.kind}).")
        return dict(self._values)

    @property
    def loader(self) -> str | None:
        """What reads it: `PEFT` where peft says what the adapter is, else its kind."""
        return PEFT if self._values.get("peft_type") is not None else self.kind

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights' file, in hexadecimal digits.

        Raises:
            UserError: if there is none.
        """
        known = self._digests.get(WEIGHTS_FILE)
        if known is not None:
            return known
        try:
            return sha256(self.weights)
        except OSError as error:
            raise UserError(f"{self} holds no adapter weights ({WEIGHTS_FILE} is missing).") from error

    @property
    def weights_size(self) -> int:
        """Bytes of the weights' file.

        Raises:
            UserError: if there is none.
        """
        try:
            return self.weights.stat().st_size
        except OSError as error:
            raise UserError(f"{self} holds no adapter weights ({WEIGHTS_FILE} is missing).") from error

    def tensors(self, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The stored weights: exactly those of `expected`, by name, shape and type, and every value finite.

        Names are read without what `torch.compile` put into them; nothing but safetensors is ever read.

        Args:
            expected: whose names, shapes and types count, and not its values.

        Raises:
            UserError: if the file is missing or broken, a weight is missing, left over, of another shape or type, or
                holds a value that is no finite number.
        """
        stored = self._read()
        wrong = sorted(expected.keys() ^ stored.keys())
        if wrong:
            name, more = wrong[0], f", and {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
            raise UserError(
                f"{self.weights}: weight {name} is {'missing' if name in expected else 'not part of this adapter'}"
                f"{more}."
            )
        for name, tensor in expected.items():
            has = stored[name]
            if tensor.shape != has.shape:
                raise UserError(f"{self.weights}: weight {name} has shape {list(has.shape)}, not {list(tensor.shape)}.")
            if tensor.dtype != has.dtype:
                raise UserError(f"{self.weights}: weight {name} is of type {_dtype(has)}, not {_dtype(tensor)}.")
        return stored

    def _read(self) -> dict[str, Tensor]:
        try:
            stored = load_file(self.weights)
        except FileNotFoundError as error:
            raise UserError(f"{self} holds no adapter weights ({WEIGHTS_FILE} is missing).") from error
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.weights} is damaged or no safetensors file ({error}).") from error
        for name, tensor in stored.items():
            if not tensor.is_floating_point():
                raise UserError(f"{self.weights}: weight {name} is of type {_dtype(tensor)}, not of floating point.")
            if not torch.isfinite(tensor.float()).all():
                raise UserError(f"{self.weights}: weight {name} holds values that are not finite.")
        return {checkpoint.without_compile(name): tensor for name, tensor in stored.items()}


def _read_values(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
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
    return values


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def check_backbone(folder: str | Path | AdapterFolder, trained_on: str, given: str) -> None:
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
