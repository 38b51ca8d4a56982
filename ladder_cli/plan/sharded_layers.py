"""Layers that several processes hold together (`trunk.sharded`), in the count of one process's memory."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ladder_cli.plan.allocation import AllocationCount
from ladder_cli.plan.fake_backbone import QuantizedShape

GATHERED = "gathered"
# FSDP gathers a layer into one buffer and copies its weights out of it; while it computes, the buffer of this layer is
# still there or that of the next one is already.
_COPIES = 2


def share_layers(layers: Iterable[nn.Module], processes: int, count: AllocationCount) -> None:
    """Count this process's share of the layers' frozen weights, and each layer whole while it runs.

    Gradients that pass through a layer need its weights again, from when that of its output is there until that of its
    input is.

    Args:
        layers: with their weights in `count` already.
        processes: which hold them together.
        count: follows what is allocated.
    """
    whole = _Whole(count)
    for layer in layers:
        size = 0
        for parameter, scales in _frozen(layer):
            # Cut along the first dimension, padded to equal shares.
            share = math.ceil((len(parameter) - scales) / processes) * parameter[:1].nbytes
            count.resize(parameter, share + scales)
            size += share * processes
        whole.watch(layer, _COPIES * size)


def _frozen(layer: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """A layer's frozen weights, and how many bytes of each are scales, which stay whole."""
    for module in layer.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                yield parameter, module.scales if isinstance(module, QuantizedShape) and name == "weight" else 0


class _Whole:
    """The one layer that is whole."""

    def __init__(self, count: AllocationCount) -> None:
        self._count = count
        self._layer: nn.Module | None = None
        self._size = 0

    def watch(self, layer: nn.Module, size: int) -> None:
        """`size`: bytes while `layer` runs."""

        def gather(gradient: Tensor | None = None) -> None:
            self._become(layer, size)

        def free(gradient: Tensor | None = None) -> None:
            if self._layer is layer:  # in the backward pass the layer before it has been gathered already
                self._become(None, 0)

        def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            if self._count.in_backward:
                return  # computed again, with weights that are there
            gather()
            hidden: Tensor = args[0] if args else kwargs["hidden_states"]
            if torch.is_grad_enabled() and hidden.requires_grad:
                hidden.register_hook(free)

        def after(module: nn.Module, args: tuple, output: Any) -> None:
            if self._count.in_backward:
                return
            free()
            hidden: Tensor = output[0] if isinstance(output, tuple) else output
            if hidden.requires_grad:
                hidden.register_hook(gather)

        layer.register_forward_pre_hook(before, with_kwargs=True)
        layer.register_forward_hook(after)

    def _become(self, layer: nn.Module | None, size: int) -> None:
        self._count.grow(GATHERED, size - self._size)
        self._layer, self._size = layer, size
