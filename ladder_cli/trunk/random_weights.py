"""A backbone of a published shape with random weights: time and memory are those of the real one, answers are not."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from ladder_cli.config.choices import Quantization, Residency
from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.compact import make_lean, quantized_linear
from ladder_cli.trunk.layer_files import LayerFile, write_contents
from ladder_cli.trunk.loading import backbone_shape, planned_dtype
from ladder_cli.trunk.parts import anatomy_of
from ladder_cli.trunk.stored_modules import parameters_of, set_parameters, taken_apart
from ladder_cli.trunk.streamed import SOURCES, StreamedTrunk
from ladder_cli.trunk.upper import structural_copy

_SCALE = 0.02


def random_weights(model: ModelConfig, device: torch.device) -> PreTrainedModel:
    """A frozen backbone, made layer by layer on `device`, so that it is never there unquantised.

    Raises:
        UserError: if the shape cannot be read.
    """
    dtype = planned_dtype(model, device)
    with torch.device("meta"):
        backbone = backbone_shape(model, dtype)
    head = backbone.get_output_embeddings()
    if model.quantization is not Quantization.NONE:
        make = quantized_linear(model.quantization)
        for module in list(backbone.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and child is not head:
                    quantized = make(torch.randn(child.weight.shape, device=device, dtype=dtype).mul_(_SCALE))
                    if child.bias is not None:
                        quantized.register_parameter("bias", nn.Parameter(torch.zeros_like(child.bias, device=device)))
                    setattr(module, name, quantized)
    decoder = backbone.get_decoder()
    if getattr(decoder, "rotary_emb", None) is not None:  # its buffers hold values, not weights
        decoder.rotary_emb = type(decoder.rotary_emb)(config=backbone.config).to(device)
    filled: dict[int, nn.Parameter] = {}
    for module in backbone.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in filled:  # tied weights are made once
                    values = torch.ones if parameter.dim() == 1 else torch.randn
                    made = values(parameter.shape, device=device, dtype=dtype).mul_(_SCALE)
                    filled[id(parameter)] = nn.Parameter(made)
                module._parameters[name] = filled[id(parameter)]
    make_lean(backbone.requires_grad_(False), model, device)
    return backbone.eval()


def random_streamed(model: ModelConfig, device: torch.device, residency: Residency, window: int) -> StreamedTrunk:
    """A streamed backbone of random weights, all of whose layers come from one and the same file: what moves is as
    much as of the real one, and nothing of that size has to be stored.

    Raises:
        UserError: if the shape cannot be read.
    """
    with torch.device("meta"):
        whole = backbone_shape(model, planned_dtype(model, device)).config
    small = random_weights(replace(model, shape={**model.shape, "num_hidden_layers": 1}), device)
    parts, layer = anatomy_of(small), anatomy_of(small).layers[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer-001.bin"
        write_contents(path, taken_apart(layer))
        file = LayerFile(path)  # stays mapped when its name is gone
    count = int(whole.num_hidden_layers)
    layers = [layer, *(structural_copy(layer) for _ in range(1, count))]
    at_rest = parameters_of(layer, file.contents)
    for number, copied in enumerate(layers):
        set_parameters(dict(copied.named_modules()), at_rest)
        for module in copied.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    parts.layers.extend(layers[1:])
    small.config.num_hidden_layers = count
    if getattr(whole, "layer_types", None):
        small.config.layer_types = list(whole.layer_types)
    source = SOURCES[device.type, residency]([file], device)
    return StreamedTrunk(small, source.repeated(count), device, window)
