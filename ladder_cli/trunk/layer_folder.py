"""Layer files of one backbone in one form: where they lie, and how they are made out of a checkpoint, once.

They are made tensor by tensor, so that no more than a layer is in memory; embeddings, final norm and head, which no
layer holds, go into a file of their own. Several processes may ask for them at a time: one makes them, the others
wait. Whoever was killed while making them goes on where it was.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

from ladder_cli.config.choices import Quantization
from ladder_cli.config.schema import ModelConfig
from ladder_cli.errors import UserError
from ladder_cli.ranks import is_main_process
from ladder_cli.run.claim import claimed
from ladder_cli.run.files import write_text
from ladder_cli.trunk.checkpoint import is_other_part, layer_number, made_by_the_model, name_in_layer
from ladder_cli.trunk.layer_files import Contents, LayerFile, few_pages, write_contents
from ladder_cli.trunk.loading import (
    load_first_layer,
    loaded_architecture,
    planned_dtype,
    quantization,
    refuse_attention,
)
from ladder_cli.trunk.parts import anatomy_of
from ladder_cli.trunk.stored_modules import put_together, taken_apart
from ladder_cli.trunk.weights_identity import weights_files, weights_identity

_LOG = logging.getLogger("ladder_cli")
_VERSION = 1
MANIFEST, REST = "manifest.json", "rest.bin"


@dataclass(frozen=True)
class LayerFolder:
    """The files of one backbone.

    Attributes:
        path: of the folder.
        layers: how many there are.
        weights: identity of the checkpoint that they were made of.
    """

    path: Path
    layers: int
    weights: str

    def layer(self, number: int) -> Path:
        """The file of a layer, counted from 1."""
        return self.path / f"layer-{number:03d}.bin"

    @property
    def rest(self) -> Path:
        """The file of all that is in no layer."""
        return self.path / REST

    @property
    def complete(self) -> bool:
        """Whether all of them are there."""
        files = (self.path / MANIFEST, self.rest, *(self.layer(number) for number in range(1, self.layers + 1)))
        return all(file.is_file() for file in files)


def layer_folder(model: ModelConfig, device: torch.device, place: Path | None = None) -> LayerFolder:
    """Where the files of a backbone are or will be, by the identity of its weights and the form they are kept in.

    Args:
        model: what it is.
        device: that it is quantised on, which the last bit of a scale may depend on.
        place: the folder above; None: in the user's cache.

    Raises:
        UserError: if its weights cannot be read.
    """
    identity = weights_identity(model.location, model.revision)
    dtype = str(planned_dtype(model, device)).removeprefix("torch.")
    form = dtype if model.quantization is Quantization.NONE else f"{model.quantization}-{dtype}-{device.type}"
    above = place if place is not None else _cache()
    layers = int(loaded_architecture(model).num_hidden_layers)
    return LayerFolder(above / f"{identity}-{form}-{_VERSION}", layers, identity)


def prepare_layers(model: ModelConfig, device: torch.device, place: Path | None = None) -> LayerFolder:
    """Make the layer files that are not there yet.

    Args:
        model: what to take apart.
        device: that it is quantised on.
        place: see `layer_folder`.

    Raises:
        UserError: if the checkpoint cannot be read or taken apart, or there is no room for the files.
    """
    folder = layer_folder(model, device, place)
    if not folder.complete:
        with claimed(folder.path, wait=True):
            if not folder.complete:
                _make(folder, model, device)
    with contextlib.suppress(OSError):  # somebody else's, who lets others read them
        os.utime(folder.path / MANIFEST)  # used last; `prune_layers` asks
    return folder


def _make(folder: LayerFolder, model: ModelConfig, device: torch.device) -> None:
    for left in folder.path.glob("*.tmp"):
        left.unlink(missing_ok=True)
    source = _Checkpoint(model, device)
    missing = [number for number in range(1, folder.layers + 1) if not folder.layer(number).is_file()]
    if is_main_process():
        _LOG.warning("note: making %d layer files of %s in %s, once", len(missing), model.name, folder.path)
    if not folder.rest.is_file():
        # The first layer comes through Transformers too: what is taken apart here has to be what it would load.
        with few_pages(weights_files(model.location, model.revision)[1:]):
            first = load_first_layer(model, device)
        layers = anatomy_of(first).layers
        source.compare(taken_apart(layers[0]))
        _refuse_full(folder, source.bytes_of_layer * len(missing))
        write_contents(folder.rest, taken_apart(first, without=[layers], buffers=True))
        del first, layers
    for number in missing:
        write_contents(folder.layer(number), source.layer(number))
    told = {
        "weights": folder.weights,
        "layers": folder.layers,
        "quantization": model.quantization.value,
        "model": model.name,
    }
    write_text(folder.path / MANIFEST, json.dumps(told, indent=1) + "\n")


def _refuse_full(folder: LayerFolder, needed: int) -> None:
    free = shutil.disk_usage(folder.path).free
    if needed > free:
        raise UserError(
            f"the layer files take {needed / 1e9:.1f} GB in {folder.path}, and {free / 1e9:.1f} GB are free: make "
            "room, or give another folder as trunk.layer_files=DIR."
        )


def layer_cache(place: str | None) -> Path:
    """The folder above all layer files; None: in the user's cache."""
    return Path(place) if place is not None else _cache()


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "ladder-cli" / "layers"


def skeleton(model: ModelConfig, device: torch.device) -> PreTrainedModel:
    """The backbone without values, its layers of the kinds that Transformers would make of them; on `meta`.

    Raises:
        UserError: if its shape cannot be read, or its layers hold more than weights.
    """
    return _skeleton(model, device)[0]


