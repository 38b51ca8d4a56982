"""Our numbers beside the paper's, cell by cell: the difference, and whether it is inside the noise that it prints."""

from collections.abc import Mapping

from paper.reported import ORIGINAL, PaperTable
from paper.table import Table

Numbers = Mapping[str, Mapping[str, float]]  # by row and column, as in `PaperTable.reported`
_SLACK = 1e-9  # so that a number at the very end of a printed interval is inside it


def beside_the_paper(paper: PaperTable, ours: Numbers) -> list[Table]:
    """The cells that both have, one in a line; and the rows of the paper that nothing of ours stands beside.

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
