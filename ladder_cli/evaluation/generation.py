"""Batched generation: longest prompts first, left padding, one key-value cache, completions as they finish."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ladder_cli.config import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.training.out_of_memory import free_memory, is_out_of_memory

STOP, LENGTH = "stop", "length"


@dataclass(frozen=True)
class Prompt:
    """A rendered question and the name of its problem."""

    id: str
    text: str
    ids: list[int]


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    Attributes:
        tokens: generated tokens, the end token included.
        stop_reason: `stop` at an end token, `length` at the limit of new tokens.
    """

    prompt: Prompt
    text: str
    tokens: int
    stop_reason: str


def render_prompt(name: str, question: str, renderer: PromptRenderer) -> Prompt:
    """A question as training has seen it."""
    return Prompt(name, renderer.prompt_text(question), renderer.prompt_ids(question))


def left_padded(prompts: list[Prompt], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[batch, tokens]` each, with the prompts at the right end."""
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt.ids)) + prompt.ids for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts], device=device)
    return ids, (torch.arange(width, device=device)[None] >= width - lengths[:, None]).long()


def generate(
    model: nn.Module, renderer: PromptRenderer, prompts: list[Prompt], decode: DecodeConfig, seed: int
) -> Iterator[list[Completion]]:
    """Complete all prompts, a batch at a time; batches hold prompts of similar length, longest first.

    Greedy unless `decode.temperature` is set. A batch's sampling seed follows from `seed` and its first problem, so
    that a resumed run does not repeat the draws of the batches before. A batch that memory does not hold is cut in
    two, down to single prompts.

    Raises:
        UserError: if memory does not hold a single prompt.
    """
    ordered = sorted(prompts, key=lambda prompt: -len(prompt.ids))
    for start in range(0, len(ordered), decode.batch_size):
        waiting = [ordered[start : start + decode.batch_size]]
        finished: list[Completion] = []
        while waiting:
            part = waiting.pop()
            try:
                finished += _decode(model, renderer, part, decode, seed)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise UserError(
                        f"out of memory on the prompt of '{part[0].id}' alone: lower decode.max_new_tokens (now "
                        f"{decode.max_new_tokens}), or set model.quantization=nf4."
                    ) from error
                waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
            if waiting:
                free_memory()
        yield finished


def _decode(
    model: nn.Module, renderer: PromptRenderer, batch: list[Prompt], decode: DecodeConfig, seed: int
) -> list[Completion]:
    tokenizer = renderer.tokenizer
    options: dict[str, Any] = {"do_sample": False}
    if decode.temperature > 0:
        options = {"do_sample": True, "temperature": decode.temperature, "top_p": decode.top_p, "top_k": 0}
    ids, mask = left_padded(batch, tokenizer.pad_token_id, next(model.parameters()).device)
    torch.manual_seed(seed + sum(batch[0].id.encode()))
    with torch.inference_mode():
        output = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=decode.max_new_tokens,
            eos_token_id=renderer.stop_ids,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    new = output[:, ids.shape[1] :].tolist()
    return [_completion(p, row, renderer) for p, row in zip(batch, new, strict=True)]


def _completion(prompt: Prompt, row: list[int], renderer: PromptRenderer) -> Completion:
    stops = set(renderer.stop_ids)
    end = next((position for position, token in enumerate(row) if token in stops), None)
    kept = row if end is None else row[:end]
    text = str(renderer.tokenizer.decode(kept, skip_special_tokens=True))
    return Completion(prompt, text, len(row) if end is None else end + 1, LENGTH if end is None else STOP)
