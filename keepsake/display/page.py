"""What notebooks show of an object: its parts, and how these are put into HTML, Markdown and text.

Colours and fonts are those of the page around it, dark or light; there is no script and no style sheet. Which parts an object has is
`keepsake.display.notebook`'s business.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keepsake.display import markdown, sparkline
from keepsake.display.text import cut_end
from keepsake.display.trends import TrendColumn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keepsake.display.facts import Fact
    from keepsake.display.tables import Column

_COLOURS = {"green": "#25884a", "red": "#d4403a", "cyan": "#1f838f"}
"""Legible on white as well as on black: their contrast to both is above four."""

_CELL = "text-align:{align};padding:.2em .7em .2em 0;white-space:nowrap"
_LONG = "text-align:left;padding:.2em 0;vertical-align:top;max-width:none;overflow-wrap:anywhere;white-space:pre-wrap"
_TABLE = (
    "border-collapse:collapse;border:0;margin:.3em 2em .6em 0;color:inherit;background:none;font-variant-numeric:tabular-nums"
)
_ROOT = "color:currentColor;overflow-x:auto;line-height:1.35"
_BLOCK = "display:inline-block;vertical-align:top;max-width:100%"

MOST_CHARACTERS = 600
"""How much of a single value, or of a note, is shown."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values.

    Args:
        heading: What they are, "" for nothing.
        facts: Them.
        note: What is said below.
    """

    heading: str
    facts: Sequence[Fact]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and columns.

    Args:
        heading: What they are, "" for nothing.
        columns: Columns of equal length.
        skipped: How many rows are left out, and before which row.
        notes: What is said below.
    """

    heading: str
    columns: Sequence[Column]
    skipped: tuple[int, int] = (0, 0)
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown of an object; all of it is safe on a terminal.

    Args:
        title: What it is.
        status: What is said behind that.
        style: Name of the status's style.
        parts: What follows.
        text: The same as lines of text.
    """

    title: str
    status: str = ""
    style: str = ""
    parts: Sequence[Facts | Table] = ()
    text: Sequence[str] = field(default=())

    def html(self) -> str:
        """Return it as HTML: no script, no link, nothing from elsewhere, and nothing recorded that is not text."""
        # The classes keep notebooks from typesetting dollars in it as formulas.
        start = f'<div class="keepsake tex2jax_ignore mathjax_ignore" style="{_ROOT}">'
        title = f"<b>{_escaped(self.title)}</b>" if self.title else ""
        status = f" {_styled(_escaped(self.status), self.style)}" if self.status else ""
        return f"{start}<div>{title}{status}</div>{''.join(map(_block, self.parts))}</div>"

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [" ".join(filter(None, (f"**{self.title}**" if self.title else "", markdown.text(self.status))))]
        for part in self.parts:
            lines += ["", f"**{part.heading}**"] if part.heading else []
            lines += ["", *markdown.table(_rows(part))]
            for note in _notes(part):
                lines += ["", markdown.text(note)]
        return "\n".join(lines).strip()


class Displayed:
    """Something that a notebook shows as a page."""

    def _page(self) -> Page:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self._page().html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        page = self._page()
        return {"text/plain": "\n".join(page.text), "text/markdown": page.markdown(), "text/html": page.html()}

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # IPython has a printer of its own for lists, which comes before the bundle, but not before this.
        printer.text("\n".join(self._page().text))


# --- HTML -----------------------------------------------------------------------------------------------------------


def _block(part: Facts | Table) -> str:
    heading = f"<b>{_escaped(part.heading)}</b>" if part.heading else ""
    rows = _fact_rows(part.facts) if isinstance(part, Facts) else _table_rows(part)
    notes = "".join(f'<div style="opacity:.75">{_escaped(note)}</div>' for note in _notes(part))
    return f'<div style="{_BLOCK}">{heading}<table style="{_TABLE}"><tbody>{"".join(rows)}</tbody></table>{notes}</div>'


def _fact_rows(facts: Sequence[Fact]) -> Iterator[str]:
    for fact in facts:
        name, value = _escaped(_cut(fact.name)), _styled(_escaped(_cut(fact.value)), fact.style)
        style = f"{_CELL.format(align='left')};vertical-align:top;opacity:.75"
        yield f'<tr><td style="{style}">{name}</td><td style="{_LONG}">{value}</td></tr>'


def _table_rows(table: Table) -> Iterator[str]:
    starts = [f'<td style="{_CELL.format(align="right" if column.right else "left")}">' for column in table.columns]
    headings = "".join(
        f"{start}<b>{_escaped(column.heading)}</b></td>" for start, column in zip(starts, table.columns, strict=True)
    )
    yield f'<tr style="border-bottom:1px solid currentColor">{headings}</tr>'
    rows = list(zip(*map(_html_cells, table.columns), strict=True))
    skipped, before = table.skipped
    for index, row in enumerate(rows):
        if skipped and index == before:
            yield f'<tr><td colspan="{len(starts)}" style="{_CELL.format(align="left")}">… {skipped:,} more</td></tr>'
        yield f"<tr>{''.join(f'{start}{cell}</td>' for start, cell in zip(starts, row, strict=True))}</tr>"


def _html_cells(column: Column) -> list[str]:
    if isinstance(column, TrendColumn):
        return list(map(sparkline.svg, column.courses))
    styles = column.styles or [""] * len(column.cells)
    return [_styled(_escaped(_cut(cell)), style) for cell, style in zip(column.cells, styles, strict=True)]


def _styled(escaped: str, style: str) -> str:
    words = style.split()
    css = [f"color:{_COLOURS[word]}" for word in words if word in _COLOURS]
    css += ["font-weight:bold"] if "bold" in words else []
    return f'<span style="{";".join(css)}">{escaped}</span>' if css else escaped


def _escaped(text: str) -> str:
    return html.escape(text)


# --- both -----------------------------------------------------------------------------------------------------------


def _rows(part: Facts | Table) -> Iterator[Sequence[str]]:
    """Yield the rows of a part for Markdown, headings first."""
    if isinstance(part, Facts):
        yield "", ""
        for fact in part.facts:
            yield _cut(fact.name), " / ".join(_cut(fact.value).split("\n"))
        return
    yield [column.heading for column in part.columns]
    skipped, before = part.skipped
    for index, row in enumerate(zip(*(column.cells for column in part.columns), strict=True)):
        if skipped and index == before:
            yield [f"… {skipped:,} more", *[""] * (len(row) - 1)]
        yield [_cut(cell.strip()) for cell in row]


def _notes(part: Facts | Table) -> Sequence[str]:
    notes = part.notes if isinstance(part, Table) else [part.note] if part.note else []
    return [cut_end(note, MOST_CHARACTERS) for note in notes]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
