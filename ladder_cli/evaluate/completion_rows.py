"""The rows of `ladder-eval completions=FILE`: which columns count, what they may hold, and what is wrong with them.

    gold            the answer that is right: text, number, or a list of them
    completion      the text that is graded, or a list of texts: several completions of the problem
    id              text or whole number; without one, the row's number. Rows with the same id are completions of one
                    problem, and have the same gold
    benchmark       whose rule the gold is read by; figures are given for each
    rule            the rule itself (`choices.GoldReading`), where `benchmark` is one's own name or missing
    unit            that the answer may be written with
    error           absolute difference that a numerical answer may have
    finish_reason, stop_reason   why the completion ended, in the words of the tools that are listed below
    tokens          how many it has
    prompt, question_digest      kept with the sample

Null and empty text are the same as no column. Other columns are left alone. A sample of ours is such a row, too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ladder_cli.config.choices import BenchmarkKind, GoldReading
from ladder_cli.data.benchmarks import benchmark_config
from ladder_cli.data.gold import EXPRESSION, PHYSICAL, GoldRule, gold_column, row_names
from ladder_cli.data.sources import Row, read_file
from ladder_cli.errors import UserError
from ladder_cli.generate.engine import LENGTH, STOP, Completion, Prompt
from ladder_cli.run.directory import SETTINGS, read_json

# How OpenAI, vLLM, SGLang, TGI, Anthropic, Mistral and Gemini say that a completion ended by itself, or was cut off:
# compared without regard to case.
ENDED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "completed")
CUT_OFF: tuple[str, ...] = (
    "length",
    "max_tokens",
    "max_new_tokens",
    "max_length",
    "max_output_tokens",
    "model_length",
    "abort",
)
CUT_OFF += ("content_filter",)
# Messages of rows that are wrong after the first one.
_NAMED = 10


@dataclass(frozen=True)
class CompletionRow:
    """One completion of one problem.

    Attributes:
        problem: the id.
        number: of this completion among those of its problem, from 1.
        stop_reason: `stop`, `length` or None: not known.
        question_digest: of a sample of ours, a hash of its question.
        before: of a sample, the verdict and answer it had.
        row: where it stands in the file, from 1.
    """

    problem: str
    number: int
    benchmark: str | None
    gold: str
    rule: GoldRule
    text: str
    stop_reason: str | None
    tokens: int | None
    prompt: Any
    question_digest: str | None
    before: tuple[str, str | None] | None
    row: int

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all others of the file."""
        return self.problem, self.number

    def as_completion(self) -> Completion:
        """As an engine hands it out; the prompt's id is that of the completion within the file."""
        text = self.prompt if isinstance(self.prompt, str) else ""
        return Completion(Prompt(f"{self.problem} #{self.number}", text), self.text, self.tokens, self.stop_reason)


def read_completions(path: Path) -> tuple[list[CompletionRow], int]:
    """All completions of a file, in its order, checked before any is graded.

    Returns:
        The completions, and how many rows are the same as an earlier one in every column.

    Raises:
        UserError: if the file cannot be read; or one line for the first row that is wrong, which also numbers others.
    """
    rows = read_file(path)
    names = row_names(rows, "id", str(path))
    rule_of_folder = _rule_of_folder(path)
    found: list[CompletionRow] = []
    wrong: list[tuple[int, str]] = []
    first: dict[str, CompletionRow] = {}
    count: dict[str, int] = {}
    for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1):
        where = f"{path}, row {number}"
        try:
            for completion in _completions(row, name, number, where, rule_of_folder):
                earlier = first.setdefault(name, completion)
                _same_problem(completion, earlier, where)
                count[name] = count.get(name, 0) + 1
                found.append(_numbered(completion, count[name]))
        except UserError as error:
            wrong.append((number, str(error)))
    if wrong:
        others = ", ".join(str(number) for number, _ in wrong[1 : _NAMED + 1])
        more = ", ..." if len(wrong) > _NAMED + 1 else ""
        raise UserError(wrong[0][1] + (f" Wrong too: {len(wrong) - 1} row(s) ({others}{more})." if others else ""))
    return found, _repeated_rows(rows)


def _completions(row: Row, name: str, number: int, where: str, rule_of_folder: str | None) -> list[CompletionRow]:
    texts = _texts(row, where)
    benchmark, rule, gold = _gold(row, where, rule_of_folder)
    prompt, before = row.get("prompt"), _before(row)
    digest = _optional_text(row, "question_digest", where)
    stop_reason, tokens = _stop_reason(row, where), _tokens(row, where)
    if len(texts) > 1 and (stop_reason is not None or tokens is not None):
        raise UserError(
            f"{where}: 'tokens' and 'stop_reason' are of one completion, but 'completion' lists {len(texts)}: give a "
            "row to each, with the same id."
        )
    return [
        CompletionRow(name, 0, benchmark, gold, rule, text, stop_reason, tokens, prompt, digest, before, number)
        for text in texts
    ]


def _numbered(completion: CompletionRow, number: int) -> CompletionRow:
    return replace(completion, number=number)


def _texts(row: Row, where: str) -> list[str]:
    if "completion" not in row:
        raise UserError(
            f"{where} has no column 'completion'; it has: {', '.join(map(str, row))}. A row needs 'gold' and "
            "'completion'."
        )
    value = row["completion"]
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where} has no text in column 'completion' (a text, or a list of texts).")
    return texts


