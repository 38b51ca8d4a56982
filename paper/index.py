"""Writes the README.md of a folder of reproduced tables: what ran, on what, and every table and figure."""

from collections.abc import Mapping
from pathlib import Path

from ladder_cli.run.directory import RunDir, read_json
from ladder_cli.run.sweep import DONE, SUMMARY_FILE, read_summary
from paper.reported import PAPER, REAL, SMALL, PaperTable

_CAPTIONS = {
    "figure-laws": "The laws of the paper's table 1 as printed; bands: every law that rounds to the printed digits. "
    "Grey: the budgets that were run, under two readings of what D_f counts. Ring: where the two methods are equal.",
    "figure-3a-memory": "The memory axis of figure 3a: predicted peak of one step. Blue bars fit the dotted card.",
    "figure-2": "Figure 2: a point for each run, and the law fitted to them. A shaded band is the law's 95% interval; "
    "a dashed law has none, because its points do not identify the exponent.",
    "figure-3a": "Figure 3a: measured peak memory of training (allocated on a GPU; on a CPU the whole process) against "
    "score. Bars: standard deviation over runs (small points), or with one run its 95% interval over problems.",
    "figure-4": "Figure 4: tokens of every completion, correct and incorrect.",
    "figure-3b": "Figure 3b: predicted peak memory of one training step. Dotted lines: the memory of common cards.",
}

_SIZES = {
    PAPER: "at the paper's size",
    SMALL: "at small size on the embedded model",
    REAL: "on a real small model, with budgets that two processor cores do in about an hour",
}
_WARNINGS = {
    SMALL: "The embedded model has 2.5 million parameters and its task is generated arithmetic: these tables show that "
    "the pipeline works and how it behaves, **not that the paper's findings hold**. `qlora` is LoRA here: a backbone "
    "this small is not quantised.",
    REAL: "Real text, a real tokenizer and a real checkpoint, but an instruct one far smaller than the paper's, and "
    "hundreds of rows in place of hundreds of thousands: differences within the printed intervals are none, and "
    "**nothing here confirms or refutes the paper's numbers**. `qlora` is LoRA here: nothing is quantised on a "
    "processor.",
}


def index(
    folder: Path, scale: str, tables: Mapping[int, PaperTable], commands: Mapping[int, tuple[str, ...] | None]
) -> str:
    """Return the text of README.md.

    Args:
        folder: of the README.md.
        scale: PAPER, SMALL or REAL.
        tables: of the paper, by number.
        commands: that reproduce each table; None if a table has none at this size.
    """
    parts = [
        "# Ladder Up, Memory Down: repeated",
        f"The tables and figures of Zheng et al. (arXiv 2512.14237), {_SIZES[scale]}. Every number below comes from "
        "the runs in this folder, except columns that say *paper* and the memory of figures 3a and 3b, which is "
        "predicted.",
    ]
    parts += [_WARNINGS[scale]] if scale in _WARNINGS else []
    parts += _conditions(folder)
    for number, table in tables.items():
        parts += _section(folder / f"table-{number}", table, commands[number], scale)
    parts += ["## Figures 3a and 3b: memory", *_memory(folder / "memory")]
    parts += ["## Table 1 checked against itself", *_made(folder / "laws", "laws", "figure-laws")]
    parts += ["## The claims", *_made(folder / "claims", "claims")]
    return "\n\n".join(parts) + "\n"


def _section(place: Path, table: PaperTable, commands: tuple[str, ...] | None, scale: str) -> list[str]:
    parts = [f"## Table {table.number}: {table.title}"]
    if commands is None:
        return [*parts, "Not at this size: the package brings no data for it."]
    if scale in table.here:
        parts.append(table.here[scale].strip())
    texts = sorted(place.glob("table-*.md"), key=lambda path: path.stem)
    if not texts:
        parts.append("Not run yet.")
    for text in texts:
        title, _, body = text.read_text().partition("\n")
        if len(texts) > 1:
            parts.append(f"**{title.lstrip('# ')}**")
        links = ", ".join(f"[{kind}]({place.name}/{text.stem}.{kind})" for kind in ("csv", "tex"))
        parts += [body.strip(), f"As {links}."]
    for image in sorted(place.glob("figure-*.png")):
        parts += [f"![{image.stem}]({place.name}/{image.name})", f"*{_caption(image.stem)}*"]
    if commands and table.runs_of is None:
        parts += [*_missing(place / "runs"), "Made by", "```\n" + "\n".join(commands) + "\n```"]
        if (place / "log.txt").is_file():
            parts.append(f"What that printed is in [log.txt]({place.name}/log.txt).")
    else:
        parts.append(f"From the runs of table {table.runs}.")
    return parts


def _missing(runs: Path) -> list[str]:
    """List the runs of a sweep that failed or are missing."""
    rows = [row for row in read_summary(runs / SUMMARY_FILE) if row["status"] != DONE]
    return [f"**Not done:** {row['options']}: {row['status']}, {row['error'] or 'without a word'}" for row in rows]


def _memory(place: Path) -> list[str]:
    if not (place / "memory-3b.md").is_file():
        return ["Not made yet: `python scripts/reproduce.py memory --run`."]
    parts = []
    for text, image in (("memory-3a", "figure-3a-memory"), ("memory-3b", "figure-3b")):
        body = (place / f"{text}.md").read_text().partition("\n")[2].strip()
        parts += [body, f"![{image}]({place.name}/{image}.png)", f"*{_caption(image)}*"]
    return parts


def _made(place: Path, name: str, image: str | None = None) -> list[str]:
    """Return the section of a subcommand's own table and figure."""
    if not (place / f"{name}.md").is_file():
        return [f"Not made yet: `python scripts/reproduce.py {name}`."]
    body = (place / f"{name}.md").read_text().partition("\n")[2].strip()
    return [body, *([f"![{image}]({place.name}/{image}.png)", f"*{_caption(image)}*"] if image else [])]


def _caption(stem: str) -> str:
    return next(text for name, text in _CAPTIONS.items() if stem.startswith(name))


def _conditions(folder: Path) -> list[str]:
    """Return a sentence on machine and versions, from the records of the runs."""
    records = [
        read_json(run.run) | {"seconds": read_json(run.metrics)["wall_seconds"]}
        for run in map(RunDir, sorted(path.parent for path in folder.glob("table-*/runs/*/run.json")))
        if run.status() == "done"
    ]
    if not records:
        return []
    versions = records[0]["versions"]
    devices = ", ".join(sorted({f"{record['device']['name']} ({record['device']['type']})" for record in records}))
    commits = ", ".join(sorted({(record["git_commit"] or "an installed wheel")[:12] for record in records}))
    return [
        f"{len(records)} training runs, {sum(record['seconds'] for record in records) / 60:.0f} minutes in all, on "
        f"{devices}; torch {versions['torch']}, transformers {versions['transformers']}; commit {commits}."
    ]
