"""The paper's tables out of finished runs, each with the paper's own numbers beside where they are known."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any

from ladder_cli.analysis.paper import SCALING, SETTINGS, PaperTable
from ladder_cli.analysis.runs import Run, by_label
from ladder_cli.analysis.scaling_law import Fit, PowerLaw, crossings, fit, meeting
from ladder_cli.analysis.tables import Table

UNKNOWN = ""
_SCORE = {"critic": "pass_at_1", "cola": "matthews", "qqp": "f1"}  # what a label task is usually told by
_OPEN = "not identified"  # A follows the exponent: without that it is known to no order of magnitude
_LAW = ("A", "λ", "E")
_REFERENCE = "paper: "
_NOT_KNOWN = "The paper's own numbers for these rows are not known here, so there is no column for them."


def build_tables(paper: PaperTable, runs: list[Run], draws: int = 400) -> list[Table]:
    """The table (and for scaling laws a second one, where the methods meet).

    Args:
        runs: of the table; methods, seeds and budgets are told apart by what their configs say.
        draws: of the bootstrap of scaling laws.
    """
    title = f"Table {paper.number}: {paper.title}"
    if paper.kind == SCALING:
        fits = scaling_fits(runs, draws)
        meetings = _meetings(title, paper, runs, fits)
        tables = [_laws(title, paper, runs, fits), *([meetings] if meetings.rows else [])]
    elif paper.kind == SETTINGS:
        tables = [_settings(title, paper, runs)]
    else:
        tables = [_scores(title, paper, runs)]
    tables[0] = _with_known_references(tables[0])
    referred = any(heading.startswith(_REFERENCE) for heading in tables[0].headings)
    tables[0].notes.append(paper.source.strip() if referred else _NOT_KNOWN)
    if paper.numbered == "assumed":
        tables[0].notes.append(
            f"That this is the paper's table {paper.number} is assumed from the order of its sections."
        )
    return tables


def _with_known_references(table: Table) -> Table:
    """Without the columns of the paper that hold nothing."""
    kept = [
        number
        for number, heading in enumerate(table.headings)
        if not heading.startswith(_REFERENCE) or any(row[number] for row in table.rows)
    ]
    rows = [tuple(row[number] for number in kept) for row in table.rows]
    return Table(table.title, tuple(table.headings[number] for number in kept), rows, table.notes)


def scaling_fits(runs: Iterable[Run], draws: int = 400) -> dict[str, Fit]:
    """A law in training rows for every backbone and method with runs of at least three budgets."""
    fits = {}
    for label, group in by_label(runs).items():
        points = [(float(run.rows), run.metrics["eval_loss"]) for run in group if run.rows and run.metrics]
        if len({rows for rows, _ in points}) >= 3:
            fits[label] = fit([rows for rows, _ in points], [loss for _, loss in points], draws=draws)
    return fits


def stated_laws(paper: PaperTable) -> dict[str, PowerLaw]:
    """The paper's own laws in training rows, by backbone and method; those that `assets/paper.yaml` holds."""
    return {
        label: PowerLaw(*(row[name] for name in _LAW))
        for label, row in paper.reported.items()
        if all(name in row for name in _LAW)
    }


def flops_per_row(runs: Iterable[Run], label: str, count: str = "actual") -> float:
    """zeta: mean FLOPs of training on one row."""
    return mean(run.flops_per_row[count] for run in runs if run.label == label and run.metrics)


