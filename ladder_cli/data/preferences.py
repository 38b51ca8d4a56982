"""Reads sets of preferences: a prompt and two answers, in the columns that TRL's trainers read.

The prompt and each answer are a text, or a chat as a list of messages; a chat may hold the prompt before the answer.
"""

from typing import Any

from ladder_cli.config.schema import DataConfig
from ladder_cli.data.chats import turn
from ladder_cli.data.columns import source_rows
from ladder_cli.data.examples import Example, Splits, hold_out
from ladder_cli.data.sources import Row, column_of
from ladder_cli.data.templates import ColumnTemplate
from ladder_cli.errors import UserError

PROMPT = "prompt"
Turns = tuple[tuple[str, str], ...]


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Read preferences by `data.prompt`, `data.chosen` and `data.rejected`.

    A prompt is a text, rendered as a question is (with `data.instruction` under it), or a chat. An answer is a text, or
    a chat that ends with it; what such a chat has before its end is the prompt, and may be written there alone. Rows
    whose answers are the same prefer nothing: they are left out, with a note. The split does not depend on the seed.

    Raises:
        UserError: if the file, the set or a column is missing, or a row is broken.
    """
    rows, where = source_rows(data, data_dir)
    read = [preference(row, data, str(number), f"{where}, row {number}") for number, row in enumerate(rows, start=1)]
    examples = [example for example in read if example.completion != example.rejected]
    if not examples:
        raise UserError(
            f"{where}: in every row '{data.chosen}' and '{data.rejected}' are the same: nothing is preferred."
        )
    splits = hold_out(examples, data.validation_samples, data.train_samples)
    same = len(read) - len(examples)
    if not same:
        return splits
    note = f"{same:,} rows prefer nothing ('{data.chosen}' and '{data.rejected}' are the same) and are left out"
    return Splits(splits.train, splits.validation, (*splits.notes, note), splits.drawn)


def preference(row: Row, data: DataConfig, name: str, where: str) -> Example:
    """Turn a row into an example.

    Raises:
        UserError: if a column is missing or cannot be read, or the two answers are to different prompts.
    """
    before, chosen = _answer(column_of(row, data.chosen, where), f"{where}, column '{data.chosen}'")
    others, rejected = _answer(column_of(row, data.rejected, where), f"{where}, column '{data.rejected}'")
    if before != others:
        raise UserError(
            f"{where}: '{data.chosen}' and '{data.rejected}' answer different prompts: what they have before their "
            "last messages must be the same."
        )
    if data.prompt is None and PROMPT not in row:
        if not before:
            raise UserError(
                f"{where} has no prompt: give it in a column '{PROMPT}' (or data.prompt=COLUMN), apart from the "
                "answers. One that both texts begin with is not looked for; of chats it may stand before the answers."
            )
        return _example(name, before, chosen, rejected, where)
    asked = _prompt(row, data, where)
    turns: Turns = (("user", asked),) if isinstance(asked, str) else asked
    if before and before != turns:
        raise UserError(
            f"{where}: the messages before the answers are not those of its prompt: leave one of the two out."
        )
    if isinstance(asked, str):
        return Example(name, asked, chosen, rejected=rejected)
    return _example(name, asked, chosen, rejected, where)


def _example(name: str, messages: Turns, chosen: str, rejected: str, where: str) -> Example:
    asked = [text for role, text in messages if role == "user"]
    if not asked:
        raise UserError(f"{where}: there is no user's message before the answers.")
    if messages[-1][0] == "assistant":
        raise UserError(f"{where}: the prompt ends with a message of the assistant's, which the answers cannot follow.")
    return Example(name, asked[-1], chosen, messages=messages, rejected=rejected)


def _prompt(row: Row, data: DataConfig, where: str) -> str | Turns:
    """A text, or the messages of a chat."""
    column = data.prompt if data.prompt is not None else PROMPT
    if isinstance(row.get(column), list):
        return _turns(row[column], f"{where}, column '{column}'")
    return ColumnTemplate("data.prompt", column).text(row, where)


def _answer(value: Any, where: str) -> tuple[Turns, str]:
    """The messages before an answer, where it brings any, and its text."""
    if isinstance(value, str):
        if not value.strip():
            raise UserError(f"{where} holds no text.")
        return (), value
    turns = _turns(value, where)
    role, text = turns[-1]
    if role != "assistant" or not text.strip():
        raise UserError(f"{where}: the last message must be the assistant's, and not empty: it is the answer.")
    return turns[:-1], text


def _turns(value: Any, where: str) -> Turns:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} holds neither a text nor a list of messages.")
    return tuple(turn(message, f"{where}, message {number}") for number, message in enumerate(value, start=1))
