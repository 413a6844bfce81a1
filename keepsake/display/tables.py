"""Rows and columns: widths, alignment and colour. What stands in them is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from keepsake.display.text import width
from keepsake.repository.layout import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from datetime import datetime

Style: TypeAlias = Callable[[str, str], str]
"""Colours a text: called with the text and a name such as ``green`` or ``bold green``."""

GAP = "  "

STATUS_STYLES = {"running": "cyan", "stopped": "", "failed": "red"}


def plain(text: str, style: str) -> str:
    """Return the text without any colour."""
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How something is to look.

    Args:
        now: The present moment, which ages are counted to.
        width: Terminal columns; None for a pipe or a file, which gets everything uncut and times in ISO 8601.
        every: Whether to show what is left out otherwise.
        short: How many characters of an ID are shown; see `short_length`.
        style: How to colour.
    """

    now: datetime
    width: int | None = None
    every: bool = False
    short: int = SHORT_ID_LENGTH
    style: Style = plain


def short_length(ids: Sequence[str]) -> int:
    """Return how many characters of an ID tell all of these apart: 7, and more only where that is not enough."""
    length = SHORT_ID_LENGTH
    for one, other in pairwise(sorted(set(ids))):
        while one[:length] == other[:length]:
            length += 1
    return length


@dataclass(eq=False)
class Column:
    """One column of a table.

    Args:
        heading: Its heading.
        cells: One text for each row.
        keep: Columns with the lowest rank stay longest where not all fit; rank 0 always stays. Ties go by the second number.
        styles: Name of the style for each row, "" for none; empty for none at all.
        right: Whether the cells stand at its right edge.
    """

    heading: str
    cells: list[str]
    keep: tuple[int, int] = (0, 0)
    styles: list[str] = field(default_factory=list)
    right: bool = False

    @property
    def width(self) -> int:
        """Its width in terminal columns."""
        return max(width(text) for text in (self.heading, *self.cells))


def fitting(columns: Sequence[Column], limit: int | None) -> list[Column]:
    """Return the columns that fit into a width, in their order; the others are left out whole.

    The most important ones are taken first. One that does not fit any more does not keep a narrower one from being shown.

    Args:
        columns: All columns.
        limit: Width in terminal columns; None for any.
    """
    kept = [column for column in columns if not column.keep[0]]
    for column in sorted((column for column in columns if column.keep[0]), key=lambda column: column.keep):
        if limit is None or _total([*kept, column]) <= limit:
            kept.append(column)
    return [column for column in columns if column in kept]


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def lines(columns: Sequence[Column], style: Style = plain, *, headings: bool = True) -> list[str]:
    """Return a table as lines of text.

    Args:
        columns: Columns of equal length.
        style: How to colour.
        headings: Whether the headings are the first line.
    """
    rows = [[column.heading for column in columns]] if headings else []
    rows += [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    styles = [["" for _ in columns]] if headings else []
    styles += [list(row) for row in zip(*(column.styles or [""] * len(column.cells) for column in columns), strict=True)]
    return [_line(row, row_styles, columns, style) for row, row_styles in zip(rows, styles, strict=True)]


def _line(cells: Sequence[str], styles: Sequence[str], columns: Sequence[Column], style: Style) -> str:
    parts = []
    for index, (cell, name, column) in enumerate(zip(cells, styles, columns, strict=True)):
        padding = " " * (column.width - width(cell))
        text = style(cell, name) if name else cell
        last = index == len(columns) - 1
        parts.append(padding + text if column.right else text if last else text + padding)
    return GAP.join(parts).rstrip()
