"""Reads sets of chats: OpenAI's messages (`role`, `content`) or ShareGPT's (`from`, `value`)."""

from typing import Any

from ladder_cli.config.schema import DataConfig
from ladder_cli.data.columns import source_rows
from ladder_cli.data.examples import Example, Splits, hold_out
from ladder_cli.data.sources import column_of
from ladder_cli.errors import UserError

ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {
    **{role: role for role in ROLES},
    **{"human": "user", "gpt": "assistant", "observation": "tool"},
}
# What would change the words that are learned, or which of them are: leaving it out in silence would train on another
# chat than the file holds.
_NOT_READ = (
    *("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "refusal", "audio"),
    *("weight", "train", "prefix"),
)


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Read chats from the column `data.messages`.

    The last message, which must be the assistant's, is the completion. All before it is the prompt; no instruction is
    added. The split does not depend on the seed.

    Raises:
        UserError: if the file, the set or the column is missing, or a chat cannot be read.
    """
    rows, where = source_rows(data, data_dir)
    if data.messages is None:
        raise UserError(
            "which column holds the chats? Give data.messages=COLUMN. Columns of the first row: "
            f"{', '.join(map(str, rows[0]))}."
        )
    examples = [
        chat(column_of(row, data.messages, f"{where}, row {number}"), data, str(number), f"{where}, row {number}")
        for number, row in enumerate(rows, start=1)
    ]
    return hold_out(examples, data.validation_samples, data.train_samples)


def chat(messages: Any, data: DataConfig, name: str, where: str) -> Example:
    """Turn the chat of one row into an example.

    Raises:
        UserError: if a turn cannot be read, or there is nothing to learn.
    """
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: column '{data.messages}' holds no list of messages.")
    turns = [turn(message, f"{where}, turn {number}") for number, message in enumerate(messages, start=1)]
    if turns[-1][0] != "assistant" or not turns[-1][1].strip():
        raise UserError(f"{where}: the last message must be the assistant's, and not empty: it is what is learned.")
    asked = [content for role, content in turns[:-1] if role == "user"]
    if not asked:
        raise UserError(f"{where}: there is no user's message before the assistant's.")
    return Example(name, asked[-1], turns[-1][1], messages=tuple(turns[:-1]))


def turn(message: Any, where: str) -> tuple[str, str]:
    """Return (role, text) of one message.

    Raises:
        UserError: if the role is unknown, the content is no text, or a field is there that would be ignored.
    """
    if not isinstance(message, dict):
        raise UserError(f"{where}: a message needs a role ({', '.join(ROLES)}) and a text, not {str(message)[:80]}.")
    there = {name for name, value in message.items() if value is not None}
    ignored = [name for name in _NOT_READ if message.get(name) not in (None, [], {}, "")]
    if ignored:
        raise UserError(
            f"{where}: has '{ignored[0]}', which is not read: write what counts into its text, or leave it out."
        )
    if there & {"role", "content"} and there & {"from", "value"}:
        raise UserError(f"{where}: has both role/content and from/value: which counts? Leave one pair out.")
    if there & {"from", "value"}:
        role, content = _SHAREGPT.get(str(message.get("from"))), message.get("value")
        said, known = message.get("from"), tuple(_SHAREGPT)
    else:
        role, content = (str(message["role"]) if message.get("role") in ROLES else None), message.get("content")
        said, known = message.get("role"), ROLES
    if role is None:
        raise UserError(f"{where}: a message needs a role ({', '.join(known)}), not {str(said)[:40]!r}.")
    text = content if isinstance(content, str) else _one_part(content, where)
    if text is None:
        raise UserError(f"{where}: a message needs a role and a text as content, not {str(content)[:80]}.")
    return role, text


def _one_part(content: Any, where: str) -> str | None:
    """Return the text of content that is a list of one text part; None if it is no list of parts.

    Raises:
        UserError: for several parts, which templates join each in their own way, or a part that is no text.
    """
    if not isinstance(content, list) or not content or not all(isinstance(part, dict) for part in content):
        return None
    others = [str(part.get("type")) for part in content if part.get("type") != "text"]
    if others:
        raise UserError(f"{where}: has a part of type '{others[0]}': only text is trained on.")
    if len(content) > 1:
        raise UserError(f"{where}: has {len(content)} parts of text: join them into one, as they are to be read.")
    text = content[0].get("text")
    return text if isinstance(text, str) else None
