"""What autograd keeps between forward and backward, counted exactly, on real tensors or on fake ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef

from ladder_cli.plan.counting import EveryTokenCounts, fake_loss
from ladder_cli.plan.fake_backbone import materialise_fake, one_document_a_row
from ladder_cli.trunk.base import Batch, TrainableModule


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
