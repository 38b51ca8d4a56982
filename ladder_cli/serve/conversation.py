"""A chat with a backbone and its adapters: what was said, who answers, and the prompt that comes of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.config.validation import suggest
from ladder_cli.data.chat import Messages, PromptRenderer
from ladder_cli.errors import UserError
from ladder_cli.generate.backbones import SharedBackbone
from ladder_cli.generate.decoding import Decoding
from ladder_cli.generate.engine import Completion, Prompt
from ladder_cli.generate.streaming import Show, stream
from ladder_cli.generate.trained import TrainedRun


@dataclass(frozen=True)
class Voice:
    """Who can answer.

    Attributes:
        name: of the run, or of the backbone.
        trained: None for the backbone alone.
    """

    name: str
    renderer: PromptRenderer
    trained: TrainedRun | None = None


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        completion: `stop_reason` is None where the asker stopped it.
        cut: it ended at the limit of tokens.
    """

    completion: Completion
    cut: bool


class Conversation:
    """Turns of a chat, each rendered as the questions of training were.

    Under every question stands the instruction of the training, where there was one. What a single question becomes
    is, token for token, what it became in training.
    """

    def __init__(
        self,
        backbone: SharedBackbone,
        voices: Sequence[Voice],
        decode: DecodeConfig,
        seed: int = 0,
        system: str | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            backbone: of all voices.
            voices: at least one; the first answers.
            decode: limits and sampling.
            seed: of sampling.
            system: a system message.
        """
        self._backbone, self._decode, self._seed = backbone, decode, seed
        self.voices = {voice.name: voice for voice in voices}
        self.active = voices[0]
        self.system = system
        self.adapter_on = self.active.trained is not None
        self._turns: list[tuple[str, str]] = []
        self._asked = 0

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """Questions and answers so far."""
        return tuple(self._turns)

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        self._turns.clear()

    def choose(self, name: str) -> None:
        """Let another adapter answer.

        Raises:
            UserError: if there is none of that name.
        """
        if name not in self.voices:
            listed = ", ".join(self.voices)
            raise UserError(
                f"there is no adapter named '{name}'.{suggest(name, list(self.voices))} There are: {listed}."
            )
        self.active = self.voices[name]
        self.adapter_on = self.active.trained is not None

    def switch(self, on: bool) -> None:
        """Let the adapter answer, or the backbone under it.

        Raises:
            UserError: if there is no adapter.
        """
        if self.active.trained is None:
            raise UserError("there is no adapter here, only the backbone: start with run=DIR.")
        self.adapter_on = on

    def load(self) -> None:
        """Load what answers now; what is asked then is answered at once.

        Raises:
            UserError: if it cannot be loaded.
        """
        self._model()

    def ask(self, question: str, show: Show, stopped: Callable[[], bool] = lambda: False) -> Answer:
        """Answer, and keep question and answer; of an answer that was stopped what was shown, if it was anything.

        Raises:
            UserError: if there is no room for an answer. The question is not kept then.
        """
        answer = self._answer(question, self.adapter_on, show, stopped)
        if answer.completion.text or answer.completion.stop_reason is not None:
            self._turns.append((question, answer.completion.text))
        return answer

    def compare(self, question: str, stopped: Callable[[], bool] = lambda: False) -> dict[str, Answer]:
        """The backbone's and the adapter's answers to a question after what was said; neither is kept.

        Raises:
            UserError: if there is no adapter, or no room for an answer.
        """
        if self.active.trained is None:
            raise UserError("there is no adapter to compare with: start with run=DIR.")
        named = {"backbone": False, self.active.name: True}
        return {name: self._answer(question, adapter, lambda piece: None, stopped) for name, adapter in named.items()}

    def messages(self, question: str) -> Messages:
        """The whole chat as messages, the instruction under every question."""
        instruction = self.active.renderer.instruction

        def asked(text: str) -> tuple[str, str]:
            return "user", f"{text}\n{instruction}" if instruction else text

        said = [message for before, answer in self._turns for message in (asked(before), ("assistant", answer))]
        system = [("system", self.system)] if self.system else []
        return (*system, *said, asked(question))

    def _answer(self, question: str, adapter: bool, show: Show, stopped: Callable[[], bool]) -> Answer:
        renderer, messages = self.active.renderer, self.messages(question)
        self._asked += 1
        prompt = Prompt(
            f"question {self._asked}", renderer.prompt_text("", messages), renderer.prompt_ids("", messages)
        )
        decoding = Decoding.of(self._room(prompt), renderer, self._backbone.limits)
        with self._speaking(adapter) as model:
            completion = stream(model, renderer, prompt, decoding, self._seed, show, stopped)
        return Answer(completion, cut=completion.stop_reason == "length")

    def _room(self, prompt: Prompt) -> DecodeConfig:
        """The settings with as many new tokens as the model has positions for."""
        positions = self._backbone.limits.positions
        if positions is None:
            return self._decode
        room = positions - len(prompt.ids)
        if room < 1:
            raise UserError(
                f"the chat has {len(prompt.ids)} tokens, and the model positions for {positions}: /reset begins anew."
            )
        values = vars(self._decode) | {"max_new_tokens": min(room, self._decode.max_new_tokens)}
        return DecodeConfig(**values)

    def _model(self) -> nn.Module:
        trained = self.active.trained
        return self._backbone.bare() if trained is None else self._backbone.with_adapter(trained.adapter)

    @contextmanager
    def _speaking(self, adapter: bool) -> Iterator[nn.Module]:
        model: Any = self._model()
        off = self.active.trained is not None and not adapter
        silent: AbstractContextManager = model.disable_adapter() if off else nullcontext()
        with silent:
            yield model
