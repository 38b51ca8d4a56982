"""Finds the matrices of a decoder layer by their role, whatever their names, and reads them however they are stored.

q, k, v   read the residual stream, write heads
o         reads heads, writes the residual stream
inner     read the residual stream, write the feed-forward layer's inner units (one or two matrices)
out       reads those units, writes the residual stream
"""

from dataclasses import dataclass
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import int8_vectorwise_dequant
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ladder_cli.errors import UserError

_ROLES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "c_attn": "qkv",
    "o_proj": "o", "out_proj": "o", "dense": "o", "attn.c_proj": "o",
    "gate_proj": "inner", "up_proj": "inner", "fc1": "inner", "c_fc": "inner",
    "down_proj": "out", "fc2": "out", "mlp.c_proj": "out",
}  # fmt: skip
_LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True)
class Matrix:
    """One linear map in a layer: its name, its role, and the module."""

    name: str
    role: str
    module: nn.Module


def matrices(layer: nn.Module, kind: str) -> list[Matrix]:
    """Return the linear maps of a decoder layer.

    Args:
        kind: the architecture's name, for messages.

    Raises:
        UserError: if a map has no known role.
    """
    found = []
    for name, module in linear_maps(layer).items():
        # Only whole parts of the name match: a fused `qkv_proj` is no `v_proj`.
        role = next((role for suffix, role in _ROLES.items() if f".{name}".endswith(f".{suffix}")), None)
        if role is None:
            raise UserError(
                f"method.init=pruned is not supported for {kind}: what its layers use '{name}' for is not known. "
                "Use method.init=uniform."
            )
        found.append(Matrix(name, role, module))
    return found


def linear_maps(layer: nn.Module) -> dict[str, nn.Module]:
    """Return the linear maps of a decoder layer by name, those under low-rank adapters without these."""
    maps = {name: module for name, module in layer.named_modules() if isinstance(module, _LINEAR)}
    return {name.removesuffix(".base_layer"): module for name, module in maps.items() if ".lora_" not in name}


@torch.no_grad()
def weight_of(module: nn.Module) -> Tensor:
    """Return the weight as `[out, in]` in float32, dequantised if it is quantised.

    Raises:
        UserError: if bitsandbytes has packed it for the CPU, which cannot be reversed here.
    """
    if is_packed(module):
        raise UserError(
            "this 4-bit backbone has already run on the CPU, which packed its weights for inference: load it afresh "
            "before building a ladder with init=pruned."
        )
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        # The row scales move from the weight to the layer's state at the first forward pass.
        stored: Any = module.weight
        scale = stored.SCB if stored.SCB is not None else module.state.SCB
        assert scale is not None
        return int8_vectorwise_dequant(module.weight.data, scale).float()
    weight = dequantize_module_weight(module).detach().float()
    return weight.T if isinstance(module, Conv1D) else weight


def set_weight(module: nn.Module, weight: Tensor) -> None:
    """Overwrite a weight, which must not be quantised, with `[out, in]`."""
    with torch.no_grad():
        module.get_parameter("weight").copy_(weight.T if isinstance(module, Conv1D) else weight)


def is_packed(module: nn.Module) -> bool:
    """Return whether a 4-bit weight was packed for inference on the CPU."""
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    return isinstance(module, bitsandbytes.nn.Linear4bit) and bool(getattr(state, "packing_format_for_cpu", False))
