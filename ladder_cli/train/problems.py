"""Rows as the objective learns from them: their completions, or of one that samples only their prompts and golds."""

import math
from collections.abc import Iterable
from dataclasses import replace

from ladder_cli.config.objective import GRADER
from ladder_cli.config.schema import TrainConfig
from ladder_cli.data.encoding import IGNORED_LABEL, Row
from ladder_cli.data.examples import Example, Splits
from ladder_cli.data.gold import AS_EXPRESSION
from ladder_cli.data.prepare import PreparedData, Source, load_source, prepare_data
from ladder_cli.errors import UserError
from ladder_cli.evaluate.answers.answer import BOX, PHRASE, WHOLE, read_answer
from ladder_cli.evaluate.answers.verdict import unread
from ladder_cli.generate.decoding import read_limits

# A completion's last number or formula may be anything: such a one has said no answer.
_SAID = (BOX, PHRASE, WHOLE)


def source_of(config: TrainConfig) -> Source:
    """The examples of a run.

    Of an objective that samples, the completion of an example is its right answer alone: what led to it in the row is
    not learned. Rows in which the grader finds no answer are left out, with a note.

    Raises:
        UserError: for whatever is wrong with model or data, or if no row has an answer.
    """
    source = load_source(config)
    if not config.objective.samples:
        return source
    splits, needed = source.splits, config.objective.reward == GRADER
    train, validation = (list(_with_golds(rows, needed)) for rows in (splits.train, splits.validation))
    lost = len(splits.train) - len(train), len(splits.validation) - len(validation)
    if not train or not validation:
        raise UserError(
            f"data={config.data.name}: no answer can be read off {'any row' if not train else 'the held-out rows'}, "
            "which objective.reward=grader holds completions against: name a column that has it (data.gold=COLUMN), or "
            "end the rows' completions with a box, '#### answer' or 'The answer is ...'."
        )
    notes = splits.notes
    if any(lost):
        notes += (
            f"{lost[0]:,} training and {lost[1]:,} validation rows are left out: the grader reads no answer off them",
        )
    return replace(source, splits=Splits(train, validation, notes, splits.drawn))


def prepared(config: TrainConfig, source: Source | None = None) -> PreparedData:
    """The rows of a run as tokens.

    Args:
        source: of the same config, by `source_of`, if it is there already.

    Raises:
        UserError: for whatever is wrong with model, data or lengths, or if prompts leave no room for a completion.
    """
    data = prepare_data(config, source if source is not None else source_of(config))
    if config.objective.samples:
        _refuse_no_room(data, config, read_limits(config.model).positions)
    return data


def gold_of(example: Example) -> str | None:
    """The right answer: of its column, or what the row's own completion says it is; None where nobody can read it."""
    gold = example.gold
    if gold is None:
        answer = read_answer(example.completion)
        gold = answer.text if answer.found in _SAID else None
    return None if gold is None or unread(gold, AS_EXPRESSION) is not None else gold


def _with_golds(examples: Iterable[Example], needed: bool) -> Iterable[Example]:
    for example in examples:
        gold = gold_of(example)
        if gold is None and not needed:
            gold = example.completion
        if gold is not None:
            yield replace(example, completion=gold, gold=gold)


def prompt_length(row: Row) -> int:
    """Tokens of a row before its completion, which is what counts at its end."""
    labels = row["labels"]
    return max(place for place, label in enumerate(labels) if label == IGNORED_LABEL) + 1


def _refuse_no_room(data: PreparedData, config: TrainConfig, positions: int | None) -> None:
    """Refuse prompts that leave no room for a completion, before anything is sampled.

    Args:
        positions: that the model has; None: no limit is known.

    Raises:
        UserError: with the longest prompt.
    """
    longest = max(prompt_length(rows[row]) for rows in (data.train, data.validation) for row in range(len(rows)))
    room = math.inf if positions is None else positions - longest
    if room < config.objective.max_new_tokens:
        raise UserError(
            f"the longest prompt has {longest} tokens, and model={config.model.name} has positions for {positions}: "
            f"there is no room for objective.max_new_tokens={config.objective.max_new_tokens}. Lower it, or lower "
            "data.max_length, which leaves longer prompts out."
        )
