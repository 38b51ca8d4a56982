"""Completions that a model is trained on and that it has sampled itself: prompts, answers, rewards, advantages.

What a step samples follows from the seed, its number and the weights before it, and from nothing else. So a run that
was killed in the middle of a step samples the same again from its checkpoint, where the machine rounds alike.
"""

import contextlib
import json
import os
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ladder_cli.config.evaluation import DecodeConfig
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.batching import PaddingCollator
from ladder_cli.data.encoding import IGNORED_LABEL, EncodedSet
from ladder_cli.data.examples import Example
from ladder_cli.data.passes import rows_after, steps_in_epoch
from ladder_cli.data.prepare import PreparedData
from ladder_cli.generate.engine import LENGTH, Completion, Engine, Prompt
from ladder_cli.nn.policy import advantages_of
from ladder_cli.run.files import write_text
from ladder_cli.train.monitor import Spent
from ladder_cli.train.problems import prompt_length
from ladder_cli.train.random_states import RandomStream
from ladder_cli.train.rewards import Answered, Reward, Worth
from ladder_cli.trunk.base import Batch

# Of a step: told of its completions, beside what the objective measures of the update.
TOLD = ("reward", "reward_std", "alike", "completion_tokens", "cut_off")


@dataclass(frozen=True)
class Sampled:
    """One completion, as a line of `completions.jsonl`.

    Attributes:
        step: of the update that it is for.
        id: of its row.
        number: among the completions of its prompt in that step, from 0.
        prompt: as it is rendered.
        tokens: of the completion, the end token included.
        stop_reason: `stop`, or `length` at the limit of new tokens.
        verdict, answer: of the grader; null where a function gives the reward.
        advantage: over the other completions of its prompt.
    """

    step: int
    id: str
    number: int
    prompt: str
    completion: str
    tokens: int
    stop_reason: str
    gold: str
    verdict: str | None
    answer: str | None
    reward: float
    advantage: float


class CompletionsLog:
    """The completions of a run by step. A step that is taken again takes the place of what it had written before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, steps: int) -> None:
        """Drop what belongs to later steps, and half a line that a kill has left."""
        if not self._path.is_file():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] <= steps and line.endswith("\n"):
                    kept.append(line)
        write_text(self._path, "".join(kept))

    def add(self, samples: Iterable[Sampled]) -> None:
        """Append a step; on disk when this returns, and so before the checkpoint that follows from it."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(sample)) + "\n" for sample in samples))
            file.flush()
            os.fsync(file.fileno())


class Asking:
    """The rows of a split as prompts, answered by a model as it is now, and rewarded."""

    def __init__(
        self,
        config: TrainConfig,
        data: PreparedData,
        model: nn.Module,
        engine: Engine,
        reward: Reward,
        spent: Spent,
        at_a_time: int | None,
    ) -> None:
        """Put together.

        Args:
            model: is in training mode outside of this.
            engine: answers with it.
            spent: is told the seconds.
            at_a_time: completions that are generated together; None: the engine's own choice.
        """
        self.data, self._model, self._engine, self._reward, self._spent = data, model, engine, reward, spent
        self._max_new_tokens, self._seed, self._at_a_time = config.objective.max_new_tokens, config.seed, at_a_time

    def prompt(self, rows: EncodedSet, examples: Sequence[Example], row: int, name: str) -> Prompt:
        """The prompt of a row: what stands before its last counted tokens."""
        encoded, example = rows[row], examples[rows.kept[row]]
        ids = encoded["input_ids"][: prompt_length(encoded)]
        return Prompt(name, self.data.renderer.prompt_text(example.question, example.messages), ids)

    def answers(self, prompts: Sequence[Prompt], temperature: float) -> dict[str, Completion]:
        """Each prompt's completion; the global random numbers stay as they are."""
        decode = DecodeConfig(self._max_new_tokens, self._at_a_time, temperature)
        with self._spent.part("generate"), RandomStream().drawing(), evaluating(self._model):
            batches = self._engine.complete(prompts, decode, self._seed)
            return {completion.prompt.id: completion for batch in batches for completion in batch}

    def worths(self, examples: Sequence[Example], completions: Sequence[Completion]) -> list[Worth]:
        """What each completion is worth, of the example beside it."""
        with self._spent.part("grade"):
            return self._reward(
                [
                    Answered(example.question, answer.text, example.gold or "", answer.stop_reason == LENGTH)
                    for example, answer in zip(examples, completions, strict=True)
                ]
            )

    def validate(self) -> dict[str, float]:
        """Answer the held-out prompts greedily: the mean reward, tokens of a completion, and the share cut off."""
        rows, examples = self.data.validation, self.data.splits.validation
        prompts = [self.prompt(rows, examples, row, str(row)) for row in range(len(rows))]
        found = self.answers(prompts, temperature=0.0)
        completions = [found[prompt.id] for prompt in prompts]
        worths = self.worths([examples[rows.kept[row]] for row in range(len(rows))], completions)
        return {
            "eval_reward": statistics.fmean(worth.reward for worth in worths),
            "eval_completion_tokens": statistics.fmean(len(completion.ids) for completion in completions),
            "eval_cut_off": statistics.fmean(completion.stop_reason == LENGTH for completion in completions),
        }


