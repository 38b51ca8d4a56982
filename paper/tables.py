"""Builds the paper's tables from finished runs, each followed by the paper's numbers and our distance from them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any

from paper.reported import HUBER, ORIGINAL, SCALING, SETTINGS, PaperTable
from paper.runs import Run, by_label
from paper.scaling_law import Fit, Objective, fit, meeting
from paper.table import Table

UNKNOWN = ""
Numbers = Mapping[str, Mapping[str, float]]  # by row and column, as in `PaperTable.reported`
_SLACK = 1e-9  # so that a number at the very end of a printed interval is inside it
_SCORE = {"critic": "pass_at_1", "cola": "matthews", "qqp": "f1"}  # the metric that is usually reported of a label task
_OPEN = "not identified"  # A follows the exponent: without that it is known to no order of magnitude


def build_tables(paper: PaperTable, runs: list[Run], draws: int = 400) -> list[Table]:
    """Build the table; for scaling laws a second one, of where methods meet; then ours beside the paper's.

    Args:
        runs: of the table; methods, seeds and budgets are read from their configs.
        draws: of the bootstrap of scaling laws.
    """
    title = f"Table {paper.number}: {paper.title}"
    ours: dict[str, dict[str, float]] = {}
    if paper.kind == SCALING:
        fits = scaling_fits(runs, draws)
        meetings = _meetings(title, runs, fits)
        tables = [_laws(title, runs, fits), *([meetings] if meetings.rows else [])]
        for name, found in (("", fits), (HUBER, scaling_fits(runs, 1, "huber"))):
            for label, one in found.items():
                law = one.in_compute(flops_per_row(runs, label, "paper")).law
                ours.setdefault(label, {}).update(
                    {f"λ{name}": law.exponent, f"B{name}": law.amplitude, f"E{name}": law.floor}
                )
    elif paper.kind == SETTINGS:
        tables = [_settings(title, runs)]
        for label, group in by_label(run for run in runs if run.metrics).items():
            ours[label] = _settings_of(group[0])
    else:
        tables = [_scores(title, paper, runs)]
        for label, group in by_label(runs).items():
            means = {name: scores_of(name, group) for name in paper.benchmarks}
            ours[label] = {name: mean(values) for name, values in means.items() if values}
    return [*tables, *beside_the_paper(paper, ours)]


def scaling_fits(runs: Iterable[Run], draws: int = 400, objective: Objective = "least_squares") -> dict[str, Fit]:
    """Fit a law in training rows for every backbone and method with runs of at least three budgets."""
    fits = {}
    for label, group in by_label(runs).items():
        points = [(float(run.rows), run.metrics["eval_loss"]) for run in group if run.rows and run.metrics]
        if len({rows for rows, _ in points}) >= 3:
            fits[label] = fit([rows for rows, _ in points], [loss for _, loss in points], objective, draws)
    return fits


def flops_per_row(runs: Iterable[Run], label: str, count: str = "actual") -> float:
    """Return zeta, the mean FLOPs of training on one row."""
    return mean(run.flops_per_row[count] for run in runs if run.label == label and run.metrics)


def _laws(title: str, runs: list[Run], fits: dict[str, Fit]) -> Table:
    rows: list[tuple[str, ...]] = []
    notes = []
    for label, group in by_label(run for run in runs if run.metrics).items():
        measured = [run for run in group if run.rows]
        if label not in fits:
            budgets = len({run.rows for run in measured})
            rows.append((label, str(len(measured)), *[UNKNOWN] * 6))
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
            )
        )
        notes += [f"{label}: {warning}" for warning in found.warnings]
    notes.insert(
        0,
        "L(D) = A / D^λ + E over training rows D, least squares, 95% bootstrap intervals; L(C) = B / C^λ + E over the "
        "FLOPs that are really done, B = A ζ^λ; losses are validation losses.",
    )
    headings = ("", "runs", "A", "λ", "E", "B", "λ, Huber", "loss at twice the rows")
    return Table(title, headings, rows, notes)


def _meetings(title: str, runs: list[Run], fits: dict[str, Fit]) -> Table:
    """Build the table of where two methods on one backbone reach the same loss, in rows and in FLOPs."""
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
    headings = ("", "in", "meet at", "95% interval", "of the draws meet")
    return Table(f"{title}: where two methods meet", headings, rows)


def _budget(value: float) -> str:
    """Format a budget: rows in full, FLOPs as a power."""
    return f"{value:,.0f}" if value < 1e7 else f"{value:.3g}"


def _scores(title: str, paper: PaperTable, runs: list[Run]) -> Table:
    """Build the table of mean and spread over runs, a row for every backbone and method."""
    benchmarks = [name for name in paper.benchmarks if any(name in run.scores for run in runs)]
    # At small size other benchmarks stand in for the paper's.
    benchmarks += sorted({name for run in runs for name in run.scores} - set(benchmarks))
    benchmarks = benchmarks or list(paper.benchmarks)
    headings = ("", "runs", *(cell for name in benchmarks for cell in _score_headings(name)))
    rows: list[tuple[str, ...]] = []
    for label, group in by_label(runs).items():
        cells = [cell for name in benchmarks for cell in _score_cells(name, group)]
        rows.append((label, str(len(group)), *cells))
    notes = ["Mean ± standard deviation over runs (n - 1), or with one run its 95% interval over problems."]
    return Table(title, headings, rows, notes)


def _settings(title: str, runs: list[Run]) -> Table:
    headings = ("", "micro-batch", "accumulation", "learning rate", "trained", "peak memory, GB", "tokens/s", "hours")
    rows: list[tuple[str, ...]] = []
    for label, group in by_label(run for run in runs if run.metrics).items():
        settings = _settings_of(group[0])
        peaks = [run.metrics["peak_memory_bytes"]["measured"] for run in group]
        speeds = [run.metrics["tokens_per_second"] for run in group if run.metrics["tokens_per_second"]]
        rows.append(
            (
                label,
                *(f"{settings[name]:g}" for name in ("micro-batch", "accumulation", "learning rate")),
                f"{group[0].metrics['trainable_parameters']:,}",
                f"{max(peaks) / 1e9:.2f}" if all(peaks) else UNKNOWN,
                f"{mean(speeds):,.0f}" if speeds else UNKNOWN,
                f"{sum(run.metrics['wall_seconds'] for run in group) / 3600:.2f}",
            )
        )
    notes = ["Peak memory of the largest run: allocated on a GPU, the whole process on a CPU. Hours: of all runs."]
    return Table(title, headings, rows, notes)


def _settings_of(run: Run) -> dict[str, float]:
    train = run.config["train"]
    accumulation = train["gradient_accumulation"] or train["global_batch_size"] // train["micro_batch_size"]
    rate = train["learning_rate"]
    if rate is None:
        rate = run.config["method"]["learning_rate"] * run.config["model"]["learning_rate_scale"]
    return {
        "micro-batch": train["micro_batch_size"],
        "accumulation": accumulation,
        "batch": train["micro_batch_size"] * accumulation,
        "learning rate": rate,
    }


def score_heading(benchmark: str) -> str:
    """Return the name of a benchmark with the unit of its score."""
    metric = _SCORE.get(benchmark, "pass_at_1")
    unit = "%" if metric == "pass_at_1" else metric.replace("matthews", "MCC").upper()
    return f"{benchmark}, {unit}"


def _score_headings(benchmark: str) -> tuple[str, ...]:
    # A label is one word: its length says nothing.
    return (score_heading(benchmark), *(() if benchmark in _SCORE else (f"{benchmark}: tokens right / wrong",)))


def _unit(benchmark: str) -> tuple[str, float, int]:
    """Return the metric that is reported of a benchmark, its factor, and its digits after the point."""
    metric = _SCORE.get(benchmark, "pass_at_1")
    return (metric, 100, 1) if metric == "pass_at_1" else (metric, 1, 3)


def scores_of(benchmark: str, runs: Sequence[Run]) -> list[float]:
    """Return the score of each run in the unit of the heading."""
    metric, scale, _ = _unit(benchmark)
    metrics = [run.scores[benchmark] for run in runs if benchmark in run.scores]
    return [scale * each[metric] for each in metrics if each[metric] is not None]


def score_interval(benchmark: str, run: Run) -> tuple[float, float] | None:
    """Return the 95% interval over problems, in the unit of the heading; None where the metric has none."""
    metric, scale, _ = _unit(benchmark)
    name = {"pass_at_1": "ci95", "matthews": "matthews_ci95"}.get(metric)
    ends = run.scores[benchmark].get(name) if name is not None else None
    return None if ends is None else (scale * ends[0], scale * ends[1])


def _score_cells(benchmark: str, runs: list[Run]) -> tuple[str, ...]:
    metrics: list[dict[str, Any]] = [run.scores[benchmark] for run in runs if benchmark in run.scores]
    values = scores_of(benchmark, runs)
    if not values:
        return (UNKNOWN,) * len(_score_headings(benchmark))
    _, _, digits = _unit(benchmark)
    score = f"{mean(values):.{digits}f}"
    (first, *_) = (run for run in runs if benchmark in run.scores)
    if len(values) > 1:
        score += f" ± {stdev(values):.{digits}f}"
    elif (interval := score_interval(benchmark, first)) is not None:
        low, high = interval
        score += f" ({low:.{digits}f} to {high:.{digits}f})"
    if benchmark in _SCORE:
        return (score,)
    lengths = [
        _mean_or_dash(each[name] for each in metrics) for name in ("mean_tokens_correct", "mean_tokens_incorrect")
    ]
    return score, " / ".join(lengths)


def _mean_or_dash(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.0f}" if known else "-"


def _with_interval(value: float, interval: tuple[float, float], form: str = ".3g") -> str:
    low, high = interval
    return f"{value:{form}}" if low != low else f"{value:{form}} ({low:{form}} to {high:{form}})"


def beside_the_paper(paper: PaperTable, ours: Numbers) -> list[Table]:
    """Compare our numbers with the paper's, a line for each cell that both have, and list the paper's other rows.

    A line gives the difference, and whether it is inside the noise that the paper prints.

    Args:
        ours: in the paper's own units.
    """
    tables = []
    lines = [
        _line(paper, label, column, ours[label][column.removesuffix(ORIGINAL)])
        for label, row in paper.reported.items()
        for column in row
        if column.removesuffix(ORIGINAL) in ours.get(label, {})
    ]
    if lines:
        inside, judged = (sum(line[-1] in words for line in lines) for words in (("yes",), ("yes", "no")))
        notes = [
            f"{inside} of {judged} cells with printed noise are inside it; noise: {paper.noise or 'none is printed'}."
        ]
        headings = ("", "number", "ours", "paper", "ours - paper", "inside the noise")
        tables.append(Table(f"Table {paper.number}: ours beside the paper's", headings, lines, notes))
    rest = [label for label, row in paper.reported.items() if not set(row) & set(ours.get(label, {}))]
    if rest:
        columns = list(dict.fromkeys(column for label in rest for column in paper.reported[label]))
        rows = []
        for label in rest:
            cells = (str(paper.reported[label].get(column, "-")) for column in columns)
            rows.append((label, *cells, paper.protocols.get(label, "")))
        notes = ["Nothing of ours has this backbone and method here: there is nothing to compare."]
        title = f"Table {paper.number}: what the paper reports of rows that were not run here"
        tables.append(Table(title, ("", *columns, "protocol"), rows, notes))
    return tables


def _line(paper: PaperTable, label: str, column: str, ours: float) -> tuple[str, ...]:
    theirs = paper.reported[label][column]
    band = theirs.band
    if label in paper.protocols:
        verdict = f"another protocol: {paper.protocols[label]}"
    elif band is None:
        verdict = "no noise printed"
    else:
        verdict = "yes" if band[0] - _SLACK <= ours <= band[1] + _SLACK else "no"
    return label, column, f"{ours:.4g}", str(theirs), f"{ours - theirs.value:+.3g}", verdict
