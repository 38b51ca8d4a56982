"""What generating completions takes: beside the weights, counted on fake tensors as a step of training is; or of
another engine, which has weights of its own.
"""

import os
from typing import Any

import torch

from ladder_cli.config.choices import EngineKind
from ladder_cli.config.schema import TrainConfig
from ladder_cli.errors import UserError
from ladder_cli.plan.allocation import AllocationCount
from ladder_cli.trunk.base import TrainableModule
from ladder_cli.trunk.loading import backbone_shape

SAMPLING, ENGINE = "sampling", "vllm"
# GiB of keys and values that vLLM takes on a CPU, where it is set, in place of a share of all memory.
_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"
# Choosing a token takes a few float32 copies of its logits.
_BYTES_OF_A_LOGIT = 16


@torch.no_grad()
def sampling_bytes(model: TrainableModule, rows: int, tokens: int, new: int, count: AllocationCount) -> int:
    """Bytes at the peak: of the pass over the prompts, or of the last token with all keys and values before it.

    Args:
        model: on fake tensors.
        rows: completions that are generated at a time.
        tokens: of prompt and completion together.
        new: of them, of the completion.
        count: is counting.
    """
    forward: Any = model
    prompt = max(1, tokens - new)
    count.reset_peak()
    before = count.live.total()
    model.eval()
    output = forward(input_ids=torch.zeros(rows, prompt, dtype=torch.long), use_cache=True, logits_to_keep=1)
    model.train()
    prompts = count.peak.total() - before
    # A branch does not run the backbone's last layers, whose part of the cache stays empty.
    layers = [layer for layer in output.past_key_values.layers if layer.keys is not None]
    sizes = [layer.keys.nbytes + layer.values.nbytes for layer in layers]
    # A layer's keys and values are copied to be longer by one.
    kept = (sum(sizes) + max(sizes)) * tokens // prompt
    return max(prompts, kept + rows * output.logits.shape[-1] * _BYTES_OF_A_LOGIT)


def engine_bytes(config: TrainConfig, device: torch.device, capacity: int | None, dtype: torch.dtype) -> int:
    """Bytes that vLLM takes on the device as long as it samples for a training; 0 where the model samples itself.

    Args:
        capacity: bytes of the device; None where nobody says: then what the weights take.
        dtype: that the backbone computes in.

    Raises:
        UserError: if the share does not hold the weights, which vLLM has dense.
    """
    objective = config.objective
    if not objective.samples or objective.engine is EngineKind.TRANSFORMERS:
        return 0
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in backbone_shape(config.model, dtype).parameters()) * dtype.itemsize
    cache = os.environ.get(_CPU_CACHE, "0") if device.type == "cpu" else "0"
    if cache.isdecimal() and int(cache):
        return weights + int(cache) * 2**30
    if capacity is None:
        return weights
    share = int(objective.engine_memory * capacity)
    if share <= weights:
        raise UserError(
            f"objective.engine_memory={objective.engine_memory:g} gives vLLM {share / 2**30:.2f} GiB, and the weights "
            f"alone, which it has dense, take {weights / 2**30:.2f} GiB: give more, or leave objective.engine out."
        )
    return share
