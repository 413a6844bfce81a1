"""Rows and columns: widths, alignment and colour. What stands in them is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from keepsake.display.text import width

Style: TypeAlias = Callable[[str, str], str]
"""Colours a text: called with the text and a name such as ``green`` or ``bold green``."""

GAP = "  "


def plain(text: str, style: str) -> str:
    """Return the text without any colour."""
    return text


@dataclass
class Column:
    """One column of a table.

    Args:
        heading: Its heading.
        cells: One text for each row.
        keep: Columns with the lowest number stay longest where not all fit; 0 always stays.
        styles: Name of the style for each row, "" for none; empty for none at all.
        right: Whether the cells stand at its right edge.
    """

    heading: str
    cells: list[str]
    keep: int = 0
    styles: list[str] = field(default_factory=list)
    right: bool = False

    @property
    def width(self) -> int:
        """Its width in terminal columns."""
        return max(width(text) for text in (self.heading, *self.cells))


def fitting(columns: Sequence[Column], limit: int | None) -> list[Column]:
    """Return the columns that fit into a width, in their order; whole columns are dropped, the least important first.

    Args:
        columns: All columns.
        limit: Width in terminal columns; None for any.
    """
    kept = list(columns)
    while limit is not None and _total(kept) > limit and any(column.keep for column in kept):
        kept.remove(max(reversed(kept), key=lambda column: column.keep))
    return kept


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
