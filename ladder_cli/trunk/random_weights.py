"""A backbone of a published shape with random weights: time and memory are those of the real one, answers are not."""

import torch
from torch import nn
from transformers import PreTrainedModel

from ladder_cli.config.choices import Quantization
from ladder_cli.config.schema import ModelConfig
from ladder_cli.trunk.compact import make_lean, quantized_linear
from ladder_cli.trunk.loading import backbone_shape, planned_dtype

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