def _gold(row: Row, where: str, rule_of_folder: str | None) -> tuple[str | None, GoldRule, str]:
    """Benchmark, rule and gold."""
    gold = gold_column(row, "gold", where)
    name, rule_name = _optional_text(row, "benchmark", where), _optional_text(row, "rule", where)
    if rule_name is not None and rule_name not in list(GoldReading):
        raise UserError(f"{where}: no rule '{rule_name}'. Choose from: {', '.join(GoldReading)}.")
    # A sample of one's own FILE.jsonl carries a name that no benchmark has; its folder says by which rule.
    rule_name = rule_name or (rule_of_folder if "verdict" in row else None)
    try:
        benchmark = benchmark_config(name) if name is not None else None
    except UserError as error:
        if rule_name is None:
            raise UserError(f"{where}: {error}") from error
        benchmark = None
    if benchmark is None:
        rule_name = rule_name or EXPRESSION
    elif benchmark.kind is BenchmarkKind.LABEL:
        raise UserError(f"{where}: '{benchmark.name}' is a label task, which has no completions to grade.")
    elif row.get("rule") not in (None, "", benchmark.rule) and "verdict" not in row:
        raise UserError(f"{where}: benchmark '{name}' has the rule '{benchmark.rule}', not '{rule_name}'.")
    else:
        rule_name = benchmark.rule
        if benchmark.gold_after is not None:
            gold = gold.rpartition(benchmark.gold_after)[2].strip()
    unit, tolerance = _optional_text(row, "unit", where), _tolerance(row, where)
    if rule_name == PHYSICAL and tolerance is not None:
        raise UserError(f"{where}: the rule '{PHYSICAL}' has a tolerance of its own: leave out 'error', or the rule.")
    return name, GoldRule(GoldReading(rule_name), unit or "", tolerance), gold


def _tolerance(row: Row, where: str) -> float | None:
    value = row.get("error")
    if value in (None, ""):
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise UserError(f"{where}: column 'error' must hold a number of at least 0, not {value!r}.")
    return number


def _stop_reason(row: Row, where: str) -> str | None:
    """`stop`, `length` or None. Where `finish_reason` says why, vLLM's `stop_reason` is what it stopped at."""
    finished = _reason(row, "finish_reason", where)
    if finished == STOP and isinstance(row.get("stop_reason"), str | int | None):
        return STOP
    stopped = _reason(row, "stop_reason", where)
    if None not in (finished, stopped) and finished != stopped:
        raise UserError(
            f"{where}: finish_reason {row['finish_reason']!r} contradicts stop_reason {row['stop_reason']!r}."
        )
    return finished or stopped


def _reason(row: Row, column: str, where: str) -> str | None:
    value = row.get(column)
    if value in (None, ""):
        return None
    word = value.lower() if isinstance(value, str) else None
    if word in ENDED:
        return STOP
    if word in CUT_OFF:
        return LENGTH
    raise UserError(
        f"{where}: unknown {column} {value!r}. Known: {', '.join(ENDED)} (it ended), {', '.join(CUT_OFF)} (it was cut "
        "off), null."
    )


def _tokens(row: Row, where: str) -> int | None:
    value = row.get("tokens")
    match value:
        case None | "":
            return None
        case bool():
            pass
        case int() if value >= 0:
            return value
        case float() if value.is_integer() and value >= 0:
            return int(value)
        # CSV knows nothing but texts.
        case str() if value.isascii() and value.isdigit():
            return int(value)
    raise UserError(f"{where}: column 'tokens' must hold a whole number of at least 0, not {value!r}.")


def _before(row: Row) -> tuple[str, str | None] | None:
    verdict, answer = row.get("verdict"), row.get("answer")
    if not isinstance(verdict, str) or not isinstance(answer, str | None):
        return None
    return verdict, answer


def _optional_text(row: Row, column: str, where: str) -> str | None:
    value = row.get(column)
    if value in (None, ""):
        return None
    if not isinstance(value, str):
        raise UserError(f"{where}: column '{column}' must hold a text, not {value!r}.")
    return value


def _rule_of_folder(path: Path) -> str | None:
    """Of a file of samples, the rule that its folder's settings record."""
    settings = path.parent / SETTINGS
    rule = read_json(settings).get("rule") if settings.is_file() else None
    return rule if rule in list(GoldReading) else None


_SAME: dict[str, Callable[[CompletionRow], Any]] = {
    "gold": lambda completion: completion.gold,
    "benchmark": lambda completion: completion.benchmark,
    "rule, unit or error": lambda completion: completion.rule,
}


def _same_problem(completion: CompletionRow, earlier: CompletionRow, where: str) -> None:
    for what, value in _SAME.items():
        if value(completion) != value(earlier):
            raise UserError(
                f"{where}: id '{completion.problem[:80]}' stands in row {earlier.row} with another {what}: completions "
                "of one problem share them; give other problems other ids."
            )


def _repeated_rows(rows: list[Row]) -> int:
    return len(rows) - len({repr(sorted(row.items(), key=lambda item: str(item[0]))) for row in rows})
