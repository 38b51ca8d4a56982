"""Chained arithmetic as a training set: how many problems may be asked for."""

from itertools import islice

from ladder_cli.config.schema import DataConfig
from ladder_cli.data import arithmetic
from ladder_cli.data.examples import Example, Splits
from ladder_cli.errors import UserError

# There are about 296 million problems. They are drawn at random without repetition, and all that were drawn are kept in
# memory: past a million that takes minutes, and no run of the model they are made for learns from so many.
LARGEST = 1_000_000


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Generated problems; the training set changes with the seed, the validation set does not.

    Raises:
        UserError: if the number of training rows is left open, or a number is larger than `LARGEST`.
    """

    def draw(split: str, count: int, seed: int) -> list[Example]:
        drawn = islice(arithmetic.problems(split, seed), count)
        return [Example(problem.expression, problem.question, problem.solution) for problem in drawn]

    if data.train_samples is None:
        raise UserError(f"data={data.name} is generated: give data.train_samples=N, at most {LARGEST:,}.")
    for name in ("train_samples", "validation_samples"):
        asked = getattr(data, name)
        if asked > LARGEST:
            raise UserError(
                f"data.{name}={asked} is more than data={data.name} makes: it draws distinct problems, at most "
                f"{LARGEST:,}. Ask for fewer."
            )
    return Splits(draw("train", data.train_samples, seed), draw("validation", data.validation_samples, 0), drawn=True)
