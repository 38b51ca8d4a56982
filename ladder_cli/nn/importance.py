"""How much each row and column of a backbone's matrices matters: what pruning chooses by (Sung et al., 2022).

Only sums over rows and columns are kept, never an importance for every weight.
"""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bitsandbytes
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ladder_cli.errors import UserError
from ladder_cli.nn.layer_weights import is_packed, matrices, weight_of
from ladder_cli.nn.loss import completion_cross_entropy
from ladder_cli.trunk.base import Batch
from ladder_cli.trunk.parts import Anatomy, keep_differentiable


@dataclass
class Importance:
    """Of one matrix: `rows` `[out]`, `columns` `[in]`, both float32."""

    rows: Tensor
    columns: Tensor


# By backbone layer, counted from 0, and name of the matrix inside it.
LayerImportance = dict[tuple[int, str], Importance]


def by_magnitude(anatomy: Anatomy) -> LayerImportance:
    """Sums of absolute weights."""
    found: LayerImportance = {}
    for number, layer in enumerate(anatomy.layers):
        for matrix in matrices(layer, anatomy.config.model_type):
            weight = weight_of(matrix.module).abs()
            found[number, matrix.name] = Importance(weight.sum(1).cpu(), weight.sum(0).cpu())
    return found


def by_fisher(backbone: PreTrainedModel, anatomy: Anatomy, batches: Iterable[Batch]) -> LayerImportance:
    """Sums of squared gradients of the loss, one gradient for each example (the diagonal of the empirical Fisher).

    This sends gradients through the backbone once, before training, one example at a time: it needs the memory of
    that backward pass. Weights keep no gradient; each one's is made from the input and the output gradient of its
    matrix, so that quantised backbones work too.

    Args:
        batches: one example each, `[1, tokens]`, with its labels.

    Raises:
        UserError: if the sample is empty, or a 4-bit backbone has already run on the CPU.
    """
    if any(is_packed(module) for module in backbone.modules()):
        raise UserError(
            "this 4-bit backbone has already run on the CPU, which packed its weights for inference: load it afresh "
            "before building a ladder with init=pruned_fisher."
        )
    found: LayerImportance = {}
    handles = []
    for number, layer in enumerate(anatomy.layers):
        for matrix in matrices(layer, anatomy.config.model_type):
            weight = weight_of(matrix.module)
            importance = Importance(torch.zeros(weight.shape[0]), torch.zeros(weight.shape[1]))
            found[number, matrix.name] = importance
            handles.append(matrix.module.register_forward_hook(_adds_squared_gradient(importance)))
    # Gradients reach every layer only if the first one's input asks for them.
    handles.append(anatomy.embeddings.register_forward_hook(lambda module, args, output: output.requires_grad_(True)))
    examples = 0
    try:
        with torch.enable_grad(), _differentiable(backbone), anatomy.autocast():
            for batch in batches:
                example = batch.to(anatomy.device)
                assert example.labels is not None
                hidden = anatomy.decoder(**example.inputs, use_cache=False).last_hidden_state
                completion_cross_entropy(hidden, anatomy.head_logits, example.labels, num_items=1).backward()
                examples += 1
    finally:
        for handle in handles:
            handle.remove()
    if examples == 0:
        raise UserError("method.init=pruned_fisher needs a sample of the training data, and it is empty.")
    return found


def _adds_squared_gradient(importance: Importance) -> Any:
    def forward_hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs = args[0].detach()

        def backward_hook(gradient: Tensor) -> None:
            # Some architectures flatten batch and tokens; one batch is one example, so both may be summed over.
            squared = (gradient.flatten(0, -2).float().T @ inputs.flatten(0, -2).float()).square_()
            importance.rows += squared.sum(1).cpu()
            importance.columns += squared.sum(0).cpu()

        if output.requires_grad:
            output.register_hook(backward_hook)

    return forward_hook


@contextmanager
def _differentiable(backbone: PreTrainedModel) -> Any:
    """The backbone with gradients that can pass: 4-bit weights are not packed meanwhile."""
    four_bit = [module for module in backbone.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    packable = [module.support_avx512bf16_for_cpu for module in four_bit]
    keep_differentiable(backbone)
    try:
        yield
    finally:
        for module, before in zip(four_bit, packable, strict=True):
            module.support_avx512bf16_for_cpu = before
