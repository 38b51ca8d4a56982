"""Are the gold answers themselves in order? Rows, duplicates, empty golds, and each gold graded against itself."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from ladder_cli.config import BenchmarkConfig, EvaluateConfig
from ladder_cli.data.benchmarks import Problem, benchmark_config, benchmark_names, load_problems
from ladder_cli.errors import RunFailed, UserError
from ladder_cli.evaluation.grading import Grader, Task
from ladder_cli.evaluation.verdict import CORRECT


@dataclass
class Audit:
    """What was found in one benchmark.

    Attributes:
        repeated: questions that are asked more than once.
        failing: problem -> verdict of its gold against itself, where that is not `correct`.
    """

    rows: int
    repeated: list[str] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)


def audit_problems(benchmark: BenchmarkConfig, problems: list[Problem], grader: Grader) -> Audit:
    """Check one benchmark; a label task has nothing to grade."""
    asked = Counter(" ".join(problem.question.split()) for problem in problems)
    found = Audit(len(problems), [question for question, count in asked.items() if count > 1])
    if benchmark.kind == "boxed":
        tasks = [Task(p.id, p.gold, f"The answer is \\boxed{{{p.gold}}}.", rule=p.rule) for p in problems]
        verdicts = {grade.key: grade.verdict for grade in grader.grade(tasks)}
        found.failing = {name: verdict for name, verdict in verdicts.items() if verdict != CORRECT}
    return found


def audit(config: EvaluateConfig, console: Console) -> dict[str, Any]:
    """Audit the wanted benchmarks, print a table and every gold that fails.

    Returns:
        For each benchmark that could be read: `rows`, `repeated`, `failing`.

    Raises:
        RunFailed: if a benchmark cannot be read, or a gold does not verify against itself.
    """
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("benchmark", "rows", "asked twice", "gold fails against itself"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    results: dict[str, Any] = {}
    trouble: list[str] = []
    with Grader(seconds=config.decode.grade_seconds) as grader:
        for name in benchmark_names(config.benchmarks):
            benchmark = benchmark_config(name)
            try:
                problems = load_problems(benchmark, config.data_dir, config.limit)
            except UserError as error:
                trouble.append(str(error))
                continue
            found = audit_problems(benchmark, problems, grader)
            results[name] = {"rows": found.rows, "repeated": found.repeated, "failing": found.failing}
            table.add_row(name, str(found.rows), str(len(found.repeated)), str(len(found.failing)))
            golds = {problem.id: problem.gold for problem in problems}
            trouble += [f"{name} {key}: {verdict}: {golds[key][:100]}" for key, verdict in found.failing.items()]
    console.print(table)
    for line in trouble:
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    if trouble:
        raise RunFailed(f"{len(trouble)} finding(s) in the gold answers, listed above.")
    return results
