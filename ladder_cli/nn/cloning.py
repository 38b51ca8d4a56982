"""Initialises a side network of full width with copies of the backbone layers that would have run next.

A side network that branches off below the backbone's last layers starts as those layers, so an untrained ladder equals
its backbone. If the backbone is quantised, the copies hold its dequantised weights.
"""

import torch
from torch import nn

from ladder_cli.errors import UserError
from ladder_cli.nn.connections import copied_layers
from ladder_cli.nn.dense import holds_experts
from ladder_cli.nn.layer_weights import linear_maps, set_weight, weight_of
from ladder_cli.nn.side_network import SideNetwork
from ladder_cli.trunk.parts import Anatomy


@torch.no_grad()
def initialise_cloned(side: SideNetwork, anatomy: Anatomy) -> None:
    """Copy whole layers (`connections.copied_layers`).

    Raises:
        UserError: if the side layers lack their feed-forward part or are dense where the backbone has experts, or go on
            past the backbone's last layer.
    """
    for layer, number in zip(side.layers, copied_layers(side.connections), strict=True):
        source = anatomy.layers[number - 1]
        if holds_experts(source):
            raise UserError(
                f"method.init=cloned is not supported for {anatomy.name}: its layers hold experts, and side layers are "
                "dense. Use method=ladder or xladder."
            )
        _copy(source, layer)


@torch.no_grad()
def put_in_place(side: SideNetwork, layers: list[nn.Module]) -> None:
    """Copy whole side layers into the backbone layers whose place they take; these must not be quantised.

    Args:
        layers: one for each side layer, as it was copied from.
    """
    for source, target in zip(side.layers, layers, strict=True):
        _copy(source, target)


def _copy(source: nn.Module, target: nn.Module) -> None:
    own, copies = linear_maps(source), linear_maps(target)
    if own.keys() != copies.keys():
        raise UserError("method.init=cloned copies whole layers: it needs method.block=full.")
    for name, module in own.items():
        set_weight(copies[name], weight_of(module))
    weights = {f"{name}.weight" for name in own}
    values = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name not in weights:
            parameter.copy_(values[name].detach().float())
