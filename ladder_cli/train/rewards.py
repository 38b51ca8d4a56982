"""What completions are worth: by our own grader, whose workers can be killed, or by a Python function of the user's.

A function comes from the config and never from data. It runs in this process, without a deadline.
"""

import contextlib
import hashlib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from ladder_cli.config.objective import GRADER, ObjectiveConfig
from ladder_cli.errors import UserError
from ladder_cli.evaluate.answers.verdict import CORRECT
from ladder_cli.evaluate.grading import Grader, Task
from ladder_cli.run.files import sha256

# As TRL's trainer calls reward functions, with the columns of the rows by name.
_ARGUMENTS = ("prompts", "completions", "golds")


@dataclass(frozen=True)
class Answered:
    """A completion to be judged.

    Attributes:
        prompt: the question, without instruction and template.
        completion: its text, without the end token.
        gold: the right answer, or what the row has in its place.
        cut_off: it reached the limit of new tokens.
    """

    prompt: str
    completion: str
    gold: str
    cut_off: bool


@dataclass(frozen=True)
class Worth:
    """What a completion is worth.

    Attributes:
        verdict, answer: of the grader; None of a function.
    """

    reward: float
    verdict: str | None = None
    answer: str | None = None


class Reward(Protocol):
    """Judges completions; a context manager, which ends what it has started."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def __call__(self, answered: Sequence[Answered]) -> list[Worth]:
        """The worth of each, in their order.

        Raises:
            UserError: if a function of the user's fails, or gives something else than a finite number for each.
            RunFailed: if the grader's workers do not start.
        """
        ...


class RightAnswer:
    """1 for an answer that is right by the rules of evaluations, else 0."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self._grader = Grader(seconds=config.grade_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._grader.__exit__(*exc)

    def __call__(self, answered: Sequence[Answered]) -> list[Worth]:
        """Graded in worker processes, each with a deadline; what misses it is worth nothing."""
        tasks = (Task(number, one.gold, one.completion, one.cut_off) for number, one in enumerate(answered))
        found = {grade.key: grade for grade in self._grader.grade(tasks)}
        grades = (found[number] for number in range(len(answered)))
        return [Worth(float(grade.verdict == CORRECT), grade.verdict, grade.answer) for grade in grades]


class ByFunction:
    """What a function of the user's says.

    It is called with the keywords `prompts`, `completions` and `golds`, lists of texts of one length, and gives as many
    finite numbers.
    """

    def __init__(self, config: ObjectiveConfig) -> None:
        """Import it.

        Raises:
            UserError: if it is not there, cannot be called so, or its module cannot be imported.
        """
        self._name = f"objective.reward={config.reward}"
        self._function = _imported(config.reward, self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing was started."""

    def __call__(self, answered: Sequence[Answered]) -> list[Worth]:
        """Called once for all of them."""
        columns = ([getattr(one, name) for one in answered] for name in ("prompt", "completion", "gold"))
        try:
            given = self._function(**dict(zip(_ARGUMENTS, columns, strict=True)))
        except Exception as error:
            raise UserError(f"{self._name} raised {_told(error)}. What was trained is kept.") from error
        return [Worth(reward) for reward in self._checked(given, len(answered))]

    def _checked(self, given: Any, count: int) -> list[float]:
        try:
            values = list(given)
        except TypeError:
            values = []
        if len(values) != count:
            what = f"{len(values)} values" if values else repr(type(given).__name__)
            raise UserError(f"{self._name} gave {what} for {count} completions: give a list with a number for each.")
        rewards = []
        for number, value in enumerate(values, start=1):
            try:
                reward = math.nan if isinstance(value, str) else float(value)
            except (TypeError, ValueError):
                reward = math.nan
            if not math.isfinite(reward):
                raise UserError(f"{self._name} gave {value!r} for completion {number}: give a finite number.")
            rewards.append(reward)
        return rewards


def reward_of(config: ObjectiveConfig) -> Reward:
    """The reward of a config.

    Raises:
        UserError: if it names a function that is not there, or that cannot be called.
    """
    return RightAnswer(config) if config.reward == GRADER else ByFunction(config)


def code_of(config: ObjectiveConfig) -> str | None:
    """Digest of the files that a function of the user's is in: its module's, and the one that defines it.

    None of the grader, which is this package's, and of what no file holds. What the function imports is not in it.

    Raises:
        UserError: as `reward_of`.
    """
    if config.reward == GRADER:
        return None
    function = _imported(config.reward, f"objective.reward={config.reward}")
    files = {getattr(sys.modules[config.reward.partition(":")[0]], "__file__", None)}
    with contextlib.suppress(TypeError):  # an object that can be called has a class, which is in its module
        files.add(inspect.getsourcefile(inspect.unwrap(function)))
    digests = sorted(sha256(Path(file)) for file in files if file is not None)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if digests else None


def _imported(path: str, name: str) -> Callable[..., Any]:
    module, _, attributes = path.partition(":")
    with _working_folder():
        try:
            found: Any = importlib.import_module(module)
        except Exception as error:
            raise UserError(f"{name}: {module} cannot be imported ({_told(error)}).") from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise UserError(f"{name}: {module} has no {attributes}.")
        found = getattr(found, attribute)
    if not callable(found):
        raise UserError(f"{name} is no function.")
    with contextlib.suppress(ValueError):  # what is written in C may not say how it is called
        try:
            inspect.signature(found).bind(**dict.fromkeys(_ARGUMENTS, ()))
        except TypeError as error:
            called = ", ".join(f"{argument}=[...]" for argument in _ARGUMENTS)
            raise UserError(f"{name} is called as function({called}), which it does not take ({error}).") from error
    return found


@contextlib.contextmanager
def _working_folder() -> Iterator[None]:
    """Modules of the folder that the command was started in can be imported, after all others."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
