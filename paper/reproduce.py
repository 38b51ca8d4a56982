"""Reproduces tables: runs their commands and writes a folder with runs, tables, figures and an index."""

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ladder_cli.config.choices import BenchmarkKind
from ladder_cli.data.benchmarks import benchmark_config, load_problems
from ladder_cli.errors import UserError
from ladder_cli.run.directory import write_text
from paper.index import index
from paper.jobs import Slot, Task, run_jobs
from paper.plots import length_figure, memory_score_figure, save
from paper.reported import PAPER, REAL, SCALING, SCORES, SMALL, PaperTable, paper_tables
from paper.runs import Run, read_runs
from paper.scaling_plots import scaling_figure
from paper.table import Table
from paper.tables import build_tables

_MODULES = {"ladder-train": "ladder_cli.train", "ladder-eval": "ladder_cli.evaluate"}
_CANDIDATES = "candidates.jsonl"
# Benchmarks of the package itself, whose completions can be made into data for the critic at small size.
_OWN_BENCHMARK = "arithmetic"
_AT_4 = ("ladder-4", "xladder-4")


@dataclass(frozen=True)
class Scale:
    """The size of a reproduction.

    Attributes:
        name: PAPER, SMALL (the embedded model) or REAL (a real small model).
        model, data: of REAL: folder of the model, and of the mirror that holds gsm8k and cola.
    """

    name: str = PAPER
    model: Path | None = None
    data: Path | None = None

    def __post_init__(self) -> None:
        if self.name != REAL:
            for option, folder in (("--model-path", self.model), ("--data-dir", self.data)):
                if folder is not None:
                    raise UserError(f"{option} is not read with --scale {self.name}: give --scale real.")
            return
        for option, folder, inside in (
            ("--model-path", self.model, "config.json"),
            ("--data-dir", self.data, "gsm8k/train.jsonl"),
        ):
            if folder is None:
                raise UserError(f"--scale real needs {option} DIR.")
            if not (folder / inside).is_file():
                raise UserError(f"{option} {folder}: there is no {inside} in it.")


