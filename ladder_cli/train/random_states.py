"""Streams of random numbers, one a learner: what one draws changes no draw of another, and a resume goes on in it.

Libraries draw from the global generators of Python, numpy, torch and the GPU (dropout does). A stream is the states of
all of them, which stand in the global ones while its learner computes. On disk it is JSON.
"""

import base64
import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import set_seed

from ladder_cli.run.files import write_text


class RandomStream:
    """The random numbers of one learner in one process."""

    def __init__(self, seed: int | None = None) -> None:
        """Begin at a seed, or where the global generators are now; those stay as they are."""
        self._states = _global_states()
        if seed is not None:
            with self.drawing():
                set_seed(seed)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """What is drawn within is drawn from this stream."""
        outside = _global_states()
        _set_global_states(self._states)
        try:
            yield
        finally:
            self._states = _global_states()
            _set_global_states(outside)

    def save(self, path: Path) -> None:
        """Write where it is."""
        name, keys, *rest = self._states["numpy"]
        numpy = {"numpy": [name, keys.tolist(), *rest]}
        tensors = {name: _text(self._states[name]) for name in _TENSORS}
        write_text(path, json.dumps(self._states | numpy | tensors) + "\n")

    def load(self, path: Path) -> None:
        """Go on where `save` was."""
        states = json.loads(path.read_text(encoding="utf-8"))
        version, internal, gauss = states["python"]
        name, keys, *rest = states["numpy"]
        self._states = {
            "python": (version, tuple(internal), gauss),
            "numpy": (name, np.array(keys, dtype=np.uint32), *rest),
            **{name: _tensor(states[name]) for name in _TENSORS},
        }


_TENSORS = ("torch", "cuda")


def _global_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def _set_global_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"])


def _text(state: Tensor | None) -> str | None:
    return None if state is None else base64.b64encode(state.numpy().tobytes()).decode("ascii")


def _tensor(text: str | None) -> Tensor | None:
    return None if text is None else torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
