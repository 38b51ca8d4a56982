"""Reads the paper's tables as data (`reported.yaml`): how to reproduce each, and what it states and reports."""

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
        interval: if the paper prints both ends.
    """

    value: float
    deviation: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def band(self) -> tuple[float, float] | None:
        """Return the range of numbers inside the noise; None if the paper prints no noise."""
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
        commands: that reproduce it, by size; a size is missing if the package has no data for it.
        here: the replacements at other sizes than the paper's.
        benchmarks: its columns, for scores.
        answers_of: at small size, the table from whose completions its data is made.
        runs_of: another table whose runs it is made from.
        settings: options that the paper states, by row; those under `all` hold for every row.
        sweep: values that every row is run with.
        decoding: options of the evaluation that the paper states.
        rows: rows of the data that the paper states.
        reported: the paper's numbers.
        protocols: rows that were measured in another way than the table's runs, and how.
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
        """Return the number of the table whose folder holds the runs."""
        return self.runs_of or self.number

    def filled(self, size: str, **places: object) -> tuple[str, ...] | None:
        """Return the commands of one size with their placeholders filled; None if there are none.

        Args:
            places: folders by placeholder; one that is not given is replaced by its own name.
        """
        templates = self.commands.get(size)
        if templates is None:
            return None
        names = {name: name for name in ("folder", "mirror", "candidates", "model", "data")}
        return tuple(template.format(**(names | places)) for template in templates)


@dataclass(frozen=True)
class MemoryFigure:
    """Figure 3a or 3b.

    Attributes:
        methods: options of each, by what the figure calls it.
        models: the backbones, by what the figure calls them, with their options.
        shapes: rows and tokens of a micro-batch.
        card_gb: the card that the abstract names; None for figure 3b.
    """

    methods: dict[str, list[str]]
    models: dict[str, list[str]]
    shapes: list[tuple[int, int]]
    card_gb: float | None = None


def paper_tables() -> dict[int, PaperTable]:
    """Return all tables by number."""
    return {number: _table(number, values) for number, values in _content().items() if isinstance(number, int)}


def memory_figure_3a() -> MemoryFigure:
    """Return what the memory axis of figure 3a shows."""
    values = _content()["memory"]["figure_3a"]
    models = {
        f"{model}, {kind}": [f"model={model}", f"model.quantization={kind}"]
        for model in values["models"]
        for kind in values["quantizations"]
    }
    return MemoryFigure(values["methods"], models, [tuple(s) for s in values["shapes"]], values["card_gb"])


def memory_figure_3b() -> MemoryFigure:
    """Return what figure 3b shows."""
    values = _content()["memory"]["figure_3b"]
    models = {values["model"]: [f"model={values['model']}", *values["options"]]}
    return MemoryFigure(values["methods"], models, [tuple(shape) for shape in values["shapes"]])


def _content() -> Any:
    return OmegaConf.to_container(OmegaConf.load(str(files("paper") / "reported.yaml")))


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
    """Read a number, [value, deviation] or [value, low, high]."""
    if not isinstance(cell, list):
        return Reported(float(cell))
    if len(cell) == 2:
        return Reported(float(cell[0]), float(cell[1]))
    value, low, high = map(float, cell)
    return Reported(value, interval=(low, high))
