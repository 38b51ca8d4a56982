"""From the name of a data set to its training and validation examples."""

from collections.abc import Callable
from itertools import islice

from ladder_cli.config import DataConfig
from ladder_cli.data import arithmetic, s1k
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
    return Splits(draw("train", data.train_samples, seed), draw("validation", data.validation_samples, 0))


LOADERS: dict[str, Loader] = {"arithmetic": load_arithmetic, "s1k": s1k.load}


def load_examples(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Training and validation examples of a configured data set.

    Raises:
        UserError: if the set is unknown, cannot be read, or leaves nothing to train on.
    """
    loader = LOADERS.get(data.name)
    if loader is None:
        raise UserError(f"data.name={data.name} is unknown: choose from {', '.join(LOADERS)}.")
    splits = loader(data, data_dir, seed)
    if not splits.train:
        raise UserError(
            f"data={data.name} has {len(splits.validation)} rows and all are held out: lower data.validation_samples."
        )
    return splits
