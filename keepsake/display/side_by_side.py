"""Three or more experiments beside each other: a column for each, or a row for each where columns have no room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.comparison import checkpoint_cell, label, metric_name, ran_cell
from keepsake.display.tables import GAP, Column, View, fitting, lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keepsake.query.compare import Comparison, MetricPair, Pair
    from keepsake.query.saved import TreeComparison

_BETTER_STYLES = {True: "green", False: "red", None: ""}


@dataclass
class _Row:
    """A name and its value in each experiment.

    Args:
        name: The name, indented where a heading stands above it.
        cells: A text for each experiment.
        styles: The name of a style for each.
        keep: How long it stays where not all have room; see `keepsake.display.tables.Column`.
    """

    name: str
    cells: list[str]
    styles: list[str] = field(default_factory=list)
    keep: int = 0


@dataclass
class _Section:
    """Rows that belong together.

    Args:
        heading: What stands above them; empty where a row says itself what it is.
        rows: The rows.
        is_same: Whether there would be rows if something differed.
    """

    heading: str
    rows: list[_Row]
    is_same: bool = False


def side_by_side_lines(comparisons: Sequence[Comparison], view: View) -> list[str]:
    """Return what differs between several sides.

    Args:
        comparisons: The first side with each of the others.
        view: How it is to look; ``every`` shows also what is the same.
    """
    sides = [comparisons[0].left, *(comparison.right for comparison in comparisons)]
    names = [label(side, view) for side in sides]
    sections = [_head(comparisons, view), *_sections(comparisons, view)]
    if view.width is not None:
        _cut_cells(sections)
        if _width(names, sections) > view.width:
            return _one_row_each(names, sections, view)
    return _one_column_each(names, sections, view)


def _head(comparisons: Sequence[Comparison], view: View) -> _Section:
    sides = [comparisons[0].left, *(comparison.right for comparison in comparisons)]
    checkpoints = _Row("checkpoint", [checkpoint_cell(side, view) for side in sides], keep=7)
    return _Section("", [checkpoints, _Row("ran", [ran_cell(side) for side in sides], keep=8)])


def _sections(comparisons: Sequence[Comparison], view: View) -> Iterable[_Section]:
    wanted = comparisons[0].sections
    if "params" in wanted:
        yield _values("Params", [comparison.params for comparison in comparisons], view, keep=2)
    if "metrics" in wanted:
        yield _metrics([comparison.metrics for comparison in comparisons], view)
    if "env" in wanted:
        yield _values("Environment", [comparison.environment for comparison in comparisons], view, keep=5)
    for name, keep in (("code", 3), ("files", 6)):
        trees: list[TreeComparison] = [tree for c in comparisons if (tree := getattr(c, name)) is not None]
        if trees:
            differs = any(tree.differs for tree in trees)
            cells = [_reference_cell(trees), *(_tree_cell(tree) for tree in trees)]
            if differs:
                yield _Section("", [_Row(name.capitalize(), cells, keep=keep)])
            else:
                yield _Section(name.capitalize(), [], is_same=any(tree.pairs for tree in trees))


# --- cells --------------------------------------------------------------------------------------------------------------


def _values(heading: str, compared: Sequence[Sequence[Pair] | None], view: View, *, keep: int) -> _Section:
    rows = [
        _Row(f"  {text.safe(name)}", _cells(pairs), keep=keep)
        for name, pairs in _by_name(compared).items()
        if view.every or any(pair is not None and pair.differs for pair in pairs)
    ]
    return _Section(heading, rows, is_same=any(compared))


def _metrics(compared: Sequence[Sequence[MetricPair] | None], view: View) -> _Section:
    rows = []
    for pairs in _by_name(compared).values():
        if view.every or any(pair is not None and pair.differs for pair in pairs):
            metric = next(pair for pair in pairs if pair is not None)
            better = [pair.better if pair is not None else None for pair in pairs]
            styles = ["", *(_BETTER_STYLES[verdict] for verdict in better)]
            rows.append(_Row(f"  {metric_name(metric)}", _cells(pairs), styles, keep=1 if metric.goal is not None else 4))
    return _Section("Metrics", rows, is_same=any(compared))


def _by_name(compared: Sequence[Sequence[Any] | None]) -> dict[str, list[Any]]:
    """Return for each name its pair in each comparison, None where neither side has it or nothing was compared."""
    found: dict[str, list[Any]] = {}
    for number, pairs in enumerate(compared):
        for pair in pairs or ():
            found.setdefault(pair.name, [None] * len(compared))[number] = pair
    return found


def _cells(pairs: Sequence[Pair | None]) -> list[str]:
    first = next(pair for pair in pairs if pair is not None)
    values = [
        (first.left, first.in_left),
        *((pair.right, pair.in_right) if pair is not None else (None, False) for pair in pairs),
    ]
    present = iter(text.column([value for value, is_there in values if is_there]))
    return [next(present) if is_there else "-" for _, is_there in values]


def _reference_cell(trees: Sequence[TreeComparison]) -> str:
    """Return in one cell how many files the first side has."""
    whole = next((tree for tree in trees if not any(tree.absent)), None)
    if whole is None:
        return text.safe(trees[0].absent[0])
    return text.plural(sum(pair.left is not None for pair in whole.pairs), "file")


def _tree_cell(tree: TreeComparison) -> str:
    """Return in one cell how another side's files differ from those of the first."""
    if any(tree.absent):
        return text.safe(tree.absent[1]) or "-"
    count = len({pair.path for pair in tree.differing})
    if not count:
        return "same"
    return (
        f"+{tree.added} -{tree.deleted} in {text.plural(count, 'file')}"
        if tree.changes
        else f"{count} of {len(tree.pairs)} differ"
    )


