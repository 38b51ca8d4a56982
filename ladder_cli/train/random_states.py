"""The states of all random number generators of a process, as JSON: dropout goes on where it was."""

import base64
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladder_cli.run.files import write_text


def save_random_states(path: Path) -> None:
    """Write those of Python, numpy, torch and this process's GPU."""
    name, keys, *rest = np.random.get_state()
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": _text(torch.get_rng_state()),
        "cuda": _text(torch.cuda.get_rng_state()) if torch.cuda.is_initialized() else None,
    }
    write_text(path, json.dumps(states) + "\n")


def load_random_states(path: Path) -> None:
    """Set them."""
    states = json.loads(path.read_text(encoding="utf-8"))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_tensor(states["torch"]))
    if states["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(_tensor(states["cuda"]))


def _text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