def _laws(title: str, paper: PaperTable, runs: list[Run], fits: dict[str, Fit]) -> Table:
    rows: list[tuple[str, ...]] = []
    notes = []
    for label, group in by_label(run for run in runs if run.metrics).items():
        measured = [run for run in group if run.rows]
        if label not in fits:
            budgets = len({run.rows for run in measured})
            rows.append((label, str(len(measured)), *[UNKNOWN] * 6, *_reported(paper, label, _LAW)))
            notes.append(f"{label}: runs of {budgets} budget(s); a law needs three.")
            continue
        found = fits[label]
        points = [(float(run.rows or 0), run.metrics["eval_loss"]) for run in measured]
        robust = fit([x for x, _ in points], [y for _, y in points], "huber", draws=1).law.exponent
        loss, interval = found.predict(2 * found.budgets[1])
        in_compute = found.in_compute(flops_per_row(runs, label))
        rows.append(
            (
                label,
                str(len(measured)),
                _with_interval(found.law.amplitude, found.interval("amplitude")) if found.identified else _OPEN,
                _with_interval(found.law.exponent, found.interval("exponent"), ".3f"),
                _with_interval(found.law.floor, found.interval("floor"), ".3f"),
                f"{in_compute.law.amplitude:.3g}" if found.identified else _OPEN,
                f"{robust:.3f}",
                _with_interval(loss, interval, ".3f"),
                *_reported(paper, label, _LAW),
            )
        )
        notes += [f"{label}: {warning}" for warning in found.warnings]
    notes.insert(
        0,
        "L(D) = A / D^λ + E over training rows D, least squares, 95% bootstrap intervals; L(C) = B / C^λ + E over the "
        "FLOPs that are really done, B = A ζ^λ; losses are validation losses.",
    )
    headings = (
        *("", "runs", "A", "λ", "E", "B", "λ, Huber", "loss at twice the rows"),
        *(f"{_REFERENCE}{name}" for name in _LAW),
    )
    return Table(title, headings, rows, notes)


def _meetings(title: str, paper: PaperTable, runs: list[Run], fits: dict[str, Fit]) -> Table:
    """Where two methods on one backbone reach the same loss, in rows and in FLOPs; the paper's own laws at the end."""
    models = {run.label: run.model for run in runs}
    rows: list[tuple[str, ...]] = []
    for first, second in combinations(fits, 2):
        if models[first] != models[second]:
            continue
        in_rows = meeting(fits[first], fits[second])
        one, other = (fits[label].in_compute(flops_per_row(runs, label)) for label in (first, second))
        in_flops = meeting(one, other)
        for unit, found in (("rows", in_rows), ("FLOPs", in_flops)):
            where = " and ".join(map(_budget, found.budgets)) or "nowhere within 1,000 times the range"
            if not (one.identified and other.identified):
                where += f" ({_OPEN})"
            interval = " to ".join(map(_budget, found.interval)) if found.interval else "-"
            rows.append((f"{first} = {second}", unit, where, interval, f"{found.share:.0%}"))
    stated = stated_laws(paper)
    for first, second in combinations(stated, 2):
        if first.split()[0] == second.split()[0]:
            budgets = crossings(stated[first], stated[second], 1e3, 1e9)
            where = " and ".join(map(_budget, budgets)) or "nowhere from 1e3 to 1e9"
            rows.append((f"paper: {first} = {second}", "rows", where, "-", "-"))
    headings = ("", "in", "meet at", "95% interval", "of the draws meet")
    return Table(f"{title}: where two methods meet", headings, rows)


def _budget(value: float) -> str:
    """Rows in full, FLOPs as a power."""
    return f"{value:,.0f}" if value < 1e7 else f"{value:.3g}"


def _scores(title: str, paper: PaperTable, runs: list[Run]) -> Table:
    """Mean and spread over runs, a row for every backbone and method."""
    benchmarks = [name for name in paper.benchmarks if any(name in run.scores for run in runs)]
    # At laptop size other benchmarks stand in for the paper's.
    benchmarks += sorted({name for run in runs for name in run.scores} - set(benchmarks))
    benchmarks = benchmarks or list(paper.benchmarks)
    known = [name for name in benchmarks if any(name in row for row in paper.reported.values())]
    headings = (
        *("", "runs"),
        *(cell for name in benchmarks for cell in _score_headings(name)),
        *(f"{_REFERENCE}{name}" for name in known or benchmarks),
    )
    rows = []
    for label, group in by_label(runs).items():
        cells = [cell for name in benchmarks for cell in _score_cells(name, group)]
        rows.append((label, str(len(group)), *cells, *_reported(paper, label, known or benchmarks)))
    ours = {run.label for run in runs}
    for label in paper.reported:
        if label not in ours and known:
            ours_unknown = [UNKNOWN] * (len(headings) - len(known) - 1)
            rows.append((label, *ours_unknown, *_reported(paper, label, known)))
    notes = ["Mean ± standard deviation over runs (n - 1), or with one run its 95% interval over problems."]
    return Table(title, headings, rows, notes)


