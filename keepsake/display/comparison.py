"""A comparison of two experiments as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keepsake.display import text
from keepsake.display.tables import Column, View, lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.query.compare import Comparison, MetricPair, Pair, Side

BETTER_STYLES = {"better": "green", "worse": "red"}


def comparison_lines(comparison: Comparison, view: View) -> list[str]:
    """Return what differs, section by section; one without differences is a single line.

    Args:
        comparison: What was found.
        view: How it is to look; long values are cut to its width.
    """
    limit = max(12, (view.width - 30) // 2) if view.width is not None else None
    metrics = [metric for metric in comparison.metrics if metric.differs]
    headings: list[str | None] = [None]
    blocks = [_header(comparison, view)]
    for name, rows, total in (
        ("Params", [_pair_row(pair, limit) for pair in comparison.params], comparison.params_total),
        ("Metrics", [_metric_row(metric, limit) for metric in metrics], len(comparison.metrics)),
        ("Environment", [_pair_row(pair, limit) for pair in comparison.environment], comparison.environment_total),
    ):
        verb = "differs" if len(rows) == 1 else "differ"
        count = f" ({len(rows)} of {total} {verb})"
        headings.append(view.style(f"{name}{count}", "bold") if rows else f"{name}: {'same' if total else 'none'}")
        blocks.append(rows)
    return _joined(headings, blocks, view)


def _header(comparison: Comparison, view: View) -> list[list[str]]:
    sides = (comparison.left, comparison.right)
    return [
        ["", *(side.experiment.id[: view.short] for side in sides)],
        ["checkpoint", *(_checkpoint(side, view) for side in sides)],
        ["ran", *(_ran(side) for side in sides)],
    ]


def _checkpoint(side: Side, view: View) -> str:
    checkpoint = side.checkpoint
    if checkpoint is None:
        return "none"
    noted = (("best", side.experiment.best()), ("latest", side.experiment.latest()))
    note = next((f" {word}" for word, one in noted if one is not None and one.id == checkpoint.id), "")
    return f"{checkpoint.id[: view.short]} step {checkpoint.step}{note}"


def _ran(side: Side) -> str:
    record = side.experiment
    took = f" {text.span((record.ended - record.created).total_seconds())}" if record.ended is not None else ""
    return f"{record.created.astimezone():%Y-%m-%d %H:%M}{took}"


def _pair_row(pair: Pair, limit: int | None) -> list[str]:
    sides = ((pair.left, pair.in_left), (pair.right, pair.in_right))
    return [f"  {text.safe(pair.name)}", *(_cut(text.cell(value), limit) if present else "-" for value, present in sides)]


def _metric_row(metric: MetricPair, limit: int | None) -> list[str]:
    goal = f" ({metric.goal[:3]})" if metric.goal is not None else ""
    present = [value for value, is_there in ((metric.left, metric.in_left), (metric.right, metric.in_right)) if is_there]
    cells = iter(text.column(present))
    sides = [_cut(next(cells), limit) if is_there else "-" for is_there in (metric.in_left, metric.in_right)]
    return [f"  {text.safe(metric.name)}{goal}", *sides, *_change(metric, sides[0])]


def _change(metric: MetricPair, left: str) -> list[str]:
    """Return by how much a metric changed, with as many decimals as its values have, and whether for the better."""
    delta = metric.delta
    if not delta:
        return []
    decimals = len(left.partition(".")[2]) if "e" not in left else 0
    absolute = f"{delta:+.{decimals}f}"
    if not decimals or not float(absolute):
        absolute = f"{delta:+.4g}"
    ratio = delta / abs(metric.left) if metric.left else None
    relative = _percent(ratio) if ratio is not None and abs(ratio) < 1000 else ""
    return [absolute, relative, "" if metric.better is None else "better" if metric.better else "worse"]


def _percent(ratio: float) -> str:
    return f"{100 * ratio:+.0f}%" if abs(ratio) >= 0.0995 else f"{100 * ratio:+.2g}%"


def _cut(shown: str, limit: int | None) -> str:
    return shown if limit is None else text.cut(shown, limit)


def _joined(headings: Sequence[str | None], blocks: Sequence[Sequence[Sequence[str]]], view: View) -> list[str]:
    """Lay all sections out with the same column widths, each under its heading."""
    rows = [row for block in blocks for row in block]
    count = max(len(row) for row in rows)
    columns = [Column("", [row[index] if index < len(row) else "" for row in rows]) for index in range(count)]
    for column in columns[3:5]:
        column.right = True
    for column in columns[5:]:
        column.styles = [BETTER_STYLES.get(cell, "") for cell in column.cells]
    table = iter(lines(columns, view.style, headings=False))
    joined: list[str] = []
    for heading, block in zip(headings, blocks, strict=True):
        joined += ([""] if joined else []) + ([heading] if heading is not None else [])
        joined += [next(table) for _ in block]
    return joined
