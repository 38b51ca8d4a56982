"""Arithmetic of whatever is run, counted operation by operation: what the time of a step should follow."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class FlopCount(TorchDispatchMode):
    """Counts the FLOPs of matrix products and attention within a `with` block; a multiply-add is two.

    Torch's own counter follows modules through autograd and fails where a backward pass runs inside a forward pass,
    as it does in our loss; its formulas are used here. Attention counts as if nothing were masked. Products inside
    other libraries' operators (bitsandbytes) are not seen.

    Attributes:
        total: FLOPs so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and add what it takes."""
        result = function(*args, **(kwargs or {}))
        operation = function._overloadpacket
        if operation is _CPU_ATTENTION:
            self.total += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif operation is _CPU_ATTENTION_BACKWARD:
            self.total += sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
        elif operation in flop_registry:
            self.total += flop_registry[operation](*args, **(kwargs or {}), out_val=result)
        return result
