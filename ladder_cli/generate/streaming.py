"""One answer at a time, handed out while it is generated, that can be stopped between two tokens."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ladder_cli.data.chat import PromptRenderer
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.generate.decoding import Decoding, FiniteLogits, NotFiniteAtOnce, clean
from ladder_cli.generate.engine import Completion, Prompt
from ladder_cli.generate.transformers_engine import completion_of, computing_device, not_finite
from ladder_cli.plan.out_of_memory import free_memory, is_out_of_memory

Show = Callable[[str], object]  # is handed each new piece of an answer


class GrowingText:
    """The text of tokens that come one by one, in pieces that never change afterwards.

    A character may take several tokens, and a stop string several characters: what may still become another text is
    kept back.
    """

    def __init__(self, renderer: PromptRenderer, ends: Sequence[int], stop: Sequence[str]) -> None:
        """`ends`: tokens that end an answer; `stop`: strings that do."""
        self._tokenizer, self._ends, self._stop = renderer.tokenizer, frozenset(ends), tuple(stop)
        self._tokens: list[int] = []
        self._shown = ""
        self._ended = False

    def add(self, token: int) -> str:
        """One more token; what can be shown now, which may be nothing."""
        if self._ended or token in self._ends:
            self._ended = True
            return ""
        self._tokens.append(token)
        text = str(self._tokenizer.decode(self._tokens, skip_special_tokens=True))
        if found := [text.find(mark) for mark in self._stop if mark in text]:
            self._ended = True
            return self._grown_to(text[: min(found)])
        # An unfinished character is decoded as a replacement character.
        text = text.rstrip("\ufffd")
        kept = max((_overlap(text, mark) for mark in self._stop), default=0)
        return self._grown_to(text[: len(text) - kept])

    def rest(self, whole: str) -> str:
        """What has not been shown of the whole answer."""
        return self._grown_to(whole)

    def _grown_to(self, text: str) -> str:
        # Some tokenizers rewrite what is before (spaces around a word): then nothing can be taken back.
        if not text.startswith(self._shown):
            return ""
        piece, self._shown = text[len(self._shown) :], text
        return piece


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of the text begin the mark."""
    return next((length for length in range(len(mark) - 1, 0, -1) if text.endswith(mark[:length])), 0)


class _Pieces(BaseStreamer):
    def __init__(self, text: GrowingText, show: Show) -> None:
        self._text, self._show = text, show
        self._prompt = True

    def put(self, value: Any) -> None:
        # The first call brings the prompt.
        if self._prompt:
            self._prompt = False
        elif piece := self._text.add(int(value.view(-1)[0])):
            self._show(piece)

    def end(self) -> None:
        pass


class _Asked(StoppingCriteria):
    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stopped(), device=input_ids.device)


def stream(
    model: nn.Module,
    renderer: PromptRenderer,
    prompt: Prompt,
    decoding: Decoding,
    seed: int,
    show: Show,
    stopped: Callable[[], bool],
) -> Completion:
    """Complete one prompt, as `transformers_engine.generate` does in a batch of one, and show it as it grows.

    Args:
        model: in evaluation mode.
        renderer: its tokenizer reads the answer.
        prompt: with its tokens.
        decoding: limits, sampling, ends.
        seed: of sampling.
        show: called with each new piece; together they are the completion's text.
        stopped: asked after every token; True ends the answer, whose `stop_reason` is None then.

    Raises:
        UserError: if the memory does not hold it.
        RunFailed: if a logit is not finite.
    """
    text = GrowingText(renderer, decoding.end_tokens, decoding.stop)
    finite = FiniteLogits(sampling=not decoding.greedy)
    device = computing_device(model)
    ids = torch.tensor([list(prompt.ids)], device=device)
    options: dict[str, Any] = {"tokenizer": renderer.tokenizer} if decoding.stop else {}
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {prompt.id}".encode()).digest()[:7]))
    try:
        with torch.inference_mode(), clean(model):
            output = model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=decoding.generation_config(),
                logits_processor=LogitsProcessorList([finite]),
                stopping_criteria=StoppingCriteriaList([_Asked(stopped)]),
                streamer=_Pieces(text, show),
                **options,
            )
    except NotFiniteAtOnce as error:
        raise RunFailed(not_finite("the model", prompt.id, "token 1 of its completion")) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        output = None
    if output is None:
        free_memory()
        raise UserError(
            "out of memory: /reset begins anew, decode.max_new_tokens can be lower, model.quantization=nf4."
        )
    done = completion_of(prompt, output[0, ids.shape[1] :].tolist(), renderer, decoding)
    assert finite.first is not None
    if int(finite.first[0]) < (done.tokens or 0):
        raise RunFailed(not_finite("the model", prompt.id, f"token {int(finite.first[0]) + 1} of its completion"))
    if piece := text.rest(done.text):
        show(piece)
    return Completion(prompt, done.text, done.tokens, None) if stopped() else done
