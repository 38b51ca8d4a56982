"""Whether a model keeps several documents in one row apart, found out by trying."""

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

    The loss of a document is measured behind two different ones; position ids that start again are all the model is
    told.

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
        # Two rows, since some attention kernels keep documents apart in a single row only.
        losses.append(model(**{name: value.repeat(2, 1) for name, value in batch.items()}).loss.float())
    model.train(was_training)
    # A masked neighbour has weight zero exactly, so that even in bfloat16 the two agree. Only int8 products
    # choose their outlier columns by all tokens of a call.
    int8 = any(isinstance(module, bitsandbytes.nn.Linear8bitLt) for module in model.modules())
    if not torch.allclose(losses[0], losses[1], rtol=1e-2 if int8 else 1e-5):
        config: Any = model.config
        backbone = getattr(config, "backbone", None)  # of a ladder
        name = backbone["model_type"] if isinstance(backbone, dict) else config.model_type
        raise UserError(
            f"data.packing=true does not go with {name}: its attention looks into other examples of the row."
        )
