"""s1K-1.1: a thousand hard problems with solutions and reasoning traces (Muennighoff et al., 2025)."""

from ladder_cli.config import DataConfig
from ladder_cli.data.examples import Example, Splits, hold_out
from ladder_cli.data.sources import Row, load_rows, text_column
from ladder_cli.validation import one_of

TARGETS = ("solution", "attempt", "trace")


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """The rows with the completion that `data.target` names; the split does not depend on the seed.

    Raises:
        UserError: for an unknown target, a missing set or a missing column.
    """
    one_of("data.target", data.target, TARGETS)
    rows = load_rows(data.name, "train", data.hub_id, data.hub_config, data_dir)
    examples = [
        Example(
            id=str(number),
            question=text_column(row, "question", f"s1k row {number}"),
            completion=completion(row, data.target, f"s1k row {number}"),
        )
        for number, row in enumerate(rows, start=1)
    ]
    return hold_out(examples, data.validation_samples, data.train_samples)


def completion(row: Row, target: str, where: str) -> str:
    """The text to learn: the reference solution, DeepSeek's answer, or its reasoning followed by its answer."""
    if target == "solution":
        return text_column(row, "solution", where)
    attempt = text_column(row, "deepseek_attempt", where)
    if target == "attempt":
        return attempt
    return text_column(row, "deepseek_thinking_trajectory", where) + "\n\n" + attempt
