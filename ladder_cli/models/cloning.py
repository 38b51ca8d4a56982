"""First weights of a side network of full width: copies of the backbone layers that would have run next.

A side network that branches off below the backbone's last layers starts as those layers, and an untrained ladder is
the backbone again. Where the backbone is quantised, the copies are of its dequantised weights.
"""

import torch
from torch import nn

from ladder_cli.errors import UserError
from ladder_cli.models.anatomy import Anatomy
from ladder_cli.models.connections import copied_layers
from ladder_cli.models.layer_weights import matrices, set_weight, weight_of
from ladder_cli.models.side_network import SideNetwork


@torch.no_grad()
def initialise_cloned(side: SideNetwork, anatomy: Anatomy) -> None:
    """Copy whole layers (`connections.copied_layers`).

    Raises:
        UserError: if the side layers lack their feed-forward part, or go on past the backbone's last layer.
    """
    for layer, number in zip(side.layers, copied_layers(side.connections), strict=True):
        _copy(anatomy.layers[number - 1], layer, anatomy.config.model_type)


def _copy(source: nn.Module, target: nn.Module, kind: str) -> None:
    own = dict(source.named_parameters())
    weights = {f"{matrix.name}.weight" for matrix in matrices(source, kind)}
    for name, parameter in target.named_parameters():
        if name not in own:
            raise UserError(f"method.init=cloned copies whole layers: '{name}' is not in the backbone's.")
        if name not in weights:
            parameter.copy_(own[name].detach().float())
    copies = {matrix.name: matrix for matrix in matrices(target, kind)}
    for matrix in matrices(source, kind):
        if matrix.name not in copies:
            raise UserError("method.init=cloned copies whole layers: it needs method.block=full.")
        set_weight(copies[matrix.name].module, weight_of(matrix.module))
