"""Rows and columns: widths, alignment and colour. What stands in them is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

from keepsake.display.text import plural, width
from keepsake.repository.layout import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from datetime import datetime

Style: TypeAlias = Callable[[str, str], str]
"""Colours a text: called with the text and a name such as ``green`` or ``bold green``."""

GAP = "  "

HIDDEN_NAMED = 6
"""So many columns that did not fit are named: what is said of a table must not be longer than the table."""

UNLIMITED = 1 << 30
"""The width of a terminal on which everything may be shown."""

STATUS_STYLES = {"running": "cyan", "stopped": "", "failed": "red"}


def plain(text: str, style: str) -> str:
    """Return the text without any colour."""
    return text


class View(NamedTuple):
    """How something is to look.

    Args:
        now: The present moment, which ages are counted to.
        width: Terminal columns; None for a pipe or a file, which gets everything uncut and times in ISO 8601.
        every: Whether to show what is left out otherwise.
        short: How many characters of an ID are shown; see `short_length`.
        style: How to colour.
        unicode: Whether blocks and lines can be drawn; ASCII characters stand for them otherwise.
        flags: Whether to name the options of the command line that show more.
    """

    now: datetime
    width: int | None = None
    every: bool = False
    short: int = SHORT_ID_LENGTH
    style: Style = plain
    unicode: bool = True
    flags: bool = True

    def more(self, count: int, flag: str) -> str:
        """Return the line that stands for what is left out, such as ``… 6 more: --all``."""
        return f"… {count} more: {flag}" if self.flags else f"… {count} more"

    @property
    def is_short(self) -> bool:
        """Whether long sections are shortened: a person at a terminal is to see the whole page, a program gets all there is."""
        return self.width is not None and not self.every


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

    @cached_property
    def width(self) -> int:
        """Its width in terminal columns."""
        texts = (self.heading, *self.cells)
        return max(map(len if all(map(str.isascii, texts)) else width, texts))

    def last(self, count: int) -> Self:
        """Return the same column with its last rows only."""
        start = max(len(self.cells) - count, 0)
        return replace(self, cells=self.cells[start:], styles=self.styles[start:])


def fitting(columns: Sequence[Column], limit: int | None) -> list[Column]:
    """Return the columns that fit into a width, in their order; the others are left out whole.

    The most important ones are taken first. One that does not fit any more does not keep a narrower one from being shown.

    Args:
        columns: All columns.
        limit: Width in terminal columns; None for any.
    """
    kept = [column for column in columns if not column.keep[0]]
    for column in sorted((column for column in columns if column.keep[0]), key=lambda column: column.keep):
        if limit is None or total_width([*kept, column]) <= limit:
            kept.append(column)
    return [column for column in columns if column in kept]


def hidden_columns(columns: Sequence[Column], fitted: Sequence[Column]) -> str:
    """Return how many columns did not fit and which, "" for none."""
    hidden = [column.heading.lower() for column in columns if column not in fitted]
    more = f" … {len(hidden) - HIDDEN_NAMED} more" if len(hidden) > HIDDEN_NAMED else ""
    return f"{plural(len(hidden), 'column')} hidden: {', '.join(hidden[:HIDDEN_NAMED])}{more}" if hidden else ""


def total_width(columns: Sequence[Column]) -> int:
    """Return how many terminal columns a table takes."""
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def lines(columns: Sequence[Column], style: Style = plain, *, headings: bool = True) -> list[str]:
    """Return a table as lines of text.

    Args:
        columns: Columns of equal length.
        style: How to colour.
        headings: Whether the headings are the first line.
    """
    texts = [_padded(column, style, headings=headings, is_last=column is columns[-1]) for column in columns]
    return [GAP.join(row).rstrip() for row in zip(*texts, strict=True)]


def _padded(column: Column, style: Style, *, headings: bool, is_last: bool) -> list[str]:
    """Return the cells of a column, each as wide as the widest of them, coloured without the padding."""
    texts = [column.heading, *column.cells] if headings else column.cells
    styles = (["", *column.styles] if headings else column.styles) if column.styles and style is not plain else []
    if is_last and not column.right:
        return [style(text, name) if name else text for text, name in zip(texts, styles, strict=True)] if styles else list(texts)
    limit = column.width
    if not styles and all(map(str.isascii, texts)):
        return [text.rjust(limit) for text in texts] if column.right else [text.ljust(limit) for text in texts]
    found = []
    for text, name in zip(texts, styles or [""] * len(texts), strict=True):
        padding, shown = " " * (limit - width(text)), style(text, name) if name else text
        found.append(padding + shown if column.right else shown + padding)
    return found
