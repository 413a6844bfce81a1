"""A comparison of two experiments as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.tables import Column, Style, lines, plain
from keepsake.repository.layout import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.query.compare import Comparison, MetricPair, Pair, Side


def comparison_lines(comparison: Comparison, *, width: int | None, style: Style = plain) -> list[str]:
    """Return what differs, section by section; one without differences is a single line.

    Args:
        comparison: What was found.
        width: Terminal columns, which long values are cut to; None for any.
        style: How to colour.
    """
    limit = max(12, (width - 30) // 2) if width is not None else None
    blocks = [_header(comparison)]
    headings: list[str | None] = [None]
    for name, pairs, total, verb in (
        ("Params", comparison.params, comparison.params_total, "differ"),
        ("Metrics", comparison.metrics, len(comparison.metrics), ""),
        ("Environment", comparison.packages, comparison.packages_total, "differ"),
    ):
        if not pairs:
            headings.append(f"{name}: {'same' if total else 'none'}")
            blocks.append([])
        else:
            count = f" ({len(pairs)} of {total} {verb if len(pairs) > 1 else 'differs'})" if verb else ""
            headings.append(style(f"{name}{count}", "bold"))
            blocks.append([_row(pair, limit) for pair in pairs])
    return _joined(headings, blocks, style)


def _header(comparison: Comparison) -> list[list[str]]:
    sides = (comparison.left, comparison.right)
    return [
        ["", *(side.experiment.id[:SHORT_ID_LENGTH] for side in sides)],
        ["checkpoint", *(_checkpoint(side) for side in sides)],
        ["ran", *(_ran(side) for side in sides)],
    ]


def _checkpoint(side: Side) -> str:
    checkpoint = side.checkpoint
    if checkpoint is None:
        return "none"
    noted = (("best", side.experiment.best()), ("latest", side.experiment.latest()))
    note = next((f" {word}" for word, one in noted if one is not None and one.id == checkpoint.id), "")
    return f"{checkpoint.id[:SHORT_ID_LENGTH]} step {checkpoint.step}{note}"


def _ran(side: Side) -> str:
    record = side.experiment
    took = f" {text.span((record.ended - record.created).total_seconds())}" if record.ended is not None else ""
    return f"{record.created.astimezone():%Y-%m-%d %H:%M}{took}"


def _row(pair: Pair | MetricPair, limit: int | None) -> list[str]:
    cells = [_cell(pair.left, pair.in_left, limit), _cell(pair.right, pair.in_right, limit)]
    goal = getattr(pair, "goal", None)
    row = [f"  {text.safe(pair.name)}{f' ({goal[:3]})' if goal else ''}", *cells]
    delta = getattr(pair, "delta", None)
    if delta:
        row.append(f"{delta:+.4g}")
        row.append(f"{100 * delta / abs(pair.left):+.2g}%" if pair.left and abs(delta / pair.left) < 1000 else "")
        better = getattr(pair, "better", None)
        row.append("" if better is None else "better" if better else "worse")
    return row


def _cell(value: Any, present: bool, limit: int | None) -> str:
    if not present:
        return "-"
    shown = text.cell(value)
    return shown if limit is None else text.cut(shown, limit)


def _joined(headings: Sequence[str | None], blocks: Sequence[Sequence[Sequence[str]]], style: Style) -> list[str]:
    """Lay all sections out with the same column widths, each under its heading."""
    rows = [row for block in blocks for row in block]
    count = max(len(row) for row in rows)
    columns = [Column("", [row[index] if index < len(row) else "" for row in rows]) for index in range(count)]
    if count > 5:
        columns[5].styles = [{"better": "green", "worse": "red"}.get(cell, "") for cell in columns[5].cells]
    for column in columns[3:5]:
        column.right = True
    table = iter(lines(columns, style, headings=False))
    joined: list[str] = []
    for heading, block in zip(headings, blocks, strict=True):
        joined += ([""] if joined else []) + ([heading] if heading is not None else [])
        joined += [next(table) for _ in block]
    return joined
