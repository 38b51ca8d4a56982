"""Benchmarks: which problems, and which of their columns hold question and gold answer."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path

from omegaconf import OmegaConf

from ladder_cli.config.catalogue import CONFIG_MODULE, choices
from ladder_cli.config.choices import BenchmarkKind
from ladder_cli.config.compose import merge_strictly
from ladder_cli.config.evaluation import BenchmarkConfig
from ladder_cli.config.validation import suggest
from ladder_cli.data import arithmetic, classification
from ladder_cli.data.gold import AS_EXPRESSION, GoldRule, gold_column, row_names
from ladder_cli.data.sources import Row, load_rows, read_file, text_column
from ladder_cli.errors import UserError
from ladder_cli.run.directory import safe_name

# The test problems of `arithmetic` are the same for every training seed.
_ARITHMETIC_SEED = 0
_FILE = r"\.(jsonl|json|csv|parquet)(\.gz)?"
_OWN_FILE = re.compile(_FILE + "$", re.IGNORECASE)
# What `own_name` makes: no config in conf/benchmark can have such a name.
_OWN_NAME = re.compile(_FILE + "@[0-9a-f]{8}$", re.IGNORECASE)
_DIGEST = 16  # hex digits


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer as in the data, and the rule by which the gold is read."""

    id: str
    question: str
    gold: str
    rule: GoldRule = AS_EXPRESSION

    @property
    def question_digest(self) -> str:
        """Hash the question alone, without instruction and template."""
        return hashlib.sha256(self.question.encode()).hexdigest()[:_DIGEST]


def problems_digest(problems: Sequence[Problem]) -> str:
    """Hash ids, questions, golds and rules in any order: equal digests mean the same problems."""
    each = sorted(json.dumps([p.id, p.question, p.gold, astuple(p.rule)], default=str) for p in problems)
    return hashlib.sha256("\n".join(each).encode()).hexdigest()[:_DIGEST]


def own_name(path: str) -> str:
    """Name the user's file as a benchmark: its file name and a hash of its content, `mine.jsonl@3fa9c1d2`.

    No benchmark in `conf/benchmark`, no other file and no other version of this one has the same name.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"benchmark {path} cannot be read: {error.strerror}.") from error
    return f"{safe_name(Path(path).name)}@{hashlib.sha256(content).hexdigest()[:8]}"


def benchmark_config(name: str) -> BenchmarkConfig:
    """Read the config of a benchmark, or make one for the user's file of question, answer and perhaps id.

    The name that such a file has in results (`own_name`) gives a config too, by which its samples are graded again.

    Raises:
        UserError: if there is none of that name.
    """
    known = choices("benchmark")
    if _OWN_NAME.search(name):
        return BenchmarkConfig(name=name, question="question", id="id")
    if _OWN_FILE.search(name):
        return BenchmarkConfig(name=own_name(name), path=name, question="question", id="id")
    if name not in known:
        raise UserError(f"no benchmark '{name}'.{suggest(name, known)} Choose from: {', '.join(known)}, all.")
    text = (files(CONFIG_MODULE) / "benchmark" / f"{name}.yaml").read_text()
    return merge_strictly(BenchmarkConfig, OmegaConf.create(text), "benchmark.")


def benchmark_names(wanted: list[str]) -> list[str]:
    """Check names, expand `all` (those graded by a boxed answer), and drop repeated names.

    Raises:
        UserError: if there is none of a name, or two files hold the same.
    """
    everything = [name for name in choices("benchmark") if benchmark_config(name).kind is BenchmarkKind.BOXED]
    names = dict.fromkeys(each for name in wanted for each in (everything if name == "all" else [name]))
    asked: dict[str, str] = {}
    for name in names:
        before = asked.setdefault(benchmark_config(name).name, name)
        if before != name:
            raise UserError(f"benchmarks: {before} and {name} hold the same: name one of them.")
    return list(names)


def load_problems(benchmark: BenchmarkConfig, data_dir: str | None, limit: int | None = None) -> list[Problem]:
    """Load the problems of a benchmark, in the order of the data.

    Raises:
        UserError: if the set is missing or broken, has another number of rows than it must, or names a problem twice.
    """
    if benchmark.path is None and _OWN_NAME.search(benchmark.name):
        file, _, _ = benchmark.name.rpartition("@")
        raise UserError(f"{benchmark.name} is the name of results: give the file itself, benchmarks=[DIR/{file}].")
    if benchmark.name == "arithmetic" and benchmark.hub_id is None:
        drawn = islice(arithmetic.problems("test", _ARITHMETIC_SEED), benchmark.rows)
        problems = [Problem(problem.expression, problem.question, problem.answer) for problem in drawn]
    else:
        rows = (
            read_file(Path(benchmark.path).expanduser())
            if benchmark.path is not None
            else load_rows(benchmark.name, benchmark.split, benchmark.hub_id, benchmark.hub_config, data_dir)
        )
        names = row_names(rows, benchmark.id, benchmark.name)
        problems = [
            _problem(benchmark, row, name, f"{benchmark.name} row {number}")
            for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1)
        ]
    if benchmark.rows is not None and len(problems) != benchmark.rows:
        raise UserError(
            f"benchmark '{benchmark.name}' has {len(problems)} rows here, but must have {benchmark.rows}: "
            "this is another version of the data."
        )
    if len({problem.id for problem in problems}) < len(problems):
        names = [problem.id for problem in problems]
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise UserError(f"benchmark '{benchmark.name}' names problem '{twice}' twice in its column '{benchmark.id}'.")
    return problems[:limit]


def _problem(benchmark: BenchmarkConfig, row: Row, name: str, where: str) -> Problem:
    if benchmark.kind is BenchmarkKind.LABEL:
        example = classification.label_task(benchmark.name).example(row, name, where)
        return Problem(name, example.question, example.completion)
    gold = gold_column(row, benchmark.gold, where)
    if benchmark.gold_after is not None:
        gold = gold.rpartition(benchmark.gold_after)[2].strip()
    return Problem(name, text_column(row, benchmark.question, where), gold, gold_rule(benchmark, row, where))


def gold_rule(benchmark: BenchmarkConfig, row: Row, where: str) -> GoldRule:
    """Return the benchmark's rule with the row's own unit and error.

    Raises:
        UserError: if the error is no number.
    """
    unit = row.get(benchmark.unit) if benchmark.unit is not None else None
    error = row.get(benchmark.error) if benchmark.error is not None else None
    try:
        return GoldRule(benchmark.rule, str(unit or ""), float(error) if error not in (None, "") else None)
    except (TypeError, ValueError) as problem:
        raise UserError(f"{where}: column '{benchmark.error}' must hold a number, not {error!r}.") from problem


def all_questions(data_dir: str | None, download: bool = False) -> tuple[dict[str, list[str]], list[str]]:
    """Read the questions of every maths benchmark; also return the names of those that cannot be read.

    Args:
        data_dir: the mirror.
        download: without a mirror, ask the hub for each; otherwise only generated benchmarks are read then.
    """
    questions, unreachable = {}, []
    for name in choices("benchmark"):
        benchmark = benchmark_config(name)
        if benchmark.kind is BenchmarkKind.LABEL:
            continue
        if data_dir is None and benchmark.hub_id is not None and not download:
            unreachable.append(name)
            continue
        try:
            questions[name] = [problem.question for problem in load_problems(benchmark, data_dir)]
        except UserError:
            unreachable.append(name)
    return questions, unreachable
