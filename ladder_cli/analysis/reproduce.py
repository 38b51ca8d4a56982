"""From a table's commands to a folder that holds its runs, its tables and its figures, with an index."""

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ladder_cli.analysis.figures import (
    length_figure,
    memory_figure,
    memory_score_figure,
    save,
)
from ladder_cli.analysis.index import index
from ladder_cli.analysis.lanes import Lane, Task, run_lanes
from ladder_cli.analysis.paper import SCALING, SCORES, PaperTable, memory_figure_spec, paper_tables
from ladder_cli.analysis.paper_tables import build_tables, stated_laws
from ladder_cli.analysis.runs import Run, read_runs
from ladder_cli.analysis.scaling_figures import scaling_figure, stated_figure
from ladder_cli.analysis.tables import Table
from ladder_cli.cli import composed, quiet_libraries
from ladder_cli.config import TrainConfig
from ladder_cli.data.benchmarks import benchmark_config, load_problems
from ladder_cli.run_dir import read_json, write_json, write_text

_MODULES = {"ladder-train": "ladder_cli.train", "ladder-eval": "ladder_cli.evaluate"}
_CANDIDATES = "candidates.jsonl"
# Benchmarks of the package itself, whose completions can be made into data for the critic at laptop size.
_OWN_BENCHMARK = "arithmetic"


class Reproduction:
    """One folder of reproduced tables.

    Attributes:
        folder: where everything goes: `table-N/` with the runs, tables and figures, `README.md` as the index.
        small: laptop size on the embedded model, in place of the paper's own.
        tables: the paper's, by number.
    """

    def __init__(self, folder: Path, small: bool) -> None:
        self.folder, self.small, self.tables = folder, small, paper_tables()

    def commands(self, number: int) -> tuple[str, ...] | None:
        """What repeats a table; None where there is no such thing at laptop size."""
        table = self.tables[number]
        templates = table.small if self.small else table.commands
        if templates is None:
            return None
        places = {
            "folder": self.runs_folder(table),
            "mirror": self.folder / "mirror",
            "candidates": self.folder / _CANDIDATES,
        }
        return tuple(template.format(**places) for template in templates)

    def runs_folder(self, table: PaperTable) -> Path:
        """Where the runs of a table go."""
        return self.folder / f"table-{table.runs}" / "runs"

    def lanes(self, numbers: list[int]) -> list[list[int]]:
        """Tables that run beside one another; within a lane one after the other.

        At the paper's size there is one lane. At laptop size a table that is made from another's answers comes after
        that one, and both run beside all else.
        """
        pairs = [(table.answers_of, table.number) for table in self.tables.values() if self.small and table.answers_of]
        apart = {number for pair in pairs for number in pair}
        return [[n for n in numbers if n not in apart], [n for n in numbers if n in apart]]

    def run(self, numbers: list[int], memory: bool, scripts: Path) -> list[str]:
        """Run tables' commands; finished runs are not run again.

        Args:
            memory: whether to predict figure 3b too.
            scripts: folder of the project's scripts.

        Returns:
            The commands that did not succeed. What comes after them is tried all the same, on the runs that are there.

        Raises:
            Interrupted: if a command was.
        """

        def table(number: int) -> Task:
            return lambda lane: self._run_table(number, scripts, lane)

        first, *others = [[table(number) for number in lane] for lane in self.lanes(numbers)]
        return run_lanes([[*first, *([self._predict] if memory else [])], *others])

    def _run_table(self, number: int, scripts: Path, lane: Lane) -> list[str]:
        failed = []
        for command in self.commands(number) or ():
            if _CANDIDATES in command:
                self._write_candidates(self.tables[number])
            words = shlex.split(command)
            if words[0] == "python":
                words = [sys.executable, str(scripts / Path(words[1]).name), *words[2:]]
            else:
                words = [sys.executable, "-m", _MODULES[words[0]], *words[1:]]
            if not lane.run(command, words, self.folder / f"table-{number}" / "log.txt"):
                failed.append(command)
        return failed

    def _predict(self, lane: Lane) -> list[str]:
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
        """Figure 3b and its numbers, from the preflight alone; points that were predicted before are kept."""
        spec, place = memory_figure_spec(), self.folder / "memory"
        configs = {
            name: composed("train", TrainConfig, [f"model={spec.model}", *spec.options, *options])
            for name, options in spec.methods.items()
        }
        quiet_libraries(next(iter(configs.values())).model)
        # Only here is torch needed.
        from ladder_cli.analysis.memory_points import MemoryPoint, memory_points

        path = place / "memory.json"
        conditions = {"model": spec.model, "options": spec.options, "methods": spec.methods}
        before = read_json(path) if path.is_file() else {}
        known: list[MemoryPoint] = []
        if {name: before.get(name) for name in conditions} == conditions:
            known = [MemoryPoint(**point) for point in before["points"]]

        def tell(point: MemoryPoint) -> None:
            print(f"{point.method}, {point.rows} x {point.tokens}: {point.bytes / 1e9:.1f} GB", flush=True)
            known.append(point)
            write_json(path, conditions | {"points": [asdict(point) for point in known]})

        points = memory_points(configs, spec.shapes, tuple(known), tell)
        rows = [
            (name, *(f"{point.bytes / 1e9:.1f}" for point in points if point.method == name)) for name in spec.methods
        ]
        headings = ("", *(f"{rows} x {tokens:,}" for rows, tokens in spec.shapes))
        notes = [
            f"Predicted by running one training step of {spec.model} ({', '.join(spec.options)}, bfloat16, 8-bit "
            "AdamW) on fake tensors; without what CUDA and its allocator take for themselves."
        ]
        Table(f"Peak memory of one step of {spec.model}, GB, by rows x tokens", headings, rows, notes).write(
            place, "memory"
        )
        save(memory_figure(points, spec.model), place, "figure-3b")
        self._write_index()

    def _write_index(self) -> None:
        commands = {number: self.commands(number) for number in self.tables}
        write_text(self.folder / "README.md", index(self.folder, self.small, self.tables, commands))

    def _write_candidates(self, table: PaperTable) -> None:
        """What the runs of another table answered, as candidates for the critic's data."""
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
    """The figures that belong to a table, by file name."""
    if table.kind == SCALING:
        candidates = [("figure-2", scaling_figure(runs)), ("figure-2-paper", stated_figure(stated_laws(table)))]
    elif table.kind == SCORES:
        candidates = []
        for name in sorted({name for run in runs for name in run.scores}):
            candidates.append((f"figure-3a-{name}", memory_score_figure(runs, name)))
            if benchmark_config(name).kind != "label":
                candidates.append((f"figure-4-{name}", length_figure(runs, name)))
    else:
        candidates = []
    return ((name, figure) for name, figure in candidates if figure is not None)
