"""Label tasks: a language model answers a question with one of a few label words.

The completion to learn is the label word. A prediction compares the logits of the label words; nothing is generated.
The paper's binary tasks are of this kind: CoLA (table 6), QQP, and the critic of maths solutions (appendix A.1). The
question is in `conf/data/<name>.yaml`, both for training and for the benchmark of that name.
"""

from dataclasses import dataclass
from importlib.resources import files

from omegaconf import OmegaConf

from ladder_cli.config.catalogue import CONFIG_MODULE, choices
from ladder_cli.config.choices import RowFormat
from ladder_cli.config.compose import merge_strictly
from ladder_cli.config.schema import DataConfig
from ladder_cli.data.columns import source_rows
from ladder_cli.data.examples import Example, Splits, hold_out
from ladder_cli.data.formats import format_of
from ladder_cli.data.sources import Row, column_of
from ladder_cli.data.templates import ColumnTemplate
from ladder_cli.errors import UserError

LABELS = ("No", "Yes")  # of label 0 and label 1, in the tasks of the paper


@dataclass(frozen=True)
class LabelTask:
    """Turns a row into a question that a label word answers.

    Attributes:
        ask: the question, a template over columns.
        column: of the label, a whole number from 0 on.
        words: the word of each label.
    """

    ask: ColumnTemplate
    column: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, data: DataConfig) -> "LabelTask":
        """Return the task that a set describes.

        Raises:
            UserError: if its template, its column or its words are missing.
        """
        if data.prompt is None or data.label is None or len(set(data.labels)) < 2:
            raise UserError(
                f"data={data.name} (format label) needs data.prompt='TEMPLATE', data.label=COLUMN and "
                "data.labels=[No,Yes], a word for each label from 0 on."
            )
        return cls(ColumnTemplate("data.prompt", data.prompt), data.label, tuple(data.labels))

    def example(self, row: Row, name: str, where: str) -> Example:
        """Turn a row into a question and its label word.

        Raises:
            UserError: if a column is missing, or the label has no word.
        """
        label = column_of(row, self.column, where)
        if not isinstance(label, int) or not 0 <= label < len(self.words):
            known = " or ".join(map(str, range(len(self.words))))
            raise UserError(f"{where}: column '{self.column}' must be {known}, not {label!r}.")
        return Example(name, self.ask.text(row, where), self.words[int(label)])


def label_task(name: str) -> LabelTask:
    """Read the task of `conf/data/<name>.yaml`, so that a benchmark asks as training did.

    Raises:
        UserError: if there is no such set, or it is of another format.
    """
    if name not in choices("data"):
        raise UserError(f"benchmark '{name}' asks as conf/data/{name}.yaml does, and there is no such file.")
    text = (files(CONFIG_MODULE) / "data" / f"{name}.yaml").read_text()
    data: DataConfig = merge_strictly(DataConfig, OmegaConf.create(text), "data.")
    if format_of(data) is not RowFormat.LABEL:
        raise UserError(f"conf/data/{name}.yaml is no set of labels (format {format_of(data).value}).")
    return LabelTask.of(data)


def load(data: DataConfig, data_dir: str | None, seed: int) -> Splits:
    """Read the training split of a label task and hold out rows for the validation loss.

    Rows are held out by question, or by the column `data.group` if one question has many rows. The set's own validation
    (or test) split is used for testing only.

    Raises:
        UserError: if the set is missing or a row is broken.
    """
    task = LabelTask.of(data)
    rows, where = source_rows(data, data_dir)
    examples = [task.example(row, str(number), f"{where} row {number}") for number, row in enumerate(rows, start=1)]
    groups = None
    if data.group is not None:
        groups = [str(column_of(row, data.group, f"{where} row {number}")) for number, row in enumerate(rows, start=1)]
    return hold_out(examples, data.validation_samples, data.train_samples, groups)
