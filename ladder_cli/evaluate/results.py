"""`result.json` and `summary.json`: the figures of the largest evaluation of a folder; smaller ones stand beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder_cli.data.benchmarks import Problem, problems_digest
from ladder_cli.errors import UserError
from ladder_cli.run.claim import claimed
from ladder_cli.run.directory import RESULT, SUMMARY, read_json, write_json


@dataclass(frozen=True)
class Extent:
    """What figures are over.

    Attributes:
        runs: name of each run (or of the one model) -> identity of its weights.
        repeats: how often each problem was answered.
        problems: in the order of the data.
    """

    runs: dict[str, str]
    repeats: int
    problems: list[Problem]

    def record(self) -> dict[str, Any]:
        """For the file: `problems` is their number, `questions` a hash of their ids, questions, golds and rules."""
        return {
            "runs": self.runs,
            "repeats": self.repeats,
            "problems": len(self.problems),
            "questions": problems_digest(self.problems),
        }

    def covers(self, before: dict[str, Any]) -> bool:
        """Whether all that the figures of an earlier `result.json` are over is among this."""
        extent = before.get("extent")
        if not isinstance(extent, dict):
            # Written before extents were: their numbers have to do.
            return (
                len(self.runs) >= (len(before.get("scores", {})) if before.get("spread_over") == "runs" else 1)
                and self.repeats >= int(before.get("n_repeats", 1))
                and len(self.problems) >= int(before.get("n_problems", 0))
            )
        count = int(extent["problems"])
        return (
            set(extent["runs"].values()) <= set(self.runs.values())
            and int(extent["repeats"]) <= self.repeats
            and count <= len(self.problems)
            and extent["questions"] == problems_digest(self.problems[:count])
        )

    @property
    def file(self) -> str:
        """Where figures go that must not replace larger ones."""
        said = self.record()
        runs = f",runs={len(self.runs)}" if len(self.runs) > 1 else ""
        return f"result{runs},problems={said['problems']},repeats={said['repeats']},{said['questions'][:8]}.json"


def write_result(folder: Path, benchmark: str, figures: dict[str, Any], about: dict[str, Any], extent: Extent) -> Path:
    """Write the figures of one benchmark.

    They become `result.json` and the benchmark's entry of `summary.json` unless those are over anything that these
    are not over: more problems, repeats or runs, or other ones. Then they go into a file of their own beside it.

    Args:
        folder: of the evaluation.
        about: what else `result.json` says.

    Returns:
        The file that was written.

    Raises:
        UserError: if there is a `result.json` that no evaluation wrote.
    """
    record = {"benchmark": benchmark, **figures, **about, "extent": extent.record()}
    path, summary = folder / benchmark / RESULT, folder / SUMMARY
    with claimed(folder, wait=True):
        if path.is_file() and not _covered(path, extent):
            path = path.with_name(extent.file)
            write_json(path, record)
            return path
        write_json(path, record)
        entry = figures | {"questions": extent.record()["questions"]}
        write_json(summary, (read_json(summary) if summary.is_file() else {}) | {benchmark: entry})
    return path


def _covered(path: Path, extent: Extent) -> bool:
    before = read_json(path)
    try:
        return extent.covers(before)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no result of an evaluation ({error!r}): restore or delete it.") from error
