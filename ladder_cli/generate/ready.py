"""Completions that other tools have made, handed out as an engine hands out its own."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.errors import UserError
from ladder_cli.generate.engine import Completion, LabelScores, Prompt
from ladder_cli.ranks import process_index, processes

# Completions that are handed out together.
_TOGETHER = 32


class ReadyCompletions:
    """An engine that computes nothing: it knows its answers by the prompts' ids."""

    def __init__(self, completions: Mapping[str, Completion], digest: str) -> None:
        """`digest`: of the file that they come from."""
        self.identity = f"completions {digest}"
        self._completions = completions

    def settings(self, decode: DecodeConfig) -> dict[str, Any]:
        """Nothing acts on a completion that is there already."""
        return {}

    def complete(
        self,
        prompts: Sequence[Prompt],
        decode: DecodeConfig,
        seed: int,
        *,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[Completion]]:
        """The completions in the order of the prompts; of several processes, each its share.

        Neither `decode`, `seed` nor `repeat` is read.

        Raises:
            UserError: if there is none for a prompt.
        """
        mine = prompts[process_index() :: processes()]
        missing = [prompt for prompt in mine if prompt.id not in finished]
        unknown = next((prompt.id for prompt in missing if prompt.id not in self._completions), None)
        if unknown is not None:
            raise UserError(f"there is no ready completion of '{unknown}'.")
        for start in range(0, len(missing), _TOGETHER):
            part = missing[start : start + _TOGETHER]
            yield [replace(self._completions[prompt.id], prompt=prompt) for prompt in part]

    def label_scores(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[str],
        *,
        batch_size: int | None = None,
        finished: Collection[str] = (),
        repeat: int = 0,
    ) -> Iterator[list[LabelScores]]:
        """Refused.

        Raises:
            UserError: always: a text has no logits.
        """
        raise UserError("ready completions have no logits of label words: a label task needs a model.")
