r"""Templates over columns: a column's name, `question`, or a text with columns, `{instruction}\n\n{input?}`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import Formatter

from ladder_cli.data.sources import Row, column_of, text_column
from ladder_cli.errors import UserError

# The command line has no line breaks: `\n` stands for one there, `\\n` for the two characters.
_ESCAPES = re.compile(r"\\\\|\\n|\\t")
_MEANT = {"\\\\": "\\", "\\n": "\n", "\\t": "\t"}
_PARAGRAPHS = re.compile(r"(\n{2,})")


@dataclass(frozen=True)
class _Field:
    """A column in a text; `may_be_empty` if it was written with a question mark."""

    column: str
    may_be_empty: bool


_Piece = str | _Field


class ColumnTemplate:
    r"""Makes a text of a row.

    A template without braces is the name of a column. In one with braces each `{column}` is replaced by that column's
    text; `{{` and `}}` stand for braces, `\n` for a line break. A `{column?}` may be empty, null or missing: its
    paragraph (what lies between blank lines) is then left out. Nothing else of Python's format strings is supported.
    """

    def __init__(self, option: str, text: str) -> None:
        """`option` is named in errors.

        Raises:
            UserError: if the text is no such template.
        """
        self._paragraphs: list[list[_Piece]] | None = None
        self._column = text
        if "{" in text or "}" in text:
            self._paragraphs = list(_paragraphs(option, _ESCAPES.sub(lambda found: _MEANT[found.group()], text)))
            if not any(isinstance(piece, _Field) for paragraph in self._paragraphs for piece in paragraph):
                raise UserError(f"{option}={text} names no column: write {{COLUMN}} where its text belongs.")

    def texts(self, rows: Sequence[Row], where: str) -> list[str]:
        """Return `text` of every row; `where` is the set or file in errors.

        Raises:
            UserError: as `text`; or if no row has a column that may be empty, since it is then misspelt.
        """
        for column in self._optional:
            if not any(column in row for row in rows):
                column_of(rows[0], column, f"{where}: no row, and so row 1,")
        return [self.text(row, f"{where}, row {number}") for number, row in enumerate(rows, start=1)]

    @property
    def _optional(self) -> list[str]:
        pieces = (piece for paragraph in self._paragraphs or [] for piece in paragraph)
        return [piece.column for piece in pieces if isinstance(piece, _Field) and piece.may_be_empty]

    def text(self, row: Row, where: str) -> str:
        """Return the text of a row.

        Raises:
            UserError: if a column is missing, no text, or empty where that is not allowed; or if nothing is left.
        """
        if self._paragraphs is None:
            return text_column(row, self._column, where)
        made, kept = "", 0
        for paragraph in self._paragraphs:
            pieces = [_filled(piece, row, where) for piece in paragraph]
            if None in pieces:
                continue
            text = "".join(piece for piece in pieces if piece is not None)
            made += text if kept else text.lstrip("\n")
            kept += 1
        if not made.strip():
            raise UserError(f"{where}: nothing is left of the template, every column in it is empty.")
        return made


def _paragraphs(option: str, text: str) -> Iterator[list[_Piece]]:
    """Yield paragraphs as lists of pieces; the blank lines before a paragraph belong to it."""
    paragraph: list[_Piece] = []
    for piece in _pieces(option, text):
        if isinstance(piece, _Field):
            paragraph.append(piece)
            continue
        for part in _PARAGRAPHS.split(piece):
            if _PARAGRAPHS.fullmatch(part) and paragraph:
                yield paragraph
                paragraph = []
            if part:
                paragraph.append(part)
    if paragraph:
        yield paragraph


def _pieces(option: str, text: str) -> Iterator[_Piece]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"{option}: {error}; braces that are meant as such are written {{{{ and }}}}.") from error
    for literal, name, form, conversion in parsed:
        if literal:
            yield literal
        if name is None:
            continue
        column = name.removesuffix("?")
        if form or conversion or not column or any(mark in column for mark in ".[]?"):
            raise UserError(
                f"{option}: braces hold the plain name of a column, {{question}} or {{input?}} if it may be empty, not "
                f"'{{{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}}}'; braces that are "
                "meant as such are written {{ and }}."
            )
        yield _Field(column, name.endswith("?"))


def _filled(piece: _Piece, row: Row, where: str) -> str | None:
    """Return the text of a piece; None for an empty column that may be empty."""
    if isinstance(piece, str):
        return piece
    if not piece.may_be_empty:
        return _given(row, piece.column, where)
    value = row.get(piece.column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return text_column(row, piece.column, where)


def _given(row: Row, column: str, where: str) -> str:
    value = column_of(row, column, where)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{where}: column '{column}' is empty: write {{{column}?}} if its paragraph may be left out.")
    return text_column(row, column, where)
