"""Renders a question and its completion to tokens. Training and evaluation share this one rendering."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from ladder_cli.config.choices import Learn
from ladder_cli.config.schema import DEFAULT_DATE
from ladder_cli.data.chat_template import applied_template, chosen_template, reads_clock
from ladder_cli.errors import UserError

DEFAULT_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
# Where the tokenizer has no chat template. A turn of the assistant looks the same in the middle of a chat as where it
# is generated, so that all of them can be learned.
_PLAIN_TURNS = {"user": "Question: {text}\n", "assistant": "Answer:\n{text}{end}\n"}
_PLAIN_OTHER = "{role}: {text}\n"
_PLAIN_GENERATION = "Answer:\n"
_PLAIN_QUESTION = "Question: {question}\nAnswer:\n"  # as it was hashed before dates were recorded
_PROBE = "PROBE"
Messages = tuple[tuple[str, str], ...]
# Conversations that two different templates or tokenizers render differently: white space at the ends, composed and
# decomposed letters, template marks and other models' special tokens as text, thoughts in an earlier turn, tools.
_ODD = (
    " \t{{ x }} {% y %} <|im_start|> [INST] </s> e\u0301 \u00e9 \u6f22\u5b57 \U0001f600 1234567 \\boxed{1}\r\n\n  z \n"
)
_THOUGHT = "<think>\nfirst\n</think>\n\nthen"
_PROBES: tuple[Messages, ...] = (
    (("user", _PROBE),),
    (("user", _ODD),),
    (("system", _PROBE), ("user", _PROBE)),
    (("user", _PROBE), ("assistant", _PROBE), ("user", _ODD)),
    (("system", _ODD), ("user", _PROBE), ("assistant", _ODD), ("user", _PROBE), ("assistant", _PROBE), ("user", "q")),
    (("user", _PROBE), ("assistant", _THOUGHT), ("user", _PROBE)),
    (("user", _PROBE), ("assistant", _PROBE), ("tool", _PROBE)),
    (("user", _PROBE), ("user", _PROBE)),
    (("assistant", _PROBE), ("user", _PROBE)),
)


@dataclass(frozen=True)
class RenderedExample:
    """Token ids of prompt and completion.

    Attributes:
        prompt_length: the position of the completion's first token; it counts for the loss, as do all after it.
        earlier: (start, stop) of earlier turns of the assistant that also count.
    """

    ids: list[int]
    prompt_length: int
    earlier: tuple[tuple[int, int], ...] = ()

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Return (start, stop) of all tokens that count, ascending."""
        return [*self.earlier, (self.prompt_length, len(self.ids))]