def _settings(title: str, paper: PaperTable, runs: list[Run]) -> Table:
    headings = (
        *("", "micro-batch", "accumulation", "learning rate", "trained", "peak memory, GB", "tokens/s"),
        *("paper: micro-batch", "paper: accumulation"),
    )
    rows: list[tuple[str, ...]] = []
    for label, group in by_label(run for run in runs if run.metrics).items():
        train = group[0].config["train"]
        accumulation = train["gradient_accumulation"] or train["global_batch_size"] // train["micro_batch_size"]
        rate = train["learning_rate"]
        if rate is None:
            rate = group[0].config["method"]["learning_rate"] * group[0].config["model"]["learning_rate_scale"]
        peaks = [run.metrics["peak_memory_bytes"]["measured"] for run in group]
        speeds = [run.metrics["tokens_per_second"] for run in group if run.metrics["tokens_per_second"]]
        rows.append(
            (
                label,
                str(train["micro_batch_size"]),
                str(accumulation),
                f"{rate:g}",
                f"{group[0].metrics['trainable_parameters']:,}",
                f"{max(peaks) / 1e9:.2f}" if all(peaks) else UNKNOWN,
                f"{mean(speeds):,.0f}" if speeds else UNKNOWN,
                *_reported(paper, label, ["micro-batch", "accumulation"]),
            )
        )
    ours = {row[0] for row in rows}
    for label in paper.reported:
        if label not in ours:
            rows.append((label, *[UNKNOWN] * 6, *_reported(paper, label, ["micro-batch", "accumulation"])))
    notes = ["Peak memory of the largest run: allocated on a GPU, the whole process on a CPU."]
    return Table(title, headings, rows, notes)


def _score_headings(benchmark: str) -> tuple[str, ...]:
    metric = _SCORE.get(benchmark, "pass_at_1")
    unit = "%" if metric == "pass_at_1" else metric.replace("matthews", "MCC").upper()
    # A label is one word: its length says nothing.
    return (f"{benchmark}, {unit}", *(() if benchmark in _SCORE else (f"{benchmark}: tokens right / wrong",)))


def _score_cells(benchmark: str, runs: list[Run]) -> tuple[str, ...]:
    figures: list[dict[str, Any]] = [run.scores[benchmark] for run in runs if benchmark in run.scores]
    if not figures:
        return (UNKNOWN,) * len(_score_headings(benchmark))
    metric = _SCORE.get(benchmark, "pass_at_1")
    scale, digits = (100, 1) if metric == "pass_at_1" else (1, 3)
    values = [scale * figure[metric] for figure in figures if figure[metric] is not None]
    if not values:
        return (UNKNOWN,) * len(_score_headings(benchmark))
    score = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        score += f" ± {stdev(values):.{digits}f}"
    elif metric == "pass_at_1":
        low, high = figures[0]["ci95"]
        score += f" ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
    if benchmark in _SCORE:
        return (score,)
    lengths = [
        _mean_or_dash(figure[name] for figure in figures) for name in ("mean_tokens_correct", "mean_tokens_incorrect")
    ]
    return score, " / ".join(lengths)


def _mean_or_dash(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.0f}" if known else "-"


def _reported(paper: PaperTable, label: str, columns: Sequence[str]) -> Iterator[str]:
    row = paper.reported.get(label, {})
    return (f"{row[column]:g}" if column in row else UNKNOWN for column in columns)


def _with_interval(value: float, interval: tuple[float, float], form: str = ".3g") -> str:
    low, high = interval
    return f"{value:{form}}" if low != low else f"{value:{form}} ({low:{form}} to {high:{form}})"
