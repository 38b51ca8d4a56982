"""What a run that learns from its own completions (objective=grpo) does not go together with. Imports no torch."""

import re
from collections.abc import Iterator

from ladder_cli.config.choices import CacheMode, EngineKind, Quantization, Residency, Together
from ladder_cli.config.objective import GRADER
from ladder_cli.config.schema import ModelConfig, TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.ranks import processes

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def check_sampling(config: TrainConfig) -> None:
    """Refuse what does not go with an objective that samples; other objectives have nothing to check here.

    Raises:
        UserError: for the first of it, with what to do.
    """
    objective = config.objective
    if not objective.samples:
        return
    for given, why in _apart(config):
        raise UserError(f"{given} does not go with objective={objective.name}: {why}.")
    if objective.reward != GRADER and not _FUNCTION.fullmatch(objective.reward):
        raise UserError(
            f"objective.reward={objective.reward} is neither grader nor a function: write it as "
            "package.module:function."
        )
    train = config.train
    completions = train.micro_batch_size * train.accumulation(processes())
    if completions % objective.group:
        name = "train.global_batch_size" if train.gradient_accumulation is None else "a step"
        raise UserError(
            f"{name}={completions} counts completions, and is not a multiple of objective.group={objective.group}: "
            f"{objective.group * max(1, completions // objective.group)} would be."
        )


def _apart(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """What was given, and why it cannot be."""
    if config.trunk.cache is not CacheMode.OFF:
        yield (
            f"trunk.cache={config.trunk.cache}",
            "completions are new in every step, so that no tap would be read again; leave it out",
        )
    if config.trunk.residency is not Residency.RESIDENT:
        yield (
            f"trunk.residency={config.trunk.residency}",
            "sampling would stream every layer once for each token; give trunk.residency=resident, and "
            "model.quantization=nf4 where the memory is short",
        )
    if config.hardware.shard_backbone:
        yield "hardware.shard_backbone=true", "completions are sampled in one process; leave it out"
    if processes() > 1:
        yield f"a launcher of {processes()} processes", "completions are sampled in one process; start it without"
    if config.train.compile:
        yield "train.compile=true", "sampling passes tokens one by one, in shapes that are compiled anew; leave it out"
    if config.objective.engine is EngineKind.VLLM:
        yield from _apart_from_vllm(config.model)
    if config.train.together is Together.TRUE:
        yield "train.together=true", "each run samples completions of its own, so that none share a pass; leave it out"


def _apart_from_vllm(model: ModelConfig) -> Iterator[tuple[str, str]]:
    """What vLLM would answer otherwise than the model that learns, or cannot read."""
    for option in ("quantization", "head_quantization"):
        if getattr(model, option) is Quantization.INT8:
            yield (
                f"model.{option}=int8 with objective.engine=vllm",
                "int8 products round what goes into a layer, which no matrix repeats, so that another model would "
                "sample; give nf4 or none, or leave objective.engine out",
            )
    if model.trust_remote_code:
        yield (
            "model.trust_remote_code=true with objective.engine=vllm",
            "vLLM computes by code of its own; leave one out",
        )
