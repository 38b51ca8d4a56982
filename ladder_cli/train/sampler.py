"""What samples the completions of a training: the model itself, or vLLM beside it (`objective.engine`)."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch

from ladder_cli.config.choices import EngineKind
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.prepare import PreparedData
from ladder_cli.generate.decoding import ModelLimits, read_limits
from ladder_cli.generate.engine import Engine
from ladder_cli.generate.registry import ENGINES, TRANSFORMERS
from ladder_cli.plan.preflight import memory_of
from ladder_cli.run.directory import RunDir
from ladder_cli.serve.live import Policy, check_vllm, vllm_following
from ladder_cli.train.monitor import Spent
from ladder_cli.train.problems import prompt_length
from ladder_cli.trunk.base import TrainableModule

SENDING = "send"  # of generating: the weights' way to another engine


@dataclass(frozen=True)
class Sampling:
    """What an engine is made of.

    Attributes:
        model: as it learns.
        spent: is told the seconds that weights take on their way.
        until_done: ends what was started.
    """

    config: TrainConfig
    run: RunDir
    data: PreparedData
    model: TrainableModule
    device: torch.device
    spent: Spent
    until_done: ExitStack

    @property
    def limits(self) -> ModelLimits:
        """Of the backbone."""
        return read_limits(self.config.model)


def sampler(sampling: Sampling) -> Engine:
    """The engine that a config asks for.

    Raises:
        UserError: if it is not there, or does not go with what is trained.
    """
    return _SAMPLERS[sampling.config.objective.engine](sampling)


def check_sampler(config: TrainConfig) -> None:
    """Refuse an engine that is not there, or does not go with what is trained, before anything is loaded.

    Raises:
        UserError: naming what does.
    """
    _CHECKS[config.objective.engine](config)


def _itself(sampling: Sampling) -> Engine:
    data, config = sampling.data, sampling.config
    return ENGINES[TRANSFORMERS](lambda: sampling.model, data.renderer, sampling.limits, config.model.name)


def _vllm(sampling: Sampling) -> Engine:
    data, config = sampling.data, sampling.config
    engine = vllm_following(
        Policy(
            sampling.model,
            config.model,
            sampling.run,
            data.renderer,
            sampling.limits,
            sampling.device,
            config.hardware.device,
            longest_prompt(data) + config.objective.max_new_tokens,
            _share_of(config, sampling.device),
            partial(sampling.spent.part, SENDING),
        )
    )
    sampling.until_done.callback(engine.close)
    return engine


def _share_of(config: TrainConfig, device: torch.device) -> float:
    """Of the device as it is, which is what vLLM counts from; the plan's may be smaller (`hardware.memory_gb`)."""
    planned, real = (memory_of(each, device) for each in (config.hardware, replace(config.hardware, memory_gb=None)))
    share = config.objective.engine_memory
    return min(1.0, share * planned / real) if planned and real else share


def longest_prompt(data: PreparedData) -> int:
    """Tokens of the longest prompt, held-out ones included."""
    return max(prompt_length(rows[row]) for rows in (data.train, data.validation) for row in range(len(rows)))


_CHECKS: dict[EngineKind, Callable[[TrainConfig], None]] = {
    EngineKind.TRANSFORMERS: lambda config: None,
    EngineKind.VLLM: lambda config: check_vllm(config.method, config.model),
}
_SAMPLERS: dict[EngineKind, Callable[[Sampling], Engine]] = {
    EngineKind.TRANSFORMERS: _itself,
    EngineKind.VLLM: _vllm,
}
