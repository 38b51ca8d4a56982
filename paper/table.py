"""Tables of text, and their forms: terminal, Markdown, LaTeX, CSV."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table as RichTable

from ladder_cli.run.directory import write_text

_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"} | {"±": r"$\pm$", "λ": r"$\lambda$"})


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column names the row.

    Attributes:
        notes: sentences that stand under the table.
    """

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"a row of {len(row)} cells under {len(self.headings)} headings: {row}")

    def terminal(self) -> RichTable:
        """Return the table for a rich console."""
        printed = RichTable(title=self.title, box=None, padding=(0, 1), header_style="bold", title_justify="left")
        for number, heading in enumerate(self.headings):
            printed.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            printed.add_row(*row)
        return printed

    def markdown(self) -> str:
        """Return a GitHub table with its notes."""
        lines = [
            f"| {' | '.join(self.headings)} |",
            f"|---|{'---:|' * (len(self.headings) - 1)}",
            *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in self.rows),
        ]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """Return a `tabular` of booktabs, with title and notes as comments."""
        lines = [
            f"% {self.title}",
            *(f"% {note}" for note in self.notes),
            rf"\begin{{tabular}}{{l{'r' * (len(self.headings) - 1)}}}",
            r"\toprule",
            " & ".join(heading.translate(_LATEX) for heading in self.headings) + r" \\",
            r"\midrule",
            *(" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return headings and rows as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.headings, *self.rows])
        return text.getvalue()

    def write(self, folder: Path, name: str) -> None:
        """Write `<name>.md`, `<name>.tex` and `<name>.csv`."""
        write_text(folder / f"{name}.md", f"# {self.title}\n\n{self.markdown()}")
        write_text(folder / f"{name}.tex", self.latex())
        write_text(folder / f"{name}.csv", self.csv())
