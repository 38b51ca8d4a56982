"""Audits the grader on the benchmarks' golds, on wrong answers made of them, and on other spellings of them.

For each benchmark: rows, questions that are asked twice, golds that fail against themselves, golds that cannot be read
whole, perturbed answers that pass for right, and re-spelled answers that do not. With `output_dir`, `audit.json`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ladder_cli.config.choices import BenchmarkKind
from ladder_cli.config.evaluation import BenchmarkConfig, EvaluateConfig
from ladder_cli.console import show
from ladder_cli.data.benchmarks import Problem, benchmark_config, benchmark_names, load_problems
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.evaluate.answers.verdict import CORRECT, CRASH, TIMEOUT, unread
from ladder_cli.evaluate.audit.perturbations import perturbed
from ladder_cli.evaluate.audit.respellings import respelled
from ladder_cli.evaluate.grading import Grader, Task, grader_identity
from ladder_cli.run.claim import claimed
from ladder_cli.run.directory import write_json

RECORD = "audit.json"
_ITSELF, _PERTURBED, _RESPELLED = "itself", "perturbed", "respelled"
_MISREAD = 0.5  # share of failing golds above which the benchmark is described wrongly


@dataclass(frozen=True)
class Finding:
    """One answer that was not judged as it should be.

    Attributes:
        kind: of the change.
        answer: the completion that was graded.
        read: the answer that the grader read from it.
    """

    id: str
    gold: str
    kind: str
    answer: str
    verdict: str
    read: str | None


@dataclass
class Audit:
    """The findings in one benchmark.

    Attributes:
        repeated: questions that are asked more than once.
        failing: problem -> verdict of its gold against itself, where that is not `correct`.
        unread: problem -> why the grader cannot read its gold whole, and compares it as a string.
        tried: how many answers of each kind, `perturbed` and `respelled`.
        accepted: perturbed answers that were judged correct.
        refused: re-spelled answers that were not.
    """

    rows: int
    repeated: list[str] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    tried: dict[str, dict[str, int]] = field(default_factory=lambda: {_PERTURBED: {}, _RESPELLED: {}})
    accepted: list[Finding] = field(default_factory=list)
    refused: list[Finding] = field(default_factory=list)

    def count(self, sort: str) -> int:
        """Count the answers of a sort that were tried."""
        return sum(self.tried[sort].values())


def audit_problems(
    benchmark: BenchmarkConfig, problems: list[Problem], grader: Grader, console: Console | None = None
) -> Audit:
    """Check one benchmark; a label task has nothing to grade."""
    asked = Counter(" ".join(problem.question.split()) for problem in problems)
    found = Audit(len(problems), [question for question, count in asked.items() if count > 1])
    if benchmark.kind is not BenchmarkKind.BOXED:
        return found
    known = {problem.id: problem for problem in problems}
    tasks = list(_tasks(problems))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None or not console.is_terminal) as progress:
        bar = progress.add_task(benchmark.name, total=len(tasks))
        completions = {task.key: task.completion for task in tasks}
        for grade in grader.grade(tasks):
            progress.advance(bar)
            (name, sort, kind, _), right = grade.key, grade.verdict == CORRECT
            finding = Finding(name, known[name].gold, kind, completions[grade.key], grade.verdict, grade.answer)
            if sort == _ITSELF:
                # In this process, which a gold that has hung or killed a worker must not enter.
                reason = unread(known[name].gold, known[name].rule) if grade.verdict not in (TIMEOUT, CRASH) else None
                if reason is not None:
                    found.unread[name] = reason
                if not right:
                    found.failing[name] = grade.verdict
                continue
            found.tried[sort][kind] = found.tried[sort].get(kind, 0) + 1
            if sort == _PERTURBED and right:
                found.accepted.append(finding)
            elif sort == _RESPELLED and not right:
                found.refused.append(finding)
    return found


def _tasks(problems: list[Problem]) -> Iterator[Task]:
    """Yield a gold against itself, perturbed and re-spelled; keys are (problem, sort, kind, number)."""
    for problem in problems:
        gold, rule = problem.gold, problem.rule
        yield Task((problem.id, _ITSELF, "", 0), gold, f"The answer is \\boxed{{{gold}}}.", rule=rule)
        for number, (kind, answer) in enumerate(perturbed(gold, rule)):
            completion = f"The answer is \\boxed{{{answer}}}."
            yield Task((problem.id, _PERTURBED, kind, number), gold, completion, rule=rule)
        for number, (kind, completion) in enumerate(respelled(gold, rule)):
            yield Task((problem.id, _RESPELLED, kind, number), gold, completion, rule=rule)


def audit(config: EvaluateConfig, console: Console) -> dict[str, Any]:
    """Audit the wanted benchmarks; print a table and every answer that is not judged as it should be.

    Returns:
        For each benchmark that could be read, the fields of `Audit`.

    Raises:
        RunFailed: if a benchmark cannot be read, a gold does not verify against itself, or a perturbed answer is
            judged correct. Re-spelled answers that are refused, and golds that are not read whole, are listed alone.
    """
    if config.output_dir is not None:
        # An audit takes minutes, so a folder that cannot be written is reported first.
        with claimed(Path(config.output_dir)):
            pass
    table = Table(box=None, padding=(0, 1), header_style="bold")
    headings = ("benchmark", "rows", "asked twice", "gold fails itself", "not read whole")
    for heading in (*headings, "perturbed", "accepted", "re-spelled", "refused"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    results: dict[str, Any] = {}
    trouble: list[str] = []
    listed: list[str] = []
    with Grader(seconds=config.decode.grade_seconds) as grader:
        for name in benchmark_names(config.benchmarks):
            benchmark = benchmark_config(name)
            try:
                problems = load_problems(benchmark, config.data_dir, config.limit)
            except UserError as error:
                trouble.append(str(error))
                continue
            found = audit_problems(benchmark, problems, grader, console)
            results[name] = asdict(found)
            table.add_row(name, *map(str, _counts(found)))
            golds = {problem.id: problem.gold for problem in problems}
            trouble += _failing_lines(benchmark, found, golds)
            trouble += [f"{name} {_line(each)}: accepted" for each in found.accepted]
            listed += [f"{name} {key}: not read whole, {why}: {golds[key][:100]}" for key, why in found.unread.items()]
            listed += [f"{name} {_line(each)}: {each.verdict}" for each in found.refused]
    show(table, console)
    for line in [*trouble, *listed]:
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    if config.output_dir is not None:
        folder = Path(config.output_dir)
        with claimed(folder):
            record = {"benchmarks": results, "grader": grader_identity(config.decode.grade_seconds)}
            write_json(folder / RECORD, record)
        console.print(f"audit: {folder / RECORD}", soft_wrap=True)
    if trouble:
        raise RunFailed(f"{len(trouble)} finding(s) in the gold answers and their grading, listed above.")
    return results


def _failing_lines(benchmark: BenchmarkConfig, found: Audit, golds: dict[str, str]) -> list[str]:
    """A line for each gold that fails itself; where nearly all do, one that says what the file may lack."""
    if len(found.failing) > _MISREAD * found.rows:
        key, verdict = next(iter(found.failing.items()))
        return [
            f"{benchmark.name}: {len(found.failing):,} of {found.rows:,} golds fail themselves, as {key}: {verdict}: "
            f"{golds[key][:100]!r}. Is column '{benchmark.gold}' the answer alone? Where it ends a worked solution, "
            "give `gold_after:`; for several parts or units, `rule:`."
        ]
    return [f"{benchmark.name} {key}: {verdict}: {golds[key][:100]}" for key, verdict in found.failing.items()]


def _counts(found: Audit) -> tuple[int, ...]:
    return (
        *(found.rows, len(found.repeated), len(found.failing), len(found.unread)),
        *(found.count(_PERTURBED), len(found.accepted), found.count(_RESPELLED), len(found.refused)),
    )


def _line(finding: Finding) -> str:
    answer = finding.answer.removeprefix("The answer is ").removesuffix(".")
    return f"{finding.id}: {finding.kind}: gold {finding.gold[:80]!r}, answer {answer[:120]!r}"