class Reproduction:
    """One folder of reproduced tables.

    Attributes:
        folder: where everything goes: `table-N/` with the runs, tables and figures, `README.md` as the index.
        scale: the paper's own size, or a smaller one.
        tables: the paper's, by number.
    """

    def __init__(self, folder: Path, scale: Scale = Scale()) -> None:
        self.folder, self.scale, self.tables = folder, scale, paper_tables()

    def commands(self, number: int) -> tuple[str, ...] | None:
        """Return the commands that reproduce a table; None if there are none at this size.

        A table that is made from the runs of another one has the commands of that one.
        """
        return self.tables[self.tables[number].runs].filled(
            self.scale.name,
            folder=self.runs_folder(self.tables[number]),
            mirror=self.folder / "mirror",
            candidates=self.folder / _CANDIDATES,
            model=self.scale.model,
            data=self.scale.data,
        )

    def runs_folder(self, table: PaperTable) -> Path:
        """Return the folder for the runs of a table."""
        return self.folder / f"table-{table.runs}" / "runs"

    def jobs(self, numbers: list[int]) -> list[list[int]]:
        """Divide tables into jobs that run in parallel; the tables of a job run one after the other.

        At the paper's size and on a real model there is one job. At small size, a table that is made from another's
        answers comes after it in a second job.
        """
        small = self.scale.name == SMALL
        pairs = [(table.answers_of, table.number) for table in self.tables.values() if small and table.answers_of]
        apart = {number for pair in pairs for number in pair}
        return [[n for n in numbers if n not in apart], [n for n in numbers if n in apart]]

    def run(self, numbers: list[int], memory: bool, scripts: Path) -> list[str]:
        """Run tables' commands; finished runs are not run again.

        Args:
            memory: whether to predict figures 3a and 3b too.
            scripts: folder of the project's scripts.

        Returns:
            The commands that failed. Later ones run nevertheless, on the runs that exist.

        Raises:
            Interrupted: if a command was.
        """
        # A table that is made from another table's runs has no runs of its own.
        numbers = [number for number in numbers if self.tables[number].runs_of not in numbers]

        def table(number: int) -> Task:
            return lambda slot: self._run_table(number, scripts, slot)

        first, *others = [[table(number) for number in job] for job in self.jobs(numbers)]
        return run_jobs([[*first, *([self._predict] if memory else [])], *others])

    def _run_table(self, number: int, scripts: Path, slot: Slot) -> list[str]:
        failed = []
        for command in self.commands(number) or ():
            if _CANDIDATES in command:
                self._write_candidates(self.tables[number])
            words = shlex.split(command)
            if words[0] == "python":
                words = [sys.executable, str(scripts / Path(words[1]).name), *words[2:]]
            else:
                words = [sys.executable, "-m", _MODULES[words[0]], *words[1:]]
            if not slot.run(command, words, self.folder / f"table-{number}" / "log.txt"):
                failed.append(command)
        return failed

    def _predict(self, slot: Slot) -> list[str]:
        self.memory()
        return []

    def report(self, others: list[Path] | None = None, numbers: list[int] | None = None) -> dict[int, list[Table]]:
        """Write tables and figures of every table that has runs, and the index.

        Args:
            others: folders of runs to build from, in place of this folder's own.
            numbers: tables to build; None: all.
        """
        built: dict[int, list[Table]] = {}
        for number in numbers or list(self.tables):
            table = self.tables[number]
            folders = others if others is not None else [self.runs_folder(table)]
            runs = read_runs(folder for folder in folders if others is not None or folder.is_dir())
            if not runs:
                continue
            built[number] = build_tables(table, runs)
            place = self.folder / f"table-{number}"
            for order, one in enumerate(built[number], start=1):
                one.write(place, f"table-{number}" if order == 1 else f"table-{number}-{order}")
            for name, figure in _figures(table, runs):
                save(figure, place, name)
        self._write_index()
        return built

    def memory(self) -> None:
        """Predict the memory of figures 3a and 3b; points that were predicted before are read from disk."""
        # Only this needs torch.
        from paper.memory import write_figures

        write_figures(self.folder / "memory")
        self._write_index()

    def laws(self) -> list[str]:
        """Check table 1 against itself; write a figure and return its sentences."""
        from paper.laws import laws_figure, stated_laws, study

        paper = self.tables[1]
        zetas = paper_zetas(paper)
        lines = study(paper, zetas)
        place = self.folder / "laws"
        save(laws_figure(stated_laws(paper, zetas)), place, "figure-laws")
        write_text(place / "laws.md", "# Table 1 checked against itself\n\n" + "".join(f"- {line}\n" for line in lines))
        self._write_index()
        return lines

    def claims(self, others: list[Path] | None = None) -> Table:
        """Judge every claim of the paper by the runs and predictions in this folder.

        Args:
            others: folders of runs to judge by, in place of this folder's own.
        """
        from paper import claims
        from paper.memory import predict
        from paper.reported import memory_figure_3a

        def runs(*numbers: int) -> list[Run]:
            folders = others if others is not None else [self.runs_folder(self.tables[number]) for number in numbers]
            return read_runs(folder for folder in folders if others is not None or folder.is_dir())

        figure = memory_figure_3a()
        points = predict(figure, self.folder / "memory" / "memory-3a.json")
        judged = [
            *claims.slopes(runs(1)),
            *claims.predicted_memory(points, figure.card_gb or 0.0),
            *claims.measured_memory(runs(1, 2, 6)),
            *claims.chains(runs(3)),
            *claims.equal_parameters(_parameters_of_4()),
            *claims.critic(runs(4)),
        ]
        table = claims.claims_table(judged)
        table.write(self.folder / "claims", "claims")
        self._write_index()
        return table

    def _write_index(self) -> None:
        commands = {number: self.commands(number) for number in self.tables}
        write_text(self.folder / "README.md", index(self.folder, self.scale.name, self.tables, commands))

    def _write_candidates(self, table: PaperTable) -> None:
        """Write the answers of another table's runs as candidates for the critic's data."""
        questions = {problem.id: problem.question for problem in load_problems(benchmark_config(_OWN_BENCHMARK), None)}
        folder = self.runs_folder(self.tables[table.answers_of or table.number])
        rows = [
            {"question": questions[sample["id"]], "gold": sample["gold"], "completion": sample["completion"]}
            for run in (read_runs([folder]) if folder.is_dir() else [])
            if _OWN_BENCHMARK in run.scores
            for sample in run.samples(_OWN_BENCHMARK)
        ]
        write_text(self.folder / _CANDIDATES, "".join(json.dumps(row) + "\n" for row in rows))


def _figures(table: PaperTable, runs: list[Run]) -> Iterator[tuple]:
    """Draw the figures that belong to a table; yield them by file name."""
    if table.kind == SCALING:
        candidates = [("figure-2", scaling_figure(runs))]
    elif table.kind == SCORES:
        candidates = []
        for name in sorted({name for run in runs for name in run.scores}):
            candidates.append((f"figure-3a-{name}", memory_score_figure(runs, name)))
            if benchmark_config(name).kind is not BenchmarkKind.LABEL:
                candidates.append((f"figure-4-{name}", length_figure(runs, name)))
    else:
        candidates = []
    return ((name, figure) for name, figure in candidates if figure is not None)


def paper_zetas(paper: PaperTable) -> dict[str, float]:
    """Return FLOPs per token by the paper's formula for every row of table 1, from published shapes."""
    from paper.commands import cells_of
    from paper.costs import sizes_of

    sizes = {cell.label: sizes_of(cell.configs[0]) for cell in cells_of(paper.filled(PAPER) or ())}
    return {label: float(sizes[label].flops["paper"]) for label in paper.reported}


def _parameters_of_4() -> dict[str, dict[str, int]]:
    """Return the trained parameters of both @4 variants on 1.5B, for each way to count their projections."""
    from ladder_cli.config.compose import composed
    from ladder_cli.config.schema import TrainConfig
    from paper.costs import sizes_of

    def count(*options: str) -> int:
        return sizes_of(composed("train", TrainConfig, ["model=qwen2.5-math-1.5b", *options])).trained

    readings = {
        "a projection for every connection (as shipped)": ([], []),
        "one projection for all connections": (["method.projection=shared"], ["method.projection=shared"]),
        "a projection for every side layer, fed or not": ([], ["method.connections=[[1,1],[2,2],[3,3],[4,4]]"]),
    }
    return {
        reading: {preset: count(f"method={preset}", *more) for preset, more in zip(_AT_4, options, strict=True)}
        for reading, options in readings.items()
    }
