"""What answers prompts, as an evaluation sees it: prompts go in, completions or scores of label words come out.

Imports no torch. How many prompts are answered at a time, on which device, and by which weights is the engine's affair.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ladder_cli.config.evaluation import DecodeConfig

# Why a completion ended: at an end token or a stop string, or at the limit of new tokens.
STOP, LENGTH = "stop", "length"


@dataclass(frozen=True)
class Prompt:
    """A rendered question.

    Attributes:
        id: of its problem.
        text: as it is rendered.
        ids: its tokens; empty for an engine that reads none.
    """

    id: str
    text: str
    ids: Sequence[int] = ()


@dataclass(frozen=True)
class Completion:
    """What was answered.

    Attributes:
        tokens: generated tokens, the end token included; None where the engine does not know.
        stop_reason: `stop` at an end token or a stop string, `length` at the limit of new tokens; None: not known.
        ids: the tokens themselves, as they were generated; empty where the engine does not know, or cut a stop string
            off.
        log_probabilities: of `ids`, under the distribution that they were drawn from; empty where nobody asked for
            them.
    """

    prompt: Prompt
    text: str
    tokens: int | None
    stop_reason: str | None
    ids: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class LabelScores:
    """The logits of the label words, label -> logit of the word's first token."""

    prompt: Prompt
    logits: dict[str, float]

    @property
    def label(self) -> str:
        """The label with the largest logit."""
        return max(self.logits, key=self.logits.__getitem__)


class Engine(Protocol):
    """Answers prompts.

    Several processes may call the same engine with the same arguments: each is handed its share of the answers.

    Attributes:
        identity: of what computes, for settings.json: samples of two engines never mix.
    """

    identity: str

    def settings(self, decode: DecodeConfig) -> dict[str, Any]:
        """Everything that acts on a completion made under `decode`, for settings.json; as JSON values."""
        ...

    def complete(
        self,
        prompts: Sequence[Prompt],
        decode: DecodeConfig,
        seed: int,
        *,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[Completion]]:
        """Complete prompts, some at a time, in an order of the engine's own.

        Args:
            prompts: all of a benchmark, with different ids.
            seed: of sampling.
            finished: ids of prompts that have their completion already, and get none here. They are given all the
                same, since what a prompt is computed together with may decide about a rounding: a killed evaluation
                goes on in the batches that it would have had.
            repeat: 0 is the first answering; another one groups the prompts otherwise.

        Raises:
            UserError: if a prompt does not fit the model or its memory.
            RunFailed: if a logit is not finite where a token is chosen.
        """
        ...

    def label_scores(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[str],
        *,
        batch_size: int | None = None,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[LabelScores]]:
        """Score label words as the next token of each prompt, some prompts at a time; nothing is generated.

        Args:
            batch_size: prompts at a time; None: as many as the memory holds.
            finished, repeat: as for `complete`.

        Raises:
            UserError: if the engine has no logits, two labels begin with the same token, or a prompt does not fit.
            RunFailed: if the largest logit of a prompt's label words is not finite.
        """
        ...
