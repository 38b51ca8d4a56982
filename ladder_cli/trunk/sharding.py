"""A frozen backbone whose layers several processes hold together: each keeps its share and gathers a layer to run it.

PyTorch's FSDP2 does the gathering, forward and, where gradients pass through the layers (QLoRA), backward again. What
is trained stays whole in every process, so that nothing has to be gathered to save it; so do embeddings, final norm
and head, which the loss reads once for each of its chunks.
"""

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ladder_cli.trunk.parts import anatomy_of


def shard_layers(model: nn.Module, backbone: PreTrainedModel, device: torch.device) -> None:
    """Share the layers' frozen weights out among all processes, and move the rest to `device`.

    To be called in every process, once `model` was attached: first weights that are read off the backbone need it
    whole. A layer at a time is moved before it is cut, so that the device never holds more than one of them whole.

    Args:
        model: what will be trained, with `backbone` inside.
        backbone: its layers hold no quantised weights; those of all processes are equal.
        device: where the model computes.
    """
    anatomy = anatomy_of(backbone)
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for layer in anatomy.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=_trained(layer))
    # Holds no share of its own. Below one root all layers use the same streams: on a GPU the next one is gathered
    # while one computes. A pass that its taps cut off (`taps._Enough`) leaves undone at the root what concerns weights
    # that change and a buffer that the next pass frees.
    sharded = {parameter for layer in anatomy.layers for parameter in layer.parameters()}
    fully_shard(anatomy.decoder, mesh=mesh, ignored_params={*anatomy.decoder.parameters()} - sharded)
    model.to(device)


def is_sharded(model: nn.Module) -> bool:
    """Whether some of a model's weights lie with other processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _trained(layer: nn.Module) -> set[nn.Parameter]:
    return {parameter for parameter in layer.parameters() if parameter.requires_grad}
