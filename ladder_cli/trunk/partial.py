"""A backbone whose lower layers were not loaded, since all that is read of them lies in a cache of taps.

The upper layers, the embeddings, the final norm and the head are the checkpoint's; the layers below are shapes on the
meta device. Should a row be missing all the same (a shard that was damaged), the whole backbone is loaded after all.
"""

import copy
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.base import Batch, TapRequest, Taps, Trunk
from ladder_cli.trunk.checkpoint import refuse_not_finite
from ladder_cli.trunk.compact import make_lean
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture, backbone_shape, planned_dtype, quantization
from ladder_cli.trunk.parts import layers_of
from ladder_cli.trunk.weights_identity import weights_files

_LOG = logging.getLogger("ladder_cli")
_LAYER = re.compile(r"\b(?:layers|h)\.(\d+)\.")
# Lists of a config with an entry for each layer.
_PER_LAYER = ("layer_types", "no_rope_layers", "mlp_layer_types")


class CannotBePartial(Exception):
    """The layers of this checkpoint cannot be told apart by their names, or come with code of their own."""


class PartialTrunk(LiveTrunk):
    """A trunk that has only its upper layers, and asks another one for the rest, which it opens if it must."""

    def __init__(self, backbone: PreTrainedModel, name: str, revision: str | None, whole: Callable[[], Trunk]) -> None:
        """`whole`: opens the same backbone with all its layers."""
        super().__init__(backbone, name, revision)
        self._open = whole
        self._whole: Trunk | None = None

    def taps(self, request: TapRequest, batch: Batch, cache: Cache | None = None, /, **more: Any) -> Taps:
        """Of the whole backbone, which is loaded for it."""
        if self._whole is None:
            _LOG.warning("note: a row is missing in the cache of taps: the whole backbone is loaded to read it")
            self._whole = self._open()
        return self._whole.taps(request, batch, cache, **more)


def load_upper(model: ModelConfig, device: torch.device, kept: int) -> PreTrainedModel:
    """A frozen backbone with its last `kept` layers alone.

    Raises:
        CannotBePartial: if only the whole of it can be loaded.
        UserError: if it cannot be read.
    """
    if model.trust_remote_code:
        raise CannotBePartial
    dtype = planned_dtype(model, device)
    with torch.device("meta"):
        shape = backbone_shape(model, dtype)
    whole = architecture(model)
    depth = len(layers_of(shape))
    small = _of_layers(whole, depth - kept, kept)
    small._attn_implementation = model.attention
    loader: Any = type(shape)
    backbone, info = loader.from_pretrained(
        None,
        config=small,
        state_dict=dict(_tensors(weights_files(model.location, model.revision), depth - kept)),
        dtype=dtype,
        quantization_config=quantization(model, dtype),
        device_map={"": device},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    if info["missing_keys"] or info["mismatched_keys"]:  # names of a wrapper, the text part of a larger model
        raise CannotBePartial
    refuse_not_finite(backbone, model.location)
    _put_below(backbone, layers_of(shape)[: depth - kept], whole)
    backbone.requires_grad_(False)
    make_lean(backbone, model, device)
    return backbone.eval()


def _of_layers(config: PreTrainedConfig, first: int, count: int) -> PreTrainedConfig:
    """A config of some of the layers alone, from `first` on, counted from 0."""
    part = copy.deepcopy(config)
    part.num_hidden_layers = count
    for name in _PER_LAYER:
        values = getattr(part, name, None)
        if values is not None:
            setattr(part, name, list(values)[first : first + count])
    return part


def _tensors(files: list[Path], first: int) -> list[tuple[str, Tensor]]:
    """All but those of the layers below `first`, counted from 0; the others are counted from there."""
    found = []
    for path in files[1:]:
        with safe_open(path, "pt") as file:
            names: list[str] = file.keys()
            for name in names:
                match = _LAYER.search(name)
                if match is None:
                    found.append((name, file.get_tensor(name)))
                elif int(match[1]) >= first:
                    renamed = f"{name[: match.start(1)]}{int(match[1]) - first}{name[match.end(1) :]}"
                    found.append((renamed, file.get_tensor(name)))
    return found


def _put_below(backbone: PreTrainedModel, shapes: nn.ModuleList, config: PreTrainedConfig) -> None:
    """Put layers without weights below those that are there, and let all of it know its own depth."""
    layers = layers_of(backbone)
    upper = list(layers)
    for layer in upper:
        for module in layer.modules():
            own = vars(module).get("layer_idx")
            if own is not None:
                vars(module)["layer_idx"] = own + len(shapes)
    for number, layer in enumerate([*shapes, *upper]):
        if number < len(layers):
            layers[number] = layer
        else:
            layers.append(layer)
    changed = {id(own): own for module in backbone.modules() if (own := getattr(module, "config", None)) is not None}
    for own in changed.values():
        own.num_hidden_layers = config.num_hidden_layers
        for name in _PER_LAYER:
            if getattr(config, name, None) is not None:
                setattr(own, name, getattr(config, name))
