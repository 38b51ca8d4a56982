"""The upper layers of a decoder by themselves, from a tap of the layer below them; gradients may pass through them.

The model's own `forward` runs, so that masks, positions and the final norm are what they always are. Layers below
the tap are passed by: they need not even be loaded.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ladder_cli.trunk.parts import Anatomy


def run_above(parts: Anatomy, number: int, state: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Run layers `number` + 1 to L and the final norm.

    Args:
        parts: of the model.
        number: of the layer that was tapped; 0 is the input of the first layer.
        state: what it gave, `[batch, tokens, d]`.
        inputs: of the decoder's own `forward`, for the same rows.

    Returns:
        The decoder's last hidden state `[batch, tokens, d]`, behind the final norm.
    """
    with _passed_by(parts.layers[:number], state), _entered_by(parts.layers[number], state):
        last: Tensor = parts.decoder(**inputs, use_cache=False).last_hidden_state
    return last


def run_joining(
    parts: Anatomy,
    number: int,
    join: Callable[[dict[int, Tensor]], Tensor],
    read: Iterable[int],
    above: AbstractContextManager,
    inputs: dict[str, Any],
) -> Tensor:
    """Run all layers and the final norm in one pass, in whose middle the state is changed.

    So one key-value cache serves whatever lies below and above, with the masks and positions that the model makes.

    Args:
        parts: of the model.
        number: of the layer, from 1, behind which the state is changed.
        join: makes the state `[batch, tokens, d]` that the layers above begin from, of the outputs of layers by their
            numbers: 0 (the input of the first layer), those of `read`, and `number`.
        read: layers up to `number`.
        above: context in which the layers above and the final norm run.
        inputs: of the decoder's own `forward`.

    Returns:
        The decoder's last hidden state `[batch, tokens, d]`, behind the final norm.
    """
    seen: dict[int, Tensor] = {}

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen[0] = args[0] if args else kwargs["hidden_states"]

    def leave(layer: int, module: nn.Module, args: tuple, output: Any) -> Any:
        seen[layer] = output[0] if isinstance(output, tuple) else output
        if layer < number:
            return None
        joined = join(seen)
        running.enter_context(above)
        return (joined, *output[1:]) if isinstance(output, tuple) else joined

    with ExitStack() as hooks, ExitStack() as running:
        # The output of the layer below, not the input of the one above: that one may be run again in the backward
        # pass, when no hook is here any more.
        watched = [parts.layers[0].register_forward_pre_hook(enter, with_kwargs=True)]
        watched += [
            parts.layers[layer - 1].register_forward_hook(partial(leave, layer)) for layer in {*read, number} - {0}
        ]
        for handle in watched:
            hooks.callback(handle.remove)
        last: Tensor = parts.decoder(**inputs).last_hidden_state
    return last


@contextmanager
def _passed_by(layers: nn.ModuleList, state: Tensor) -> Iterator[None]:
    """Let these layers compute nothing, and nobody hear of it (who brings layers would), within a `with` block."""

    def passed(*_: Any, **__: Any) -> Tensor:
        return state

    # A forward of a layer's own may be there already: `trunk.compilation` puts one.
    own = [(vars(layer).get("forward"), layer._forward_pre_hooks, layer._forward_hooks) for layer in layers]
    for layer in layers:
        layer.forward = passed
        layer._forward_pre_hooks, layer._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for layer, (forward, before, after) in zip(layers, own, strict=True):
            layer._forward_pre_hooks, layer._forward_hooks = before, after
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


@contextmanager
def _entered_by(layer: nn.Module, state: Tensor) -> Iterator[None]:
    """Let this layer begin from `state`, whatever it is handed, within a `with` block."""

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (state, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": state}

    handle = layer.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def structural_copy(model: nn.Module) -> Any:
    """A copy of a model's modules over the very same weights and buffers: what is put into the copy stays there.

    Hooks are not copied.
    """
    shared: dict[int, Any] = {}
    for module in model.modules():
        # bitsandbytes keeps scales and outlier columns beside the weight.
        beside = [value for name, value in vars(module).items() if name in ("quant_state", "state")]
        for value in (*module._parameters.values(), *module._buffers.values(), *beside):
            if value is not None:
                shared[id(value)] = value
    with torch.no_grad():
        twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin
