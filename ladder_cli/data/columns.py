"""Reads sets with a question and an answer in named columns: the user's own files, s1K, EvoLM."""

from pathlib import Path

from ladder_cli.config.schema import DataConfig
from ladder_cli.data.examples import Example, Splits, hold_out
from ladder_cli.data.gold import gold_column
from ladder_cli.data.sources import Row, load_rows, read_file
from ladder_cli.data.templates import ColumnTemplate
from ladder_cli.errors import NotReachable, UserError


def source_rows(data: DataConfig, data_dir: str | None) -> tuple[list[Row], str]:
    """Read the rows of a set from `data.path`, a mirror or the hub; return them and their name for errors.

    Raises:
        UserError: if the file or the set is missing or broken; `NotReachable` if it is elsewhere or yet to be made.
    """
    if data.path is not None:
        source = Path(data.path).expanduser()
        return read_file(source), str(source)
    if data.hub_id is None and data_dir is None:
        missing = (
            f"data={data.name} needs a file: give data.path=FILE (JSONL, a JSON array, .csv or .parquet, each also "
            f".gz), or data_dir=DIR with DIR/{data.name}/{data.split}.jsonl."
        )
        # A plan is possible for a set that is described but not made yet; nothing is known of a file without a name.
        raise UserError(missing) if data.format is None else NotReachable(missing)
    return load_rows(data.name, data.split, data.hub_id, data.hub_config, data_dir), data.name


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Read questions and answers by `data.prompt` and `data.completion` (or the chosen one of `data.targets`).

    Each is the name of a column or a template over columns. Where a column `data.gold` has the right answer, there need
    be no other. The split does not depend on the seed.

    Raises:
        UserError: if the file, the set or a column is missing, or a row is broken.
    """
    rows, where = source_rows(data, data_dir)
    learned = data.targets[str(data.target)] if data.targets else data.completion
    if data.prompt is not None and data.gold is not None:
        prompt = ColumnTemplate("data.prompt", data.prompt)
        right = [gold_column(row, data.gold, f"{where}, row {number}") for number, row in enumerate(rows, start=1)]
        asked = zip(prompt.texts(rows, where), right, strict=True)
        examples = [Example(str(n), text, gold, gold=gold) for n, (text, gold) in enumerate(asked, start=1)]
        return hold_out(examples, data.validation_samples, data.train_samples)
    if data.prompt is None or learned is None:
        raise UserError(
            "which columns hold question and answer? Give data.prompt=COLUMN and data.completion=COLUMN, or "
            f"data.messages=COLUMN for chats. Columns of the first row: {', '.join(map(str, rows[0]))}."
        )
    prompt, completion = ColumnTemplate("data.prompt", data.prompt), ColumnTemplate("data.completion", learned)
    examples = [
        Example(str(number), asked, answer)
        for number, (asked, answer) in enumerate(
            zip(prompt.texts(rows, where), completion.texts(rows, where), strict=True), start=1
        )
    ]
    return hold_out(examples, data.validation_samples, data.train_samples)
