"""Parameters and arithmetic of a configuration, from shapes alone: no weights, no download."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from ladder_cli.config.schema import TrainConfig
from ladder_cli.methods.registry import method_for
from ladder_cli.plan.flops import flops_per_token
from ladder_cli.trunk.base import WHOLE
from ladder_cli.trunk.live import LiveTrunk
from ladder_cli.trunk.loading import architecture, parameter_count


@dataclass(frozen=True)
class Sizes:
    """What a run holds and computes.

    Attributes:
        backbone: N, parameters of the frozen backbone with its embeddings.
        trained: n, trained parameters.
        flops: of one training token, by each way of counting (`plan.flops`).
    """

    backbone: int
    trained: int
    flops: dict[str, int]


def sizes_of(config: TrainConfig) -> Sizes:
    """The sizes of one configuration.

    Raises:
        UserError: if the backbone's shape cannot be read, or the method does not fit it.
    """
    method, shape = method_for(config.method), architecture(config.model)
    with torch.device("meta"):
        trunk = LiveTrunk(AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16))
        model = method.shape(trunk)
    cost = trunk.cost(model.request or WHOLE)
    trained = parameter_count(model, trained=True)
    return Sizes(cost.parameters, trained, flops_per_token(method.cost(cost), trained))
