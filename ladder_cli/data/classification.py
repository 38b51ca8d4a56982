"""Tasks with two answers, put to a language model as a question that one label word answers.

The completion to learn is the label word; a prediction compares the logits of the label words (no generation). Used
for the paper's binary tasks: CoLA (table 6), QQP, and the critic of maths solutions (appendix A.1).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ladder_cli.config import DataConfig
from ladder_cli.data.examples import Example, Splits, hold_out
from ladder_cli.data.sources import Row, load_rows, text_column
from ladder_cli.errors import UserError

LABELS = ("No", "Yes")  # of label 0 and label 1


@dataclass(frozen=True)
class LabelTask:
    """How a row becomes a question that `LABELS` answer."""

    ask: Callable[[Row, str], str]

    def example(self, row: Row, name: str, where: str) -> Example:
        """The row as a question and its label word.

        Raises:
            UserError: if a column is missing, or the label is neither 0 nor 1.
        """
        label = row.get("label")
        if label not in (0, 1) or isinstance(label, float):
            raise UserError(f"{where}: column 'label' must be 0 or 1, not {label!r}.")
        return Example(name, self.ask(row, where), LABELS[int(label)])


def _cola(row: Row, where: str) -> str:
    sentence = text_column(row, "sentence", where)
    return f"Sentence: {sentence}\nIs this sentence grammatically acceptable English? Answer Yes or No."


def _qqp(row: Row, where: str) -> str:
    first, second = text_column(row, "question1", where), text_column(row, "question2", where)
    return f"Question 1: {first}\nQuestion 2: {second}\nDo both questions ask the same? Answer Yes or No."


def _critic(row: Row, where: str) -> str:
    question, solution = text_column(row, "question", where), text_column(row, "completion", where)
    asked = "Is the final answer of this solution correct? Answer Yes or No."
    return f"Problem: {question}\n\nSolution: {solution}\n\n{asked}"


TASKS = {"cola": LabelTask(_cola), "qqp": LabelTask(_qqp), "critic": LabelTask(_critic)}


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """The training split of a label task. Rows for the validation loss are held out of it by question; the set's own
    validation (or test) split is for testing alone.

    Raises:
        UserError: if the set is missing or a row is broken.
    """
    rows = load_rows(data.name, data.split, data.hub_id, data.hub_config, data_dir)
    task = TASKS[data.name]
    examples = [task.example(row, str(number), f"{data.name} row {number}") for number, row in enumerate(rows, start=1)]
    groups = [str(row.get("question", number)) for number, row in enumerate(rows)] if data.name == "critic" else None
    return hold_out(examples, data.validation_samples, data.train_samples, groups)
