"""What a step costs, counted exactly: FLOPs operation by operation, and bytes that autograd saves for backward.

Counts do not depend on how fast or how busy the machine is, and both also work on fake tensors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ladder_cli.plan.counting import EveryTokenCounts, fake_loss
from ladder_cli.plan.fake_backbone import materialise_fake, one_document_a_row
from ladder_cli.trunk.base import Batch, TrainableModule

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


def saved_activation_bytes(model: nn.Module, ids: Tensor, labels: Tensor, attention_mask: Any = None) -> int:
    """Bytes of distinct storages that are kept from forward to backward, parameters and buffers left out.

    Args:
        model: gives `.loss` for these inputs.
        ids, labels: `[batch, tokens]`.
        attention_mask: `[batch, tokens]`.
    """
    return _kept(model, lambda: model(input_ids=ids, attention_mask=attention_mask, labels=labels).loss)


def _kept(model: nn.Module, compute: Callable[[], Tensor]) -> int:
    """What is kept for the backward pass of the loss that is computed."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[StorageWeakRef, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = compute()
    # What the chunks of the loss kept for their own backward pass is gone by now.
    total = sum(size for storage, size in kept.values() if not storage.expired())
    del loss
    return total


def predicted_activation_bytes(build: Callable[[], TrainableModule], rows: int, tokens: int) -> int:
    """The same for a model of any size, without its weights: shapes alone are computed, on fake CPU tensors.

    The figure is that of the CPU's kernels (SDPA keeps no attention weights), for rows without padding, and counts
    every token for the loss.

    Args:
        build: makes the model; called with `meta` as the default device, so that nothing is allocated.
        rows, tokens: shape of the batch.
    """
    with torch.device("meta"):
        model = build()
    with FakeTensorMode(), one_document_a_row():
        materialise_fake(model)
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        batch = Batch(ids, torch.zeros_like(ids))
        return _kept(model, lambda: fake_loss(model.train(), batch, EveryTokenCounts()))