def _skeleton(model: ModelConfig, device: torch.device) -> tuple[PreTrainedModel, Any]:
    config, dtype = loaded_architecture(model), planned_dtype(model, device)
    refuse_attention(model, config)
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=model.attention, trust_remote_code=model.trust_remote_code
        )
        asked = quantization(model, dtype)
        quantizer = None
        if asked is not None:
            quantizer = AutoHfQuantizer.from_config(asked, pre_quantized=False)
            quantizer.preprocess_model(model=built, device_map={"": device}, dtype=dtype, config=config)
            quantizer.postprocess_model(built, config=config)
            built.hf_quantizer = quantizer
    layers = anatomy_of(built).layers
    if any(True for layer in layers for _ in layer.buffers()):
        raise UserError(
            f"{type(built).__name__} ({config.model_type}) has no layer files: its layers hold more than weights. Use "
            "trunk.residency=resident; with hardware.shard_backbone=true, model.quantization=none."
        )
    return built.requires_grad_(False).eval(), quantizer


class _Checkpoint:
    """A checkpoint whose layers are read one at a time."""

    def __init__(self, model: ModelConfig, device: torch.device) -> None:
        self._name, self._device = model.name, device
        self._model, self._quantizer = _skeleton(model, device)
        self._layers = anatomy_of(self._model).layers
        self._prefix = next(name for name, module in self._model.named_modules() if module is self._layers)
        self._places = self._find(weights_files(model.location, model.revision)[1:])
        self.bytes_of_layer = 0

    def _find(self, files: list[Path]) -> dict[int, dict[str, tuple[Path, str]]]:
        """Where each layer's tensors are: number -> name within the layer -> file and name there."""
        places: dict[int, dict[str, tuple[Path, str]]] = {}
        for path in files:
            with self._readable(path), safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    number = layer_number(name)
                    if number is not None and not is_other_part(name) and not made_by_the_model(name):
                        places.setdefault(number, {})[name_in_layer(name)] = (path, name)
        return places

    @contextlib.contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{path} is damaged or no safetensors file ({error}).") from error

    def layer(self, number: int) -> Contents:
        """The tensors of a layer, counted from 1, as Transformers would have them in memory; quantised.

        Raises:
            UserError: if its weights in the checkpoint are not those of the architecture's layer.
        """
        layer = self._layers[number - 1]
        wanted = dict(layer.named_parameters())
        places = self._places.get(number - 1, {})
        if places.keys() != wanted.keys():
            raise self._refused(f"layer {number} is stored in another form", wanted.keys() ^ places.keys())
        values = {name: self._converted(layer, number, name, wanted[name], *places[name]) for name in wanted}
        modules = dict(layer.named_modules())
        for full, parameter in values.items():
            prefix, _, name = full.rpartition(".")
            modules[prefix]._parameters[name] = parameter
        contents = taken_apart(layer)
        for full, parameter in wanted.items():
            prefix, _, name = full.rpartition(".")
            modules[prefix]._parameters[name] = parameter
        self.bytes_of_layer = sum(tensor.nbytes for tensor in contents.tensors.values())
        return contents

    def _converted(
        self, layer: nn.Module, number: int, name: str, own: nn.Parameter, path: Path, stored: str
    ) -> nn.Parameter:
        with self._readable(path), safe_open(path, framework="pt") as file:
            value = file.get_tensor(stored)
        full = f"{self._prefix}.{number - 1}.{name}"
        if self._quantizer is not None and self._quantizer.param_needs_quantization(self._model, full):
            value = value.to(self._device, self._model.dtype)
            quantize = self._quantizer.get_quantize_ops()
            made: nn.Parameter = quantize.convert({full: value}, full_layer_name=full, model=self._model)[full]
            return made
        if value.shape != own.shape:
            raise self._refused(f"layer {number} is of another shape", [name])
        return nn.Parameter(value.to(own.dtype), requires_grad=False)

    def compare(self, first: Contents) -> None:
        """Hold layer 1 against what Transformers makes of it.

        Raises:
            UserError: if they differ.
        """
        mine = self.layer(1)
        other = [name for name in first.tensors if not _equal(name, first.tensors, mine.tensors)]
        if other or first.facts != mine.facts or first.tensors.keys() != mine.tensors.keys():
            raise self._refused("its layers are not as they are stored", other)

    def _refused(self, what: str, names: Any) -> UserError:
        shown = ", ".join(sorted(names)[:3])
        return UserError(
            f"the layers of {self._name} ({self._model.config.model_type}) have no layer files: {what} ({shown}). "
            "Use trunk.residency=resident; with hardware.shard_backbone=true, model.quantization=none."
        )


def _equal(name: str, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return name in other and torch.equal(one[name].cpu(), other[name].cpu())


def filled(
    model: ModelConfig, device: torch.device, folder: LayerFolder
) -> tuple[PreTrainedModel, list[LayerFile], LayerFile]:
    """The backbone over its mapped files, the files of its layers in their order, and that of the rest.

    Args:
        model: what it is.
        device: that it will compute on; weights stay where they are mapped.
        folder: complete.

    Raises:
        UserError: if a file is damaged, or not of this backbone.
    """
    built = skeleton(model, device)
    layers = anatomy_of(built).layers
    files = [LayerFile(folder.layer(number)) for number in range(1, folder.layers + 1)]
    rest = LayerFile(folder.rest)
    rest.check()
    try:
        for layer, file in zip(layers, files, strict=True):
            put_together(layer, file.contents)
        put_together(built, rest.contents)
    except KeyError as error:
        raise UserError(f"{folder.path} lacks {error}: delete the folder, and it is made anew.") from error
    return built, files, rest
