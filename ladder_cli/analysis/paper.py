"""The paper's tables as data (`assets/paper.yaml`): how to repeat each, and what it states and reports."""

from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

SCALING, SCORES, SETTINGS = "scaling", "scores", "settings"
# Sizes of the pipeline: the paper's, the embedded model's, and a real small model's.
PAPER, SMALL, REAL = "paper", "small", "real"
ORIGINAL = ", original"  # end of a column: what the paper quotes from the method's own authors
HUBER = ", Huber"


@dataclass(frozen=True)
class Reported:
    """A number of the paper, with its noise as far as it is printed.

    Attributes:
        deviation: standard deviation, or half of a symmetric interval.
        interval: where the paper prints both ends.
    """

    value: float
    deviation: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def band(self) -> tuple[float, float] | None:
        """From where to where a number is inside the noise; None where the paper prints none."""
        if self.interval is not None:
            return self.interval
        return None if self.deviation is None else (self.value - self.deviation, self.value + self.deviation)

    def __str__(self) -> str:
        if self.interval is not None:
            return f"{self.value:g} ({self.interval[0]:g} to {self.interval[1]:g})"
        return f"{self.value:g}" if self.deviation is None else f"{self.value:g} ± {self.deviation:g}"


Rows = dict[str, dict[str, Reported]]  # by "<backbone> <method>" and column


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        place: section of the paper.
        kind: what it is made of: fits over budgets, scores of benchmarks, or settings and memory.
        commands: that repeat it, by size; a size is missing where the package brings no data for it.
        here: what stands for what at other sizes than the paper's.
        benchmarks: its columns, for scores.
        answers_of: at laptop size, the table from whose completions its data is made.
        runs_of: another table whose runs it is made from.
        settings: options that the paper states, by row; those under `all` hold for every row.
        sweep: values that every row is run with.
        decoding: options of the evaluation that the paper states.
        rows: rows of the data that the paper states.
        reported: the paper's numbers.
        protocols: rows that were measured in another way than the table's own runs, and in which.
        noise: what the reported noise is.
        gpu: the card that the paper names (a preset of conf/hardware).
    """

    number: int
    title: str
    place: str
    kind: str
    commands: dict[str, tuple[str, ...]]
    here: dict[str, str] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    answers_of: int | None = None
    runs_of: int | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    reported: Rows = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    noise: str = ""
    hours_100k: dict[str, float] = field(default_factory=dict)
    gpu: str | None = None

    @property
    def runs(self) -> int:
        """The table whose folder holds the runs."""
        return self.runs_of or self.number


@dataclass(frozen=True)
class MemoryFigures:
    """Figures 3a and 3b.

    Attributes:
        paper: options that put a prediction in the paper's terms.
        methods: options of each, by what the figures call it.
        model_3b, options_3b, shapes_3b: figure 3b; shapes are rows and tokens of a micro-batch.
        models_3a, quantizations_3a, shape_3a: figure 3a.
        card_gb: the card that the abstract names.
    """

    paper: list[str]
    methods: dict[str, list[str]]
    model_3b: str
    options_3b: list[str]
    shapes_3b: list[tuple[int, int]]
    models_3a: list[str]
    quantizations_3a: list[str]
    shape_3a: tuple[int, int]
    card_gb: float


def paper_tables() -> dict[int, PaperTable]:
    """All tables by number."""
    return {number: _table(number, values) for number, values in _content().items() if isinstance(number, int)}


def memory_figures() -> MemoryFigures:
    """What figures 3a and 3b show."""
    values = _content()["memory"]
    large, small = values["figure_3b"], values["figure_3a"]
    return MemoryFigures(
        paper=values["paper"],
        methods=values["methods"],
        model_3b=large["model"],
        options_3b=large["options"],
        shapes_3b=[(rows, tokens) for rows, tokens in large["shapes"]],
        models_3a=small["models"],
        quantizations_3a=small["quantizations"],
        shape_3a=(small["shape"][0], small["shape"][1]),
        card_gb=small["card_gb"],
    )


def _content() -> Any:
    return OmegaConf.to_container(OmegaConf.load(str(files("ladder_cli.assets") / "paper.yaml")))


def _table(number: int, values: dict[str, Any]) -> PaperTable:
    commands = {
        size: tuple(values.pop(key))
        for size, key in ((PAPER, "commands"), (SMALL, "small"), (REAL, "real"))
        if key in values
    }
    here = {size: values.pop(key) for size, key in ((SMALL, "here"), (REAL, "here_real")) if key in values}
    reported = {label: _cells(row) for label, row in values.pop("reported", {}).items()}
    for label, row in values.pop("reported_huber", {}).items():
        reported[label] |= {name + HUBER: cell for name, cell in _cells(row).items()}
    benchmarks = tuple(values.pop("benchmarks", ()))
    return PaperTable(number=number, commands=commands, here=here, reported=reported, benchmarks=benchmarks, **values)


def _cells(row: dict[str, Any]) -> dict[str, Reported]:
    return {name: _reported(cell) for name, cell in row.items()}


def _reported(cell: Any) -> Reported:
    """A number, [value, deviation] or [value, low, high]."""
    if not isinstance(cell, list):
        return Reported(float(cell))
    if len(cell) == 2:
        return Reported(*map(float, cell))
    value, low, high = map(float, cell)
    return Reported(value, interval=(low, high))
