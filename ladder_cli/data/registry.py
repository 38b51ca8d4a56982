"""From the name of a data set to its training and validation examples."""

from collections.abc import Callable
from itertools import islice

from ladder_cli.config import DataConfig
from ladder_cli.data import arithmetic, classification, columns, s1k
from ladder_cli.data.examples import Example, Splits
from ladder_cli.errors import UserError

Loader = Callable[[DataConfig, str | None, int], Splits]


def load_arithmetic(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Generated problems; the training set changes with the seed, the validation set does not."""

    def draw(split: str, count: int, seed: int) -> list[Example]:
        drawn = islice(arithmetic.problems(split, seed), count)
        return [Example(problem.expression, problem.question, problem.solution) for problem in drawn]

    if data.train_samples is None:
        raise UserError("data=arithmetic is endless: give data.train_samples=N.")
    return Splits(draw("train", data.train_samples, seed), draw("validation", data.validation_samples, 0), drawn=True)


LOADERS: dict[str, Loader] = {
    "arithmetic": load_arithmetic,
    "s1k": s1k.load,
    **dict.fromkeys(("evolm", "jsonl"), columns.load),
    **dict.fromkeys(classification.TASKS, classification.load),
}


def load_examples(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Training and validation examples of a configured data set.

    Raises:
        UserError: if the set is unknown, cannot be read, or leaves nothing to train on.
    """
    # A set that is nothing but columns needs no code: any file in conf/data/ with `prompt` and `completion`.
    loader = LOADERS.get(data.name, columns.load)
    splits = loader(data, data_dir, seed)
    if not splits.train:
        raise UserError(
            f"data={data.name} has {len(splits.validation)} rows and all are held out: lower data.validation_samples."
        )
    return splits
