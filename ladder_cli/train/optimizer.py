"""Optimizer and learning rate schedule of a learner, and their state as safetensors, which runs no code when read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from ladder_cli.config import choices
from ladder_cli.config.optimization import OptimizationConfig

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
# Normalisations and biases are not pulled towards zero.
_NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
_SEPARATOR = "/"


def _adamw_8bit(groups: list[dict[str, Any]], **options: Any) -> Optimizer:
    return bitsandbytes.optim.AdamW(groups, optim_bits=8, **options)


def _paged_adamw_8bit(groups: list[dict[str, Any]], **options: Any) -> Optimizer:
    return bitsandbytes.optim.AdamW(groups, optim_bits=8, is_paged=True, **options)


class MuonOfMatrices(Optimizer):
    """Muon for every matrix that is trained, AdamW for the rest (norms, biases, gates).

    Of what the methods train, the tensors of two dimensions are the weights of linear layers.

    A matrix moves along its orthogonalised momentum (Jordan et al., 2024), at AdamW's rates and decay: its update is
    scaled to the root mean square that AdamW's has (Liu et al., 2025, arXiv 2502.16982). Of a matrix it keeps one
    moment where AdamW keeps two.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, momentum: float = 0.95
    ) -> None:
        matrices, rest = (
            [
                group | {"params": [weight for weight in group["params"] if (weight.ndim == 2) is wanted]}
                for group in groups
            ]
            for wanted in (True, False)
        )
        self._muon = torch.optim.Muon(matrices, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(rest, lr=lr, betas=betas, eps=eps)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        first = len(self._muon.param_groups)
        # The groups and the state are this optimizer's: loading them makes new ones.
        for part, groups in ((self._muon, self.param_groups[:first]), (self._adamw, self.param_groups[first:])):
            part.param_groups, part.state = groups, self.state
            part.step()


_OPTIMIZERS: dict[choices.Optimizer, Callable[..., Optimizer]] = {
    choices.Optimizer.ADAMW: torch.optim.AdamW,
    choices.Optimizer.ADAMW_8BIT: _adamw_8bit,
    choices.Optimizer.PAGED_ADAMW_8BIT: _paged_adamw_8bit,
    choices.Optimizer.MUON: MuonOfMatrices,
}


def make_optimizer(model: nn.Module, name: choices.Optimizer, learning_rate: float, weight_decay: float) -> Optimizer:
    """An optimizer of the parameters that are trained; biases and normalisations are not decayed."""
    decayed = set(get_parameter_names(model, [nn.LayerNorm], _NOT_DECAYED))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [weight for name, weight in trained if name in decayed], "weight_decay": weight_decay},
        {"params": [weight for name, weight in trained if name not in decayed], "weight_decay": 0.0},
    ]
    return _OPTIMIZERS[name](groups, lr=learning_rate, betas=_BETAS, eps=_EPSILON)


def make_schedule(optimizer: Optimizer, train: OptimizationConfig, steps: int) -> LRScheduler:
    """The learning rate over so many steps: a warm-up, then what `train.scheduler` says."""
    return get_scheduler(train.scheduler, optimizer, round(train.warmup_ratio * steps), steps)


def save_state(optimizer: Optimizer, schedule: LRScheduler, path: Path) -> None:
    """Write both whole.

    Tensors are named `PARAMETER/NAME`, with the number of the parameter; what is no tensor is JSON in the file's
    metadata.
    """
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for name, value in _flat(state["state"]):
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous().clone()  # bitsandbytes shares its code books
        else:
            numbers[name] = value
    rest = {
        "numbers": numbers,
        "learning_rates": [group["lr"] for group in state["param_groups"]],
        "schedule": schedule.state_dict(),
    }
    # A single entry: the order of several is not the same in every process.
    save_file(tensors, path, metadata={"state": json.dumps(rest, sort_keys=True)})


def load_state(optimizer: Optimizer, schedule: LRScheduler, path: Path) -> None:
    """Read both back.

    Raises:
        ValueError, KeyError, OSError, SafetensorError: if the file is of another run, missing or no safetensors file.
    """
    with safe_open(path, framework="pt") as file:
        rest, names = json.loads(file.metadata()["state"]), file.keys()
        flat = {name: file.get_tensor(name) for name in names} | rest["numbers"]
    state = optimizer.state_dict()
    state["state"] = _nested(flat)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not state["state"].keys() <= set(range(len(parameters))):
        raise ValueError(f"the state of more than {len(parameters)} parameters")
    for group, rate in zip(state["param_groups"], rest["learning_rates"], strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(state)
    schedule.load_state_dict(rest["schedule"])


def _flat(state: dict[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested dicts, each with its path."""
    leaves: list[tuple[str, Any]] = []
    for key, value in state.items():
        name = f"{prefix}{key}"
        leaves += _flat(value, name + _SEPARATOR) if isinstance(value, dict) else [(name, value)]
    return leaves


def _nested(leaves: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What `_flat` made its leaves of."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in leaves.items():
        number, *path, last = name.split(_SEPARATOR)
        inner = state.setdefault(int(number), {})
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return state
