"""Names with their values: each on lines of its own, or several side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from keepsake.display import text
from keepsake.display.tables import GAP, Column, View, lines, total_width

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_WIDTH = 10
"""Room for the names of the first lines of a page."""

MOST_LINES = 4
"""How many lines a single value may take, unless all is to be shown."""

MOST_SIDE_BY_SIDE = 3
MIN_VALUE_WIDTH = 16
"""How narrow the room for values may become where names are long; these are cut then."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and its value, both safe to print.

    Args:
        name: The name, with its indentation.
        value: The value; it may have several lines.
        style: Name of the value's style, "" for none.
    """

    name: str
    value: str
    style: str = ""


def one_below_the_other(facts: Sequence[Fact], view: View) -> list[str]:
    """Return facts in two columns; a value that is longer than its line goes on in further ones, below its beginning."""
    room = max(0, view.width - MIN_VALUE_WIDTH - len(GAP)) if view.width is not None else None
    names = [fact.name if room is None else text.cut(fact.name, room) for fact in facts]
    widest = max([text.width(name) for name in names] + [NAME_WIDTH])
    below = []
    for name, fact in zip(names, facts, strict=True):
        first, *further = _value_lines(fact.value, view, widest + len(GAP))
        below.append(f"{name}{' ' * (widest - text.width(name))}{GAP}{view.style(first, fact.style)}")
        below += [f"{' ' * widest}{GAP}{view.style(line, fact.style)}" for line in further]
    return below


def hanging(start: str, value: str, view: View, style: str = "") -> list[str]:
    """Return a text behind another, styled as a whole; it goes on below its beginning where it is too long for one line.

    Args:
        start: What stands before it, without any style.
        value: The text.
        view: How it is to look.
        style: Name of the text's style.
    """
    indent = text.width(start)
    first, *further = _value_lines(value, view, indent)
    return [start + view.style(first, style), *(" " * indent + view.style(line, style) for line in further)]


def _value_lines(value: str, view: View, indent: int) -> list[str]:
    if view.width is None:
        return value.split("\n")
    limit = max(view.width - indent, MIN_VALUE_WIDTH)
    if view.every:
        return [line.rstrip() for part in value.split("\n") for line in text.wrapped(part, limit)]
    # No more than can be shown is looked at: a value may be megabytes long.
    parts = (part[: limit * (MOST_LINES + 1)] for part in value.split("\n"))
    shown = list(islice((line.rstrip() for part in parts for line in text.wrapped(part, limit)), MOST_LINES + 1))
    if len(shown) > MOST_LINES:
        shown[MOST_LINES - 1 :] = [text.cut_end(f"{shown[MOST_LINES - 1]} …", limit)]
    return shown


def side_by_side(facts: Sequence[Fact], view: View) -> list[str]:
    """Return facts row by row, as many in a row as there is room for; a pipe gets one a line."""
    for count in range(min(MOST_SIDE_BY_SIDE, len(facts)), 1, -1):
        columns = _columns(facts, count, view)
        if view.width is not None and total_width(columns) <= view.width:
            return lines(columns, view.style, headings=False)
    return one_below_the_other(facts, view)


def _columns(facts: Sequence[Fact], count: int, view: View) -> list[Column]:
    columns = []
    empty = [Fact("", "")] * (-len(facts) % count)
    for index in range(count):
        part = [*facts, *empty][index::count]
        columns += [
            Column("", [fact.name if view.every else text.cut(fact.name) for fact in part]),
            Column("", [fact.value if view.every else text.cut(fact.value) for fact in part], styles=[f.style for f in part]),
        ]
    return columns
