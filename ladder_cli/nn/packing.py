"""Tests by trying whether a model keeps several documents in one row apart."""

from typing import Any

import bitsandbytes
import torch
from torch import nn

from ladder_cli.errors import UserError
from ladder_cli.nn.loss import IGNORED_LABEL

_DOCUMENT = 6


@torch.no_grad()
def check_packing(model: nn.Module) -> None:
    """Refuse packing for a model whose attention leaks from one document of a row into the next.

    The loss of a document is measured behind each of two different documents. The model can separate them only by
    position ids that start again.

    Raises:
        UserError: if the two losses differ.
    """
    device = next(model.parameters()).device
    positions = torch.arange(_DOCUMENT, device=device).repeat(2)[None]
    document = torch.arange(2, 2 + _DOCUMENT, device=device)
    labels = torch.cat([torch.full((_DOCUMENT + 1,), IGNORED_LABEL, device=device), document[1:]])[None]
    was_training = model.training
    model.eval()
    losses = []
    for neighbour in (document, document + _DOCUMENT):
        ids = torch.cat([neighbour, document])[None]
        batch = {"input_ids": ids, "position_ids": positions, "labels": labels}
        # There are two rows, because some attention kernels keep documents apart only in a batch of one.
        losses.append(model(**{name: value.repeat(2, 1) for name, value in batch.items()}).loss.float())
    model.train(was_training)
    # A masked neighbour has a weight of exactly zero, so the two agree even in bfloat16. Only int8 products depend on
    # all tokens of a call, by their outlier columns.
    int8 = any(isinstance(module, bitsandbytes.nn.Linear8bitLt) for module in model.modules())
    if not torch.allclose(losses[0], losses[1], rtol=1e-2 if int8 else 1e-5):
        config: Any = model.config
        backbone = getattr(config, "backbone", None)  # of a ladder
        name = backbone["model_type"] if isinstance(backbone, dict) else config.model_type
        raise UserError(
            f"data.packing=true does not go with {name}: its attention looks into other examples of the row."
        )
