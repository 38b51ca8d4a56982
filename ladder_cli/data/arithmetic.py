"""Chained arithmetic, generated from a seed: the embedded data set that needs no network.

A problem is a number and three or four operations, to be carried out from left to right. Every value on the way stays
within 0..49, so the backbone `tiny` knows each single step from its pretraining. It has never seen a chain of steps
written out. The gap between backbone and trained adapter is therefore *reasoning*, not facts.

Train, validation and test are disjoint for every seed, because the split of a problem is a hash of the problem
itself and not of the order in which it was drawn.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from ladder_cli.config.schema import DataConfig
from ladder_cli.data.examples import Example, Splits
from ladder_cli.errors import UserError

SPLITS = ("train", "validation", "test")
LARGEST_VALUE = 49
# There are about 296 million problems. They are drawn at random without repetition, and all that were drawn stay in
# memory: past a million that takes minutes, and no run of the model they are made for learns from so many.
LARGEST_SET = 1_000_000


@dataclass(frozen=True)
class ArithmeticProblem:
    """A start value and a chain of (operator, operand) steps."""

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def expression(self) -> str:
        """Return the chain, to be read from left to right: `47+38-29*2` (no operator precedence)."""
        return str(self.start) + "".join(f"{operator}{operand}" for operator, operand in self.steps)

    @property
    def equations(self) -> list[str]:
        """Return one equation for each step; each starts from the last result."""
        value, lines = self.start, []
        for operator, operand in self.steps:
            result = apply(operator, value, operand)
            lines.append(f"{value}{operator}{operand}={result}")
            value = result
        return lines

    @property
    def answer(self) -> str:
        """Return the value after the last step."""
        value = self.start
        for operator, operand in self.steps:
            value = apply(operator, value, operand)
        return str(value)

    @property
    def question(self) -> str:
        """Return the question that the user asks."""
        return f"Compute {self.expression} from left to right."

    @property
    def solution(self) -> str:
        """Return a completion step by step that ends in the boxed answer."""
        return "\n".join(self.equations) + f"\nThe answer is \\boxed{{{self.answer}}}."

    @property
    def split(self) -> str:
        """Return the split by a hash: eight tenths train, one tenth validation, one tenth test."""
        digit = hashlib.sha256(self.expression.encode()).digest()[0] % 10
        return {0: "test", 1: "validation"}.get(digit, "train")


def apply(operator: str, value: int, operand: int) -> int:
    """Compute one step; the operator is one of `+`, `-`, `*`."""
    if operator == "+":
        return value + operand
    if operator == "-":
        return value - operand
    if operator == "*":
        return value * operand
    raise ValueError(f"unknown operator {operator!r}: choose from +, -, *")


def draw(rng: random.Random, step_counts: tuple[int, ...] = (3, 4)) -> ArithmeticProblem:
    """Draw one problem whose values all stay within 0..49."""
    start = value = rng.randint(2, LARGEST_VALUE)
    steps: list[tuple[str, int]] = []
    for _ in range(rng.choice(step_counts)):
        possible = {"+": value < LARGEST_VALUE, "-": value > 2, "*": 2 <= value <= LARGEST_VALUE // 2}
        operators = [operator for operator, is_possible in possible.items() if is_possible]
        operator = rng.choice(operators)
        if operator == "+":
            operand = rng.randint(1, LARGEST_VALUE - value)
        elif operator == "-":
            operand = rng.randint(1, value - 1)
        else:
            operand = rng.randint(2, min(9, LARGEST_VALUE // value))
        steps.append((operator, operand))
        value = apply(operator, value, operand)
    return ArithmeticProblem(start, tuple(steps))


def problems(split: str, seed: int, step_counts: tuple[int, ...] = (3, 4)) -> Iterator[ArithmeticProblem]:
    """Yield distinct problems of one split without end; they depend only on `split` and `seed`.

    Raises:
        ValueError: if `split` is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose from {', '.join(SPLITS)}")
    rng = random.Random(f"{split}-{seed}")
    seen: set[str] = set()
    while True:
        problem = draw(rng, step_counts)
        if problem.split == split and problem.expression not in seen:
            seen.add(problem.expression)
            yield problem


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Generate the splits. The training set depends on the seed, the validation set does not.

    Raises:
        UserError: if `data.train_samples` is not given, or a number is larger than `LARGEST_SET`.
    """

    def examples(split: str, count: int, seed: int) -> list[Example]:
        drawn = islice(problems(split, seed), count)
        return [Example(problem.expression, problem.question, problem.solution) for problem in drawn]

    if data.train_samples is None:
        raise UserError(f"data={data.name} is generated: give data.train_samples=N, at most {LARGEST_SET:,}.")
    for name in ("train_samples", "validation_samples"):
        asked = getattr(data, name)
        if asked > LARGEST_SET:
            raise UserError(
                f"data.{name}={asked} is more than data={data.name} makes: it draws distinct problems, at most "
                f"{LARGEST_SET:,}. Ask for fewer."
            )
    return Splits(
        examples("train", data.train_samples, seed), examples("validation", data.validation_samples, 0), drawn=True
    )