class PromptRenderer:
    """Renders with the tokenizer's chat template, or with a plain one if it has none.

    The chat templates of Qwen and Llama do not mark the assistant's tokens. So the prompt is rendered alone, with its
    generation prompt, and the completion and its end token are appended. Training therefore sees exactly the prompt
    that generation continues.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instruction: str, date: str = DEFAULT_DATE) -> None:
        """`instruction` follows every question on its own line; it may be empty.

        Args:
            date: as `2026-01-01`; templates that print the present day print this one.

        Raises:
            UserError: if the template is broken, or there are several and none is the default.
        """
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.date = date
        self._template = chosen_template(tokenizer, date)
        self.end_id = self._end_token()

    @cached_property
    def fingerprint(self) -> str:
        """Hash what is rendered. An adapter is evaluated under the rendering that it was trained with.

        The hash is over rendered conversations of every shape, not over the template's source. So two templates that
        render alike have one hash, and one template that prints another date has another.
        """
        first, *others = _PROBES
        # The first as a question, under which the instruction stands; the others as chats.
        texts = [self._attempt(first[0][1]), *(self._attempt("", messages) for messages in others)]
        parts = [texts, self._ids(texts), self.instruction, self.end_id, self.stop_ids]
        return _hash(json.dumps(parts))

    @property
    def prints_date(self) -> bool:
        """Return whether the template reads the present day, so that `date` may stand in a prompt."""
        return self._template is not None and reads_clock(self._template)

    def is_rendering_of(self, record: Mapping[str, Any]) -> bool:
        """Return whether the writer of `record` rendered prompts like this.

        Older versions recorded no date and hashed the template's source. Equal sources render a question alike, unless
        they print the day, which then is unknown.

        Args:
            record: of `as_dict`, of this or an older version.
        """
        if "date" in record:
            return bool(record["fingerprint"] == self.fingerprint)
        source = [self.tokenizer.chat_template or _PLAIN_QUESTION, self.instruction, self.end_id]
        accepted = (self.fingerprint, _hash(json.dumps(source, sort_keys=True)))
        return not self.prints_date and record["fingerprint"] in accepted

    @cached_property
    def source_fingerprint(self) -> str:
        """Hash everything that decides which tokens a row becomes, for caches.

        That includes the template's source: the probes of `fingerprint` may not reach all of its branches.
        """
        return _hash(json.dumps([self.fingerprint, self.tokenizer_fingerprint, self._template, _PLAIN_TURNS]))

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Hash the tokenizer itself: tokenizers with one hash make the same tokens of a text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            # Before it stand truncation and padding, which the last call set; they are no part of the tokenizer.
            written = backend.to_str()
            content = written[written.index('"added_tokens"') :]
        else:
            added = {str(token): number for number, token in self.tokenizer.added_tokens_decoder.items()}
            content = json.dumps([type(self.tokenizer).__name__, self.tokenizer.get_vocab(), added], sort_keys=True)
        probes = self._ids([text for messages in _PROBES for _, text in messages])
        return _hash(content + json.dumps(probes))

    def as_dict(self) -> dict[str, str]:
        """Return the content of `prompt.json`, by which an evaluation of the adapter renders."""
        return {"instruction": self.instruction, "date": self.date, "fingerprint": self.fingerprint}

    @property
    def stop_ids(self) -> list[int]:
        """Return the tokens that end a completion: the template's end of turn and the tokenizer's end of text."""
        return sorted({self.end_id, self.tokenizer.eos_token_id} - {None})

    @cached_property
    def end_texts(self) -> tuple[str, ...]:
        """Return the tokens of `stop_ids` as text."""
        return tuple(str(self.tokenizer.convert_ids_to_tokens(number)) for number in self.stop_ids)

    def without_end(self, completion: str) -> str:
        """Return the completion without end tokens of its own and the white space behind them."""
        while True:
            text = completion.rstrip()
            mark = next((mark for mark in self.end_texts if text.endswith(mark)), None)
            if mark is None:
                return completion
            completion = text.removesuffix(mark)

    def prompt_text(self, question: str, messages: Messages = ()) -> str:
        """Return the prompt that a completion follows, with its special tokens.

        Args:
            question: what the user asks; the instruction is put under it.
            messages: a whole chat instead of a question, rendered without an instruction.

        Raises:
            UserError: if the chat template refuses such a conversation.
        """
        if not messages:
            messages = (("user", f"{question}\n{self.instruction}" if self.instruction else question),)
        messages = tuple((role, self.without_end(text) if role == "assistant" else text) for role, text in messages)
        if self._template is not None:
            return self._apply(messages, generation_prompt=True)
        return (self.tokenizer.bos_token or "") + "".join(map(self._plain_turn, messages)) + _PLAIN_GENERATION

    def prompt_ids(self, question: str, messages: Messages = ()) -> list[int]:
        """Return the token ids of `prompt_text`."""
        return self._ids([self.prompt_text(question, messages)])[0]

    def render(
        self, question: str, completion: str, messages: Messages = (), learn: Learn = Learn.LAST
    ) -> RenderedExample:
        """Render prompt, completion and end token.

        Raises:
            UserError: as `render_all`.
        """
        (rendered,) = self.render_all([(question, completion, messages)], learn)
        return rendered

    def render_all(
        self, examples: Sequence[tuple[str, str, Messages]], learn: Learn = Learn.LAST
    ) -> list[RenderedExample]:
        """Render many examples at once, which tokenizers do several times faster.

        Args:
            examples: question, completion and, in place of the question, the messages of a chat up to the completion.
            learn: which of the assistant's turns in a chat count.

        Raises:
            UserError: if the chat template refuses a conversation; if earlier turns shall count and cannot be found in
                what the template makes of them; or if a completion is nothing but an end token.
        """
        texts = [self.prompt_text(question, messages) for question, _, messages in examples]
        completions = [self.without_end(completion) for _, completion, _ in examples]
        if "" in completions:
            raise UserError("the completion is nothing but an end token: mend or delete it.")
        rendered = []
        for text, prompt, completion, (_, _, messages) in zip(
            texts, self._ids(texts), self._ids(completions), examples, strict=True
        ):
            earlier = self._earlier_turns(messages, text, prompt) if learn is Learn.ALL else ()
            rendered.append(RenderedExample([*prompt, *completion, self.end_id], len(prompt), earlier))
        return rendered

    def _earlier_turns(self, messages: Messages, text: str, ids: list[int]) -> tuple[tuple[int, int], ...]:
        """Find the assistant's turns in `text`, the rendered `messages`, as (start, stop) in its token `ids`.

        A turn must be what generation would have made there: it begins where the conversation before it, rendered with
        the generation prompt, ends, and it ends with the end token. Both must be prefixes of the text and of the
        tokens. Where a template writes earlier turns otherwise (Qwen3 leaves out their thoughts), they are refused.
        """
        end = str(self.tokenizer.convert_ids_to_tokens(self.end_id))
        spans = []
        for number, (role, content) in enumerate(messages):
            if role != "assistant":
                continue
            where = f"turn {number + 1}, the assistant's,"
            content = self.without_end(content)
            if not content.strip():
                raise UserError(f"{where} is empty, and would be learned so: leave it out, or say data.learn=last.")
            if number == 0:
                raise UserError(f"{where} answers nothing: leave it out, or say data.learn=last, which shows it only.")
            before = self.prompt_text("", messages[:number])
            # Templates trim content, each in its way.
            written = (before + form + end for form in (content, content.strip(), content.lstrip(), content.rstrip()))
            through = next((candidate for candidate in written if text.startswith(candidate)), None)
            if through is None:
                raise UserError(
                    f"{where} is written otherwise by this chat template once the chat goes on (thoughts left out, "
                    "say), so it cannot be learned there: say data.learn=last, which counts the last turn alone."
                )
            start, stop = self._ids([before, through])
            if ids[: len(start)] != start or ids[: len(stop)] != stop:
                raise UserError(
                    f"{where} begins or ends inside a token (white space at its ends?), so its tokens are not those of "
                    "generation: trim it, or say data.learn=last, which counts the last turn alone."
                )
            spans.append((len(start), len(stop)))
        return tuple(spans)

    def _apply(self, messages: Messages, generation_prompt: bool) -> str:
        return applied_template(self.tokenizer, str(self._template), messages, generation_prompt)

    def _plain_turn(self, turn: tuple[str, str]) -> str:
        role, text = turn
        form = _PLAIN_TURNS.get(role, _PLAIN_OTHER)
        return form.format(role=role.capitalize(), text=text, end=self.tokenizer.eos_token or "")

    def _attempt(self, question: str, messages: Messages = ()) -> str:
        """Return the prompt, or the template's refusal as a text."""
        try:
            return self.prompt_text(question, messages)
        except UserError as error:
            return f"refused: {error}"

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return list(self.tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _end_token(self) -> int:
        """Return the first token after the assistant's words, or the end of text if there is no template."""
        end = self.tokenizer.eos_token_id
        if self._template is not None:
            text = self._apply((("user", _PROBE), ("assistant", _PROBE)), generation_prompt=False)
            (tail,) = self._ids([text.rpartition(_PROBE)[2]])
            marks = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
            if tail and tail[0] in marks:
                return tail[0]
        if end is None:
            raise UserError(
                "the tokenizer has neither a chat template that ends a turn nor an end token: nothing would end a "
                "completion. Set eos_token in its tokenizer_config.json."
            )
        return int(end)


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
