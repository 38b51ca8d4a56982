"""Where the taps come from: the one thing a side network needs of a backbone.

A live backbone is the first source. A backbone whose layers are streamed from host memory, or a cache of taps on
disk, can stand in for it as long as it answers `taps()`.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ladder_cli.trunk.parts import Anatomy


@dataclass
class Taps:
    """What a backbone hands out for one batch.

    Attributes:
        rungs: backbone layer -> its output `[batch, tokens, d]`; 0 is the input of the first layer.
        final: output of the last layer, before the final norm, `[batch, tokens, d]`; None if nobody reads it.
        embed: makes rung 0 again, bit for bit, so that the backward pass need not keep it; None where it cannot be.
    """

    rungs: dict[int, Tensor]
    final: Tensor | None
    embed: Callable[[], Tensor] | None = None


class TapSource(Protocol):
    """Anything that can answer for a frozen backbone."""

    def taps(self, **inputs: Any) -> Taps:
        """The taps for one batch; `inputs` are those of the backbone's own `forward`."""
        ...


class _Enough(Exception):
    """Ends a forward pass whose rest nobody reads."""


class LiveTaps:
    """Taps of a backbone in memory: one forward pass without gradients, watched by hooks.

    Nothing but the wanted layers' outputs outlives the call, and no layer runs after the last that is wanted.
    """

    def __init__(self, anatomy: Anatomy, wanted: tuple[int, ...], final: bool = True) -> None:
        """`wanted`: backbone layers to keep, counted from 1; layer 0 is always kept. `final`: the last one too."""
        self._decoder = anatomy.decoder
        self._embeddings = anatomy.embeddings
        self._layers = anatomy.layers
        self._wanted = wanted
        self._final = final

    def taps(self, **inputs: Any) -> Taps:
        """Run the decoder stack once."""
        kept: dict[int, Tensor] = {}
        looked_up: list[tuple[tuple, Tensor]] = []
        last = len(self._layers) if self._final else max(self._wanted)

        def look_up(module: nn.Module, args: tuple, output: Tensor) -> None:
            looked_up.append((args, output))

        def keep_input(module: nn.Module, args: tuple, kwargs: dict) -> None:
            kept[0] = args[0] if args else kwargs["hidden_states"]

        def keep_output(number: int) -> Any:
            def hook(module: nn.Module, args: tuple, output: Any) -> None:
                kept[number] = output[0] if isinstance(output, tuple) else output
                if number == last < len(self._layers):
                    raise _Enough

            return hook

        handles = [self._layers[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
        handles.append(self._embeddings.register_forward_hook(look_up))
        handles += [self._layers[i - 1].register_forward_hook(keep_output(i)) for i in {*self._wanted, last}]
        try:
            # Not inference_mode: its tensors may not be saved for the side network's backward pass.
            with torch.no_grad(), contextlib.suppress(_Enough):
                self._decoder(**inputs)
        finally:
            for handle in handles:
                handle.remove()
        final = kept[last] if self._final else None
        embed = None
        # Some architectures add positions to the embeddings, or scale them, before the first layer.
        if len(looked_up) == 1 and looked_up[0][1] is kept[0]:
            embed = partial(self._embed, looked_up[0][0])
        return Taps({number: kept[number] for number in (0, *self._wanted)}, final, embed)

    @torch.no_grad()
    def _embed(self, args: tuple) -> Tensor:
        return self._embeddings(*args)
