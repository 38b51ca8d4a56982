"""The rows of the fault table."""

from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One fault: how often it was tried, what was lost and what was damaged over all tries.

    Attributes:
        note: how it was made to happen, where that is not what the name says.
    """

    fault: str
    tried: int
    lost: int
    damaged: int
    note: str = ""


def printed(rows: list[Row]) -> Table:
    """The table for a terminal."""
    table = Table(box=None, padding=(0, 2))
    for heading in ("fault", "tried", "lost", "damaged", "how"):
        table.add_column(heading, justify="right" if heading in ("tried", "lost", "damaged") else "left")
    for row in rows:
        table.add_row(row.fault, str(row.tried), str(row.lost), str(row.damaged), row.note)
    return table
