"""Sets whose rows are a question and an answer in named columns, or a chat: the user's own files, EvoLM."""

from pathlib import Path

from ladder_cli.config import DataConfig
from ladder_cli.data.examples import Example, Splits, hold_out
from ladder_cli.data.sources import Row, load_rows, read_file, text_column
from ladder_cli.errors import UserError

ROLES = ("system", "user", "assistant", "tool")


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Rows of `data.path`, or of the set by that name, by the columns that `data.prompt` and `data.completion` name.

    Where `data.messages` names a column of chats, the last message, the assistant's, is the completion and everything
    before it the prompt, without an instruction. The split does not depend on the seed.

    Raises:
        UserError: if the file, the set or a column is missing, or a row is broken.
    """
    if data.path is not None:
        source = Path(data.path).expanduser()
        rows, where = read_file(source), str(source)
    elif data.name == "jsonl":
        raise UserError("data=jsonl needs a file: give data.path=FILE.jsonl (or .parquet).")
    else:
        rows, where = load_rows(data.name, data.split, data.hub_id, data.hub_config, data_dir), data.name
    make = _chat if data.messages is not None else _pair
    examples = [make(row, data, str(number), f"{where}, row {number}") for number, row in enumerate(rows, start=1)]
    return hold_out(examples, data.validation_samples, data.train_samples)


def _pair(row: Row, data: DataConfig, name: str, where: str) -> Example:
    if data.prompt is None or data.completion is None:
        raise UserError(
            "which columns hold question and answer? Give data.prompt=COLUMN and data.completion=COLUMN, or "
            f"data.messages=COLUMN for chats. Columns of the first row: {', '.join(map(str, row))}."
        )
    return Example(name, text_column(row, data.prompt, where), text_column(row, data.completion, where))


def _chat(row: Row, data: DataConfig, name: str, where: str) -> Example:
    assert data.messages is not None
    messages = row.get(data.messages)
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: column '{data.messages}' holds no list of messages.")
    turns = []
    for message in messages:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ROLES or not isinstance(content, str):
            raise UserError(
                f"{where}: a message needs a role ({', '.join(ROLES)}) and a text as content, not {str(message)[:80]}."
            )
        turns.append((role, content))
    if turns[-1][0] != "assistant" or not turns[-1][1].strip():
        raise UserError(f"{where}: the last message must be the assistant's, and not empty: it is what is learned.")
    asked = [content for role, content in turns[:-1] if role == "user"]
    if not asked:
        raise UserError(f"{where}: there is no user's message before the assistant's.")
    return Example(name, asked[-1], turns[-1][1], messages=tuple(turns[:-1]))
