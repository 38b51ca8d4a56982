"""What a worker of vLLM does for a training that samples by it: takes weights that have changed, and says which.

Imported in vLLM's processes (`worker_extension_cls`), without what training needs.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ladder_cli.serve.served import SIDE_PREFIX

EXTENSION = "ladder_cli.serve.vllm_updates.FollowsTraining"
_LAYERS = "model.layers."  # of every served backbone, under Transformers' names


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        found.update(weight.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


class FollowsTraining:
    """Methods that a worker has beside its own; `collective_rpc` calls them by name."""

    def take_weights(self, file: str) -> tuple[str, list[str]]:
        """Put weights of a ladder in the place of those that are there, in the layers' own storage.

        Args:
            file: of safetensors, under the names of an exported folder.

        Returns:
            The digest of what was read, and the side network's parameters that nothing was loaded into.
        """
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        worker: Any = self
        model, config = worker.get_model(), worker.vllm_config
        weights = load_file(file)
        with set_current_vllm_config(config), torch.no_grad():
            # A CPU's kernels keep weights packed, and a GPU's graphs hold their addresses: so as vLLM reloads a layer.
            parts = [_part(model, name) for name in _owners(weights)]
            wanted = {f"{SIDE_PREFIX}{name}" for name, _ in model.side.named_parameters()}
            for part in parts:
                initialize_layerwise_reload(part)
            loaded = model.load_weights(iter(weights.items()))
            for part in parts:
                finalize_layerwise_reload(part, config.model_config)
        return digest_of(weights), sorted(wanted - loaded)


def _owners(weights: Iterable[str]) -> list[str]:
    """The side network, and the backbone's layers, of which there are weights."""
    side = [SIDE_PREFIX] if any(name.startswith(SIDE_PREFIX) for name in weights) else []
    numbers = {int(name.removeprefix(_LAYERS).partition(".")[0]) for name in weights if name.startswith(_LAYERS)}
    return [*side, *(str(number) for number in sorted(numbers))]


def _part(model: Any, owner: str) -> Any:
    return model.side if owner == SIDE_PREFIX else model.backbone.model.layers[int(owner)]