# --- layout -------------------------------------------------------------------------------------------------------------


def _cut_cells(sections: Sequence[_Section]) -> None:
    for row in (row for section in sections for row in section.rows):
        row.name = text.cut(row.name)
        row.cells = [text.cut(cell) for cell in row.cells]


def _columns(names: Sequence[str], sections: Sequence[_Section]) -> list[Column]:
    """Return a column for the names and one for each experiment, all sections one below the other."""
    rows = [row for section in sections for row in section.rows]
    first = Column("", [row.name for row in rows])
    others = [
        Column(name, [row.cells[index] for row in rows], styles=[row.styles[index] if row.styles else "" for row in rows])
        for index, name in enumerate(names)
    ]
    return [first, *others]


def _width(names: Sequence[str], sections: Sequence[_Section]) -> int:
    columns = _columns(names, sections)
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def _one_column_each(names: Sequence[str], sections: Sequence[_Section], view: View) -> list[str]:
    heading, *table = lines(_columns(names, sections), view.style)
    shown = [heading]
    was_one_line = True
    for number, section in enumerate(sections):
        body, table = table[: len(section.rows)], table[len(section.rows) :]
        is_one_line = not section.heading or not body
        shown += [] if number == 0 or (is_one_line and was_one_line) else [""]
        if section.heading:
            shown.append(view.style(section.heading, "bold") if body else _nothing(section))
        shown += body
        was_one_line = is_one_line and number > 0
    return shown


def _one_row_each(names: Sequence[str], sections: Sequence[_Section], view: View) -> list[str]:
    columns = [Column("EXPERIMENT", list(names), styles=["bold"] * len(names))]
    columns += [
        Column(row.name.strip().upper(), row.cells, (row.keep, index), row.styles)
        for index, row in enumerate(row for section in sections for row in section.rows)
    ]
    kept = fitting(columns, view.width)
    hidden = [column.heading.lower() for column in columns if column not in kept]
    same = [_nothing(section) for section in sections if section.heading and not section.rows]
    said = [f"{text.plural(len(hidden), 'column')} hidden, which have no room: {' '.join(hidden)}"] if hidden else []
    return [*lines(kept, view.style), *([""] if same or said else []), *same, *said]


def _nothing(section: _Section) -> str:
    return f"{section.heading}: {'same' if section.is_same else 'none'}"
