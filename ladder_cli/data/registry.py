"""Loads the training and validation examples of a data set, by the format of its rows."""

from collections.abc import Callable

from ladder_cli.config.choices import RowFormat
from ladder_cli.config.schema import DataConfig
from ladder_cli.data import arithmetic, chats, classification, columns, preferences
from ladder_cli.data.examples import Splits
from ladder_cli.data.formats import format_of
from ladder_cli.errors import UserError

# (set, mirror, seed) -> examples. The format of the rows decides, never the name of the set.
LOADERS: dict[RowFormat, Callable[[DataConfig, str | None, int], Splits]] = {
    RowFormat.GENERATED: arithmetic.load,
    RowFormat.PAIRS: columns.load,
    RowFormat.CHAT: chats.load,
    RowFormat.LABEL: classification.load,
    RowFormat.PREFERENCE: preferences.load,
}


def load_examples(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Load the training and validation examples of a configured data set.

    Raises:
        UserError: if the set cannot be read, or leaves nothing to train on or to validate with.
    """
    splits = LOADERS[format_of(data)](data, data_dir, seed)
    if not splits.train or not splits.validation:
        count = len(splits.train) + len(splits.validation)
        if count > 1:
            raise UserError(
                f"data={data.name}: all {count:,} rows are the same, prompt and completion: there is nothing to "
                "validate with. Add rows that differ."
            )
        raise UserError(
            f"data={data.name} has too few rows ({count}): one at least to train on, and one to validate with."
        )
    return splits
