"""Batched generation: left padding, one key-value cache, completions as they finish; smaller batches if memory ends."""

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ladder_cli.config import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.evaluation.samples import LENGTH, STOP
from ladder_cli.ranks import process_index, processes
from ladder_cli.training.out_of_memory import free_memory, is_out_of_memory


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
        stop_reason: `stop` at an end token or a stop string, `length` at the limit of new tokens.
    """

    prompt: Prompt
    text: str
    tokens: int
    stop_reason: str


def render_prompt(name: str, question: str, renderer: PromptRenderer) -> Prompt:
    """A question as training has seen it."""
    return Prompt(name, renderer.prompt_text(question), renderer.prompt_ids(question))


def computing_device(model: nn.Module) -> torch.device:
    """Where a model computes; its embeddings alone may stay in the host's memory (`model.embeddings_on_cpu`)."""
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def left_padded(prompts: list[Prompt], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[batch, tokens]` each, with the prompts at the right end."""
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt.ids)) + prompt.ids for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts], device=device)
    return ids, (torch.arange(width, device=device)[None] >= width - lengths[:, None]).long()


def batches(prompts: list[Prompt], finished: set[str], size: int, repeat: int = 0) -> list[list[Prompt]]:
    """What is still to be done by this process, in batches.

    Batches are cut from all prompts, finished or not, so that an evaluation that was killed, or that several processes
    share, decodes every problem in the company it would have had, to the bit; one of which a single sample is missing
    is made again whole. They hold prompts of similar length, the longest first; the batches of a repeat are drawn at
    random, so that every completion meets other neighbours and other padding.
    """
    ordered = sorted(prompts, key=lambda prompt: -len(prompt.ids))
    if repeat:
        random.Random(repeat).shuffle(ordered)
    cut = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    mine = cut[process_index() :: processes()]
    return [batch for batch in mine if any(prompt.id not in finished for prompt in batch)]


def generate(
    model: nn.Module, renderer: PromptRenderer, batches: list[list[Prompt]], decode: DecodeConfig, seed: int
) -> Iterator[list[Completion]]:
    """Complete all prompts, a batch at a time. A batch that the memory does not hold is halved, and so are those after.

    Greedy unless `decode.temperature` is set. A batch's sampling seed follows from `seed` and its first problem, so
    that a resumed run does not repeat the draws of the batches before.

    Raises:
        UserError: if the memory does not hold one completion.
    """
    waiting = deque(batches)
    largest = max(map(len, batches), default=1)
    while waiting:
        batch = waiting.popleft()
        if len(batch) <= largest:
            completions = _complete(model, renderer, batch, decode, seed)
            if completions is not None:
                yield completions
                continue
            if len(batch) == 1:
                raise UserError(
                    f"out of memory on the prompt of '{batch[0].id}' alone: lower decode.max_new_tokens (now "
                    f"{decode.max_new_tokens}), or set model.quantization=nf4. What is finished is kept."
                )
            largest = len(batch) // 2
        waiting.extendleft(reversed([batch[start : start + largest] for start in range(0, len(batch), largest)]))


def _complete(
    model: nn.Module, renderer: PromptRenderer, batch: list[Prompt], decode: DecodeConfig, seed: int
) -> list[Completion] | None:
    """The completions of one batch, or None where the memory ended."""
    tokenizer = renderer.tokenizer
    # What a model's own generation_config may hold beside (Qwen's holds a repetition penalty) is not to join in.
    options: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0}
    if decode.temperature > 0:
        options |= {"do_sample": True, "temperature": decode.temperature, "top_p": decode.top_p, "top_k": 0}
    if decode.stop:
        options |= {"stop_strings": decode.stop, "tokenizer": tokenizer}
    ids, mask = left_padded(batch, tokenizer.pad_token_id, computing_device(model))
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {batch[0].id}".encode()).digest()[:7]))
    try:
        with torch.inference_mode():
            output = model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=decode.max_new_tokens,
                eos_token_id=renderer.stop_ids,
                pad_token_id=tokenizer.pad_token_id,
                **options,
            )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        output = None
    if output is None:
        # Here, where the exception no longer holds the tensors of every frame it came through.
        free_memory()
        return None
    new = output[:, ids.shape[1] :].tolist()
    return [_completion(p, row, renderer, decode.stop) for p, row in zip(batch, new, strict=True)]


def fitting_batch_size(model: nn.Module, prompts: list[Prompt], new_tokens: int, most: int) -> int:
    """How many completions the free memory holds at a time: the key-value cache of the longest, measured on one token.

    Only an estimate to begin with, of four fifths of what is free; `generate` halves it where it is wrong.
    """
    device = computing_device(model)
    longest = max(len(prompt.ids) for prompt in prompts) + new_tokens
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([[prompts[0].ids[0]]], device=device), use_cache=True)
    # A branch does not run the backbone's last layers, whose part of the cache stays empty.
    layers = [layer for layer in output.past_key_values.layers if layer.keys is not None]
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    # Choosing a token takes a few float32 copies of its logits.
    per_row = cached * longest + 16 * output.logits.shape[-1]
    return max(1, min(most, len(prompts), int(0.8 * _free_bytes(device) / per_row)))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil

    return int(psutil.virtual_memory().available)


def _completion(prompt: Prompt, row: list[int], renderer: PromptRenderer, stop: list[str]) -> Completion:
    stops = set(renderer.stop_ids)
    end = next((position for position, token in enumerate(row) if token in stops), None)
    kept = row if end is None else row[:end]
    text = str(renderer.tokenizer.decode(kept, skip_special_tokens=True))
    found = min((position for position in map(text.find, stop) if position >= 0), default=None)
    if found is not None:
        reached = next(mark for mark in stop if text.startswith(mark, found))
        tokens = _tokens_until(kept, text[: found + len(reached)], renderer)
        return Completion(prompt, text[:found], tokens, STOP)
    return Completion(prompt, text, len(row) if end is None else end + 1, LENGTH if end is None else STOP)


def _tokens_until(tokens: list[int], text: str, renderer: PromptRenderer) -> int:
    """The fewest tokens whose text begins with `text`."""
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if len(renderer.tokenizer.decode(tokens[:middle], skip_special_tokens=True)) >= len(text):
            high = middle
        else:
            low = middle + 1
    return low
