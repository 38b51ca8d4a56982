"""What generating completions takes beside the weights: counted on fake tensors, as a step of training is."""

from typing import Any

import torch

from ladder_cli.plan.allocation import AllocationCount
from ladder_cli.trunk.base import TrainableModule

SAMPLING = "sampling"
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
