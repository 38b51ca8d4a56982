"""Batched generation: left padding, one key-value cache, completions as they finish; smaller batches if memory ends."""

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList

from ladder_cli.config.ranks import process_index, processes
from ladder_cli.config.schema import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.data.prepare import refuse_unknown_token
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.evaluate.samples import LENGTH, STOP
from ladder_cli.generate.decoding import Decoding, FiniteLogits, ModelLimits, NotFiniteAtOnce, clean, limits_of
from ladder_cli.plan.out_of_memory import free_memory, is_out_of_memory


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


def check_positions(prompts: list[Prompt], new_tokens: int, positions: int | None, model: str) -> None:
    """Refuse prompts that leave no room for a completion of `new_tokens` (0 for a label task).

    Raises:
        UserError: with the longest prompt, and the largest `decode.max_new_tokens` that it leaves room for.
    """
    if positions is None or not prompts:
        return
    longest = max(prompts, key=lambda prompt: len(prompt.ids))
    room = positions - len(longest.ids)
    if room >= new_tokens:
        return
    told = f"the prompt of '{longest.id}' has {len(longest.ids)} tokens, and {model} has positions for {positions}"
    if room < 1:
        raise UserError(f"{told}: leave that problem out, or take a model with a longer context.")
    raise UserError(
        f"{told}, which leaves {room} and not decode.max_new_tokens={new_tokens}: give decode.max_new_tokens={room} "
        "or less, or take a model with a longer context."
    )


def check_vocabulary(prompts: list[Prompt], renderer: PromptRenderer, vocabulary: int | None, model: str) -> None:
    """Refuse prompts with tokens that the backbone has no embedding for; the padding token is one of them.

    Raises:
        UserError: with the token, and the problem whose prompt holds it.
    """
    if vocabulary is None or not prompts:
        return
    held = max(prompts, key=lambda prompt: max(prompt.ids))
    tokenizer = renderer.tokenizer
    refuse_unknown_token(tokenizer, f"{model}: a token of the prompt of '{held.id}'", max(held.ids), vocabulary)
    refuse_unknown_token(tokenizer, f"{model}: the padding token", int(tokenizer.pad_token_id), vocabulary)


def generate(
    model: nn.Module,
    renderer: PromptRenderer,
    batches: list[list[Prompt]],
    decode: DecodeConfig,
    seed: int,
    limits: ModelLimits | None = None,
    name: str = "the model",
) -> Iterator[list[Completion]]:
    """Complete all prompts, a batch at a time. A batch that the memory does not hold is halved, and so are those after.

    Greedy unless `decode.temperature` is set: the token with the largest logit at every step. Nothing of the model's
    own generation config acts but its end tokens. A batch's sampling seed follows from `seed` and its first problem,
    so that a resumed run does not repeat the draws of the batches before.

    Args:
        limits: of the model, which are asked of it if they are not given.
        name: of the model, for messages.

    Raises:
        UserError: if the memory does not hold one completion.
        RunFailed: if a logit is not finite where a token is chosen.
    """
    waiting = deque(batches)
    decoding = Decoding.of(decode, renderer, limits if limits is not None else limits_of(model))
    largest = max(map(len, batches), default=1)
    while waiting:
        batch = waiting.popleft()
        if len(batch) <= largest:
            completions = _complete(model, renderer, batch, decoding, seed, name)
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
    model: nn.Module, renderer: PromptRenderer, batch: list[Prompt], decoding: Decoding, seed: int, name: str
) -> list[Completion] | None:
    """The completions of one batch, or None where the memory ended."""
    finite = FiniteLogits(sampling=not decoding.greedy)
    options: dict[str, Any] = {"tokenizer": renderer.tokenizer} if decoding.stop else {}
    ids, mask = left_padded(batch, decoding.pad_token, computing_device(model))
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {batch[0].id}".encode()).digest()[:7]))
    try:
        with torch.inference_mode(), clean(model):
            output = model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=mask,
                generation_config=decoding.generation_config(),
                logits_processor=LogitsProcessorList([finite]),
                **options,
            )
    except NotFiniteAtOnce:
        _refuse_not_finite(finite, batch, [1] * len(batch), name)
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        output = None
    if output is None:
        # Here, where the exception no longer holds the tensors of every frame it came through.
        free_memory()
        return None
    new = output[:, ids.shape[1] :].tolist()
    completions = [_completion(p, row, renderer, decoding) for p, row in zip(batch, new, strict=True)]
    _refuse_not_finite(finite, batch, [completion.tokens for completion in completions], name)
    return completions


def _refuse_not_finite(finite: FiniteLogits, batch: list[Prompt], tokens: list[int], name: str) -> None:
    """Raise if a row had such a logit before its end; what is computed for a row that has ended does not count."""
    assert finite.first is not None
    for prompt, first, count in zip(batch, finite.first.tolist(), tokens, strict=True):
        if first < count:
            raise RunFailed(not_finite(name, prompt.id, f"token {first + 1} of its completion"))


def not_finite(model: str, problem: str, where: str) -> str:
    """The message for a logit that is NaN or infinite."""
    return (
        f"{model} has logits that are not finite (NaN or infinite) on the prompt of '{problem}', at {where}: its "
        "weights are damaged, or overflow in this model.dtype (try model.dtype=float32). No score is made of that; "
        "what was finished before is kept."
    )


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


def _completion(prompt: Prompt, row: list[int], renderer: PromptRenderer, decoding: Decoding) -> Completion:
    tokenizer, stops = renderer.tokenizer, set(decoding.end_tokens)
    end = next((position for position, token in enumerate(row) if token in stops), None)
    kept = row if end is None else row[:end]
    text = str(tokenizer.decode(kept, skip_special_tokens=True))
    found = _first(decoding.stop, text)
    if found is not None:
        position, mark = found
        tokens = _tokens_until(kept, position + len(mark), renderer, skip_special_tokens=True)
        return Completion(prompt, text[:position], tokens, STOP)
    whole = str(tokenizer.decode(kept, skip_special_tokens=False)) if decoding.stop else ""
    found = _first(decoding.stop, whole)
    if found is not None:
        # The string holds a special token, which the text above is without.
        position, mark = found
        tokens = _tokens_until(kept, position + len(mark), renderer, skip_special_tokens=False)
        text = whole[:position]
        for special in (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special):
            text = text.replace(special, "")
        return Completion(prompt, text, tokens, STOP)
    return Completion(prompt, text, len(row) if end is None else end + 1, LENGTH if end is None else STOP)


def _first(marks: tuple[str, ...], text: str) -> tuple[int, str] | None:
    """The stop string that comes first in a text, and where it begins."""
    found = [(position, mark) for mark in marks if (position := text.find(mark)) >= 0]
    return min(found, key=lambda each: each[0], default=None)


def _tokens_until(tokens: list[int], length: int, renderer: PromptRenderer, skip_special_tokens: bool) -> int:
    """The fewest tokens whose text has at least `length` characters."""
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        text = renderer.tokenizer.decode(tokens[:middle], skip_special_tokens=skip_special_tokens)
        if len(text) >= length:
            high = middle
        else:
            low = middle + 1
    return low
