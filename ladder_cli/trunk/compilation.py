"""Decoder layers through `torch.compile`: what is compiled for one serves all of its kind, at any batch and length."""

import torch
import torch._dynamo.config
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ladder_cli.errors import UserError

# Of one layer's code: backbone or side network, with gradients or without, in training or evaluation, with a mask or
# without, one row or several. Beyond this number torch would quietly go on uncompiled.
_VARIANTS = 32


def compile_layers(model: nn.Module, device: torch.device) -> None:
    """Compile the layers of the backbone and of a side network, in place; it happens at the first batches.

    Layer by layer and not the model as a whole, so that layers of a kind share the work, and the hooks that tap them
    stay outside. What is computed differs from the uncompiled model's by rounding.

    Args:
        model: with Transformers' decoder layers in it, frozen or trained.
        device: where it computes.

    Raises:
        UserError: if nothing can be compiled here.
    """
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:  # a compiler that is missing, old or broken has many faces
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"train.compile=true, but torch.compile does not work here ({reason}): install a C++ compiler (on a CPU) "
            "or triton (on a GPU), or leave it out."
        ) from error
    torch._dynamo.config.recompile_limit = _VARIANTS
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.forward = torch.compile(module.forward, dynamic=True)
