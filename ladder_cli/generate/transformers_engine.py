"""Answering with a Transformers model: left padding, one key-value cache, smaller batches if memory ends."""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.data.chat import PromptRenderer
from ladder_cli.distributed import decided_by_main
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.generate.batching import batches, check_positions, check_vocabulary
from ladder_cli.generate.decoding import (
    Decoding,
    FiniteLogits,
    ModelLimits,
    NotFiniteAtOnce,
    clean,
    engine_identity,
    limits_of,
)
from ladder_cli.generate.engine import LENGTH, STOP, Completion, LabelScores, Prompt
from ladder_cli.plan.out_of_memory import free_memory, is_out_of_memory

# Where the batch size is left to the memory. More completions at a time make a CPU no faster.
_MOST_ON_GPU, _MOST_ON_CPU = 256, 32
# New tokens that room is left for beside a prompt of a label task, whose forward pass needs memory of its own.
_LABEL_ROOM = 512
_Answer = TypeVar("_Answer")


class TransformersEngine:
    """A model of Transformers, with or without an adapter, through its own `generate`."""

    def __init__(
        self, model: Callable[[], nn.Module], renderer: PromptRenderer, limits: ModelLimits, name: str = "the model"
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: gives the model, in evaluation mode; called whenever there is something to answer, and only then.
            renderer: of the prompts; its tokenizer reads the answers.
            limits: of the model: its own end tokens, its positions and vocabulary.
            name: of the model, for messages.
        """
        self.identity = engine_identity()
        self._model, self._renderer, self._limits, self._name = model, renderer, limits, name

    def settings(self, decode: DecodeConfig) -> dict[str, Any]:
        """Limits, sampling, end tokens and stop strings; nothing of the model's own generation config acts."""
        return Decoding.of(decode, self._renderer, self._limits).record()

    def complete(
        self,
        prompts: Sequence[Prompt],
        decode: DecodeConfig,
        seed: int,
        *,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[Completion]]:
        """Complete prompts, a batch at a time (`generate`); of several processes, each its share of the batches."""
        if all(prompt.id in finished for prompt in prompts):
            return
        self._check(prompts, decode.max_new_tokens)
        model = self._model()
        todo = self._batches(model, prompts, decode.max_new_tokens, decode.batch_size, finished, repeat)
        for answers in generate(model, self._renderer, todo, decode, seed, self._limits, self._name):
            yield [answer for answer in answers if answer.prompt.id not in finished]

    def label_scores(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[str],
        *,
        batch_size: int | None = None,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[LabelScores]]:
        """One forward pass for each batch (`score_labels`); of several processes, each its share of the batches."""
        if all(prompt.id in finished for prompt in prompts):
            return
        self._check(prompts, new_tokens=0)
        model = self._model()
        todo = self._batches(model, prompts, _LABEL_ROOM, batch_size, finished, repeat)
        for answers in score_labels(model, self._renderer, todo, labels, self._name):
            yield [answer for answer in answers if answer.prompt.id not in finished]

    def _check(self, prompts: Sequence[Prompt], new_tokens: int) -> None:
        check_positions(prompts, new_tokens, self._limits.positions, self._name)
        check_vocabulary(prompts, self._renderer, self._limits.vocabulary, self._name)

    def _batches(
        self,
        model: nn.Module,
        prompts: Sequence[Prompt],
        new_tokens: int,
        size: int | None,
        finished: Collection[str],
        repeat: int,
    ) -> list[list[Prompt]]:
        if size is None:
            most = _MOST_ON_CPU if computing_device(model).type == "cpu" else _MOST_ON_GPU
            size = fitting_batch_size(model, prompts, new_tokens, most)
        return batches(prompts, finished, decided_by_main(size), repeat)


def computing_device(model: nn.Module) -> torch.device:
    """Where a model computes; its embeddings alone may stay in the host's memory (`model.embeddings_on_cpu`)."""
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def left_padded(prompts: Sequence[Prompt], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[batch, tokens]` each, with the prompts at the right end."""
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt.ids)) + list(prompt.ids) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts], device=device)
    return ids, (torch.arange(width, device=device)[None] >= width - lengths[:, None]).long()


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
    decoding = Decoding.of(decode, renderer, limits if limits is not None else limits_of(model))
    advice = f"lower decode.max_new_tokens (now {decode.max_new_tokens}), or set model.quantization=nf4"
    return _halved(batches, lambda batch: _complete(model, renderer, batch, decoding, seed, name), advice)


def _halved(
    batches: list[list[Prompt]], answer: Callable[[list[Prompt]], list[_Answer] | None], advice: str
) -> Iterator[list[_Answer]]:
    """Answer batches in turn; one for which `answer` gives None, as memory ended, is halved, and so are those after.

    Raises:
        UserError: if the memory does not hold a single prompt, with `advice`.
    """
    waiting = deque(batches)
    largest = max(map(len, batches), default=1)
    while waiting:
        batch = waiting.popleft()
        if len(batch) <= largest:
            answers = answer(batch)
            if answers is not None:
                yield answers
                continue
            if len(batch) == 1:
                raise UserError(
                    f"out of memory on the prompt of '{batch[0].id}' alone: {advice}. What is finished is kept."
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
    completions = [completion_of(p, row, renderer, decoding) for p, row in zip(batch, new, strict=True)]
    _refuse_not_finite(finite, batch, [completion.tokens or 0 for completion in completions], name)
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


def label_tokens(renderer: PromptRenderer, labels: Sequence[str]) -> list[int]:
    """The first token of each label word, as training saw it.

    Raises:
        UserError: if two label words begin with the same token.
    """
    first = []
    for label in labels:
        rendered = renderer.render("", label)
        first.append(rendered.ids[rendered.prompt_length])
    if len(set(first)) < len(first):
        raise UserError(f"this tokenizer begins the labels {', '.join(labels)} with the same token: choose others.")
    return first


def score_labels(
    model: nn.Module,
    renderer: PromptRenderer,
    batches: list[list[Prompt]],
    labels: Sequence[str],
    name: str = "the model",
) -> Iterator[list[LabelScores]]:
    """The logits of the label words, of which the largest decides (paper, appendix A), a batch at a time.

    A batch that the memory does not hold is halved, and so are those after.

    Raises:
        UserError: if two label words begin with the same token, or the memory does not hold one prompt.
        RunFailed: if the largest logit of a prompt's label words is not finite; `name` is the model's in the message.
    """
    tokens = label_tokens(renderer, labels)

    def scores(batch: list[Prompt]) -> list[LabelScores] | None:
        rows = _next_token_logits(model, batch, renderer.tokenizer.pad_token_id, tokens)
        if rows is None:
            return None
        for prompt, finite in zip(batch, rows.amax(-1).isfinite().tolist(), strict=True):
            if not finite:
                raise RunFailed(not_finite(name, prompt.id, "the label words"))
        return [
            LabelScores(prompt, dict(zip(labels, row, strict=True)))
            for prompt, row in zip(batch, rows.tolist(), strict=True)
        ]

    return _halved(batches, scores, "set model.quantization=nf4, or leave that problem out")


def _next_token_logits(model: nn.Module, batch: list[Prompt], pad_id: int, tokens: list[int]) -> Tensor | None:
    """Logits `[batch, tokens]`, in float32 on the CPU, of these tokens after each prompt; None where memory ended."""
    ids, mask = left_padded(batch, pad_id, computing_device(model))
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    try:
        with torch.inference_mode():
            output = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1)
            return output.logits[:, -1, tokens].float().cpu()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    free_memory()
    return None


def fitting_batch_size(model: nn.Module, prompts: Sequence[Prompt], new_tokens: int, most: int) -> int:
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


def completion_of(prompt: Prompt, row: list[int], renderer: PromptRenderer, decoding: Decoding) -> Completion:
    """What the new tokens `row` of a prompt say: up to the first end token or stop string."""
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
    ids = tuple(row if end is None else row[: end + 1])
    return Completion(prompt, text, len(ids), LENGTH if end is None else STOP, ids)


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
