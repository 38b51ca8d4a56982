"""From question and completion to tokens: the one rendering that training and evaluation share."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

DEFAULT_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_PLAIN_PROMPT = "Question: {question}\nAnswer:\n"
_PLAIN_TURN = "{role}: {content}\n"
_PROBE = "PROBE"
Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RenderedExample:
    """Token ids of prompt and completion; the first `prompt_length` of them do not count for the loss."""

    ids: list[int]
    prompt_length: int


class PromptRenderer:
    """Renders with the tokenizer's own chat template where there is one, else with a plain template.

    Chat templates of Qwen and Llama do not mark the assistant's tokens, so the prompt is rendered on its own, with
    its generation prompt, and the completion and its end token are appended to it. What is trained on is therefore
    exactly what generation continues from.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instruction: str) -> None:
        """`instruction` stands after every question, on a line of its own; empty for none."""
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.end_id = self._end_token()

    @property
    def fingerprint(self) -> str:
        """A hash of all that shapes a prompt; an adapter is evaluated under the rendering it was trained with."""
        parts = [self.tokenizer.chat_template or _PLAIN_PROMPT, self.instruction, self.end_id]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def tokenizer_fingerprint(self) -> str:
        """A hash of the tokenizer itself: equal texts become equal tokens under equal ones."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end a completion: the template's end of turn, and the tokenizer's end of text."""
        return sorted({self.end_id, self.tokenizer.eos_token_id} - {None})

    def prompt_text(self, question: str, messages: Messages = ()) -> str:
        """The prompt that a completion follows, special tokens and all.

        Args:
            question: what the user asks; the instruction is put under it.
            messages: a whole chat in its place, taken as it is.
        """
        if not messages:
            messages = (("user", f"{question}\n{self.instruction}" if self.instruction else question),)
        if self.tokenizer.chat_template:
            turns = [{"role": role, "content": content} for role, content in messages]
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        *earlier, (_, asked) = messages
        history = "".join(_PLAIN_TURN.format(role=role.capitalize(), content=content) for role, content in earlier)
        return (self.tokenizer.bos_token or "") + history + _PLAIN_PROMPT.format(question=asked)

    def prompt_ids(self, question: str, messages: Messages = ()) -> list[int]:
        """Token ids of `prompt_text`."""
        return self._ids([self.prompt_text(question, messages)])[0]

    def render(self, question: str, completion: str, messages: Messages = ()) -> RenderedExample:
        """Prompt, completion and end token."""
        (rendered,) = self.render_all([(question, completion, messages)])
        return rendered

    def render_all(self, examples: Sequence[tuple[str, str, Messages]]) -> list[RenderedExample]:
        """`render` for many at a time, which tokenizers do several times faster."""
        prompts = self._ids([self.prompt_text(question, messages) for question, _, messages in examples])
        completions = self._ids([completion for _, completion, _ in examples])
        return [
            RenderedExample([*prompt, *completion, self.end_id], len(prompt))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return list(self.tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _end_token(self) -> int:
        """The first token after the assistant's words, or the end of text where there is no template."""
        end = self.tokenizer.eos_token_id
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
            text = str(self.tokenizer.apply_chat_template(messages, tokenize=False))
            (tail,) = self._ids([text.rpartition(_PROBE)[2]])
            marks = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
            if tail and tail[0] in marks:
                return tail[0]
        if end is None:
            raise ValueError(f"{type(self.tokenizer).__name__} has neither a chat template nor an end token")
        return int(end)
