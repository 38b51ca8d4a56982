"""A frozen backbone whose layers are sharded over several processes: each gathers a layer to run it.

PyTorch's FSDP2 does the gathering, forward and, where gradients pass through the layers (QLoRA), backward again. What
is trained stays whole in every process, so that nothing has to be gathered to save it; so do embeddings, final norm
and head, which the loss reads once for each of its chunks.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ladder_cli.trunk.base import TapRequest, TrunkCost
from ladder_cli.trunk.layer_files import LayerFile
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.parts import keep_differentiable
from ladder_cli.trunk.stored_modules import lay_bare


class ShardedTrunk(LiveTrunk):
    """A loaded backbone that is cut once the method is attached: first weights that are read off it need it whole."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        device: torch.device,
        name: str = "",
        revision: str | None = None,
        files: Sequence[LayerFile] = (),
    ) -> None:
        """Take a backbone that is still whole.

        Args:
            backbone: in the host's memory, equal in all processes.
            device: where it will compute.
            name, revision: see `LiveTrunk`.
            files: that its layers lie over; none: it was loaded. Quantised layers have them.
        """
        super().__init__(backbone, name, revision)
        self._device, self._files = device, files
        keep_differentiable(backbone)  # who packs a weight in place has to have all of it

    @property
    def device(self) -> torch.device:
        """Where it computes; until `settle` the weights are in the host's memory."""
        return self._device

    def settle(self, model: nn.Module) -> None:
        """Shard the layers' frozen weights over all processes, and move the rest to the device.

        To be called in every process. A layer at a time is moved before it is cut, so that the device never holds more
        than one of them whole.

        Args:
            model: what will be trained, with the backbone inside.

        Raises:
            DamagedLayer: if a layer's file is not as it was written.
        """
        mesh = init_device_mesh(self._device.type, (distributed.get_world_size(),))
        layers = self.parts.layers
        for number, layer in enumerate(layers):
            if self._files:
                self._files[number].fetch()
                vars(layer).pop("_apply", None)  # from here on it moves with the model
                lay_bare(layer, self._device)
            fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=_trained(layer))
            if self._files:
                self._files[number].release()
        # Holds no shard of its own. Below one root all layers use the same streams: on a GPU the next one is gathered
        # while one computes. A pass that its taps cut off leaves undone at the root what concerns weights that change
        # and a buffer that the next pass frees.
        sharded = {parameter for layer in layers for parameter in layer.parameters()}
        whole = {*self.parts.decoder.parameters()} - sharded
        fully_shard(self.parts.decoder, mesh=mesh, ignored_params=whole)
        # A pass ends inside of a hook: FSDP's own, which frees the gathered layer, has to run before it.
        self.hang()
        nn.Module.to(model, self._device)  # Transformers' own refuses quantised models

    def cost(self, request: TapRequest) -> TrunkCost:
        """As of a live one; what lies with other processes is moved here in every pass."""
        resident = moved = 0
        for weight in self._resident():
            here = weight.to_local().nbytes if isinstance(weight, DTensor) else weight.nbytes
            resident, moved = resident + here, moved + weight.nbytes - here
        return replace(super().cost(request), resident_bytes=resident, moved_bytes=moved)


def is_sharded(model: nn.Module) -> bool:
    """Whether some of a model's weights lie with other processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _trained(layer: nn.Module) -> set[nn.Parameter]:
    return {parameter for parameter in layer.parameters() if parameter.requires_grad}
