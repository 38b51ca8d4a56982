"""Compiles decoder layers by `torch.compile`: one compilation serves all layers of a kind, any batch and length."""

import torch
import torch._dynamo.config
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ladder_cli.errors import UserError

# Compilations of one layer's code: backbone or side network, with or without gradients, training or evaluation, with or
# without a mask, one row or several. Beyond this number torch silently continues uncompiled.
_VARIANTS = 32


def compile_layers(model: nn.Module, device: torch.device) -> None:
    """Compile the layers of the backbone and of a side network in place; the work happens at the first batches.

    Layers are compiled one by one, so that layers of a kind share the work and the hooks that tap them stay outside.
    Results differ from the uncompiled model's by rounding.

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
