"""The paper's tables as data (`assets/paper.yaml`): how to repeat each, and what it reports as far as we know."""

from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

SCALING, SCORES, SETTINGS = "scaling", "scores", "settings"


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        section: of the paper, or the task.
        numbered: `stated` where its number is known, `assumed` where it follows the order of the sections.
        kind: what it is made of: fits over budgets, scores of benchmarks, or settings and memory.
        commands: that repeat it.
        small: the same at laptop size; None where the package brings no data for it.
        here: what stands for what at laptop size.
        benchmarks: its columns, for scores.
        answers_of: at laptop size, the table from whose completions its data is made.
        runs_of: another table whose runs it is made from.
        reported: the paper's numbers by row ("<backbone> <method>") and column.
        source: where those were read.
    """

    number: int
    title: str
    section: str
    numbered: str
    kind: str
    commands: tuple[str, ...]
    small: tuple[str, ...] | None = None
    here: str = ""
    benchmarks: tuple[str, ...] = ()
    answers_of: int | None = None
    runs_of: int | None = None
    reported: dict[str, dict[str, float]] = field(default_factory=dict)
    source: str = ""

    @property
    def runs(self) -> int:
        """The table whose folder holds the runs."""
        return self.runs_of or self.number


@dataclass(frozen=True)
class MemoryFigure:
    """Figure 3b.

    Attributes:
        model: of conf/model.
        methods: options of each, by what the figure calls it.
        options: of all of them.
        shapes: rows and tokens of a micro-batch.
    """

    model: str
    methods: dict[str, list[str]]
    options: list[str]
    shapes: list[tuple[int, int]]


def paper_tables() -> dict[int, PaperTable]:
    """All tables by number."""
    return {number: _table(number, values) for number, values in _content().items() if isinstance(number, int)}


def memory_figure_spec() -> MemoryFigure:
    """What figure 3b shows."""
    values = _content()["memory"]
    return MemoryFigure(**(values | {"shapes": [(rows, tokens) for rows, tokens in values["shapes"]]}))


def _content() -> Any:
    return OmegaConf.to_container(OmegaConf.load(str(files("ladder_cli.assets") / "paper.yaml")))


def _table(number: int, values: dict[str, Any]) -> PaperTable:
    lists: dict[str, Any] = {
        name: tuple(values[name]) for name in ("commands", "small", "benchmarks") if name in values
    }
    return PaperTable(number=number, **(values | lists))