class Rollouts:
    """The micro-batches of each step: completions of some prompts, each row with its advantage.

    An epoch asks every training row once, in an order of its own; its last step takes the rows that are left.
    """

    def __init__(
        self,
        config: TrainConfig,
        asking: Asking,
        prompts_a_step: int,
        order_of_seed: int,
        log: CompletionsLog,
        told: Callable[[Sequence[float]], None],
    ) -> None:
        """Put together.

        Args:
            prompts_a_step: each answered `objective.group` times.
            order_of_seed: the seed that orders the rows.
            log: of the completions.
            told: is given the values of `TOLD` of each step.
        """
        self._objective, self._micro_batch = config.objective, config.train.micro_batch_size
        self._asking, self._prompts, self._order_of_seed = asking, prompts_a_step, order_of_seed
        self._log, self._told = log, told
        self._rows = len(asking.data.train)
        self._collate = PaddingCollator(asking.data.tokenizer.pad_token_id)

    def tokens(self, batches: Iterable[Batch]) -> int:
        """Tokens of the rows in these batches, without padding."""
        masks = (batch.attention_mask for batch in batches)
        return sum(int(mask.sum()) for mask in masks if mask is not None)

    def examples_after(self, steps: int) -> int:
        """Prompts that were answered in so many steps, each as often as it was asked."""
        return rows_after(steps, self._rows, self._prompts)

    def epochs_after(self, steps: int) -> float:
        """Passes over the rows in so many steps."""
        return self.examples_after(steps) / self._rows

    def steps(self, first: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each step from the one after `first` on, sampled when they are asked for."""
        self._log.keep(first)
        step = first
        while True:
            step += 1
            yield self._sampled(step)

    def asked(self, step: int) -> list[int]:
        """The rows that a step asks."""
        epoch, place = divmod(step - 1, steps_in_epoch(self._rows, self._prompts))
        order = list(range(self._rows))
        random.Random(f"{self._order_of_seed}-{epoch}").shuffle(order)
        return order[place * self._prompts : (place + 1) * self._prompts]

    def _sampled(self, step: int) -> list[Batch]:
        asking, group = self._asking, self._objective.group
        encoded, examples = asking.data.train, asking.data.splits.train
        rows = [row for row in self.asked(step) for _ in range(group)]
        prompts = [
            asking.prompt(encoded, examples, row, f"{step}/{row}/{place % group}") for place, row in enumerate(rows)
        ]
        answers = asking.answers(prompts, self._objective.temperature)
        completions = [answers[prompt.id] for prompt in prompts]
        asked = [examples[encoded.kept[row]] for row in rows]
        worths = asking.worths(asked, completions)
        advantages = self._advantages(worths)
        samples = [
            Sampled(
                step,
                example.id,
                place % group,
                answer.prompt.text,
                answer.text,
                len(answer.ids),
                str(answer.stop_reason),
                example.gold or "",
                worth.verdict,
                worth.answer,
                worth.reward,
                advantage,
            )
            for place, (example, answer, worth, advantage) in enumerate(
                zip(asked, completions, worths, advantages, strict=True)
            )
        ]
        self._log.add(samples)
        self._told(self._values(samples))
        return self._batches(rows, completions, advantages)

    def _advantages(self, worths: Sequence[Worth]) -> list[float]:
        rewards = [worth.reward for worth in worths]
        groups = (rewards[at : at + self._objective.group] for at in range(0, len(rewards), self._objective.group))
        return [value for each in groups for value in advantages_of(each, self._objective.divide_by_std)]

    def _values(self, samples: Sequence[Sampled]) -> list[float]:
        """By the names of `TOLD`."""
        group = self._objective.group
        groups = [[sample.reward for sample in samples[at : at + group]] for at in range(0, len(samples), group)]
        return [
            statistics.fmean(sample.reward for sample in samples),
            statistics.fmean(map(statistics.stdev, groups)),
            statistics.fmean(min(rewards) == max(rewards) for rewards in groups),
            statistics.fmean(sample.tokens for sample in samples),
            statistics.fmean(sample.stop_reason == LENGTH for sample in samples),
        ]

    def _batches(
        self, rows: Sequence[int], completions: Sequence[Completion], advantages: Sequence[float]
    ) -> list[Batch]:
        """Prompt and completion, the longest first: rows of about one length stand together, so that little is padded.

        A row's number is that of its prompt's row, times the group, and its place in it.
        """
        group = self._objective.group
        order = sorted(
            range(len(rows)), key=lambda place: -len(completions[place].prompt.ids) - len(completions[place].ids)
        )
        batches = []
        for start in range(0, len(order), self._micro_batch):
            places = order[start : start + self._micro_batch]
            tensors = self._collate([_as_row(completions[place]) for place in places])
            gained = torch.tensor([[advantages[place]] for place in places])
            row_ids = tuple(rows[place] * group + place % group for place in places)
            sampled = as_sampled([completions[place] for place in places], tensors["input_ids"].shape[1])
            batches.append(Batch(**tensors, row_ids=row_ids, advantages=gained, sampled=sampled))
        return batches


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within a `with` block: nothing is dropped while tokens are chosen."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def as_sampled(completions: Sequence[Completion], width: int) -> torch.Tensor | None:
    """What the engine told of each token, as `Batch.sampled`; None where it tells nothing."""
    if not any(completion.log_probabilities for completion in completions):
        return None
    told = torch.zeros(len(completions), width)
    for row, completion in zip(told, completions, strict=True):
        start = len(completion.prompt.ids)
        row[start : start + len(completion.ids)] = torch.tensor(completion.log_probabilities)
    return told


def _as_row(completion: Completion) -> dict[str, Any]:
    prompt = list(completion.prompt.ids)
    return {
        "input_ids": [*prompt, *completion.ids],
        "labels": [*[IGNORED_LABEL] * len(prompt), *completion.ids],
    }
