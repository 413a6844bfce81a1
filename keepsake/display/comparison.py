"""A comparison of two experiments, or of one with the working directory, as lines of text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.code import change_lines, change_row, file_row, hints, is_shown_by_lines
from keepsake.display.tables import GAP, Column, View, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keepsake.query.compare import Comparison, MetricPair, Pair, Side
    from keepsake.query.saved import TreeComparison

WORD_STYLES = {"better": "green", "worse": "red", "new": "green", "gone": "red"}

SAME_FILES_SHOWN = 5
"""How many files of checkpoints that are the same are named."""

MIN_CELL = 12
"""To how many columns a cell may be cut, and no further however narrow the terminal is."""

WORKING_DIRECTORY = "."
"""What the working directory is called."""


def comparison_lines(comparison: Comparison, view: View, *, stat: bool = False, words: bool = False) -> list[str]:
    """Return what differs, section by section; one without differences is a single line.

    Args:
        comparison: What was found.
        view: How it is to look; long values are cut to its width, and ``every`` shows also what is the same.
        stat: Show of code only how many lines differ in which file.
        words: Mark the words of code that differ instead of whole lines.
    """
    blocks = [_header(comparison, view)]
    blocks += _recorded_blocks(comparison, view)
    if comparison.code is not None:
        blocks.append(_code_block(comparison, comparison.code, view, stat=stat, words=words))
    if comparison.files is not None:
        blocks.append(_files_block(comparison, comparison.files, view))
    return _joined(blocks, view)


def code_lines(comparison: Comparison, view: View) -> list[str]:
    """Return what of the code differs line by line, below a line that names the two sides; none where code was not compared.

    Args:
        comparison: What was found.
        view: How it is to look.
    """
    if comparison.code is None:
        return []
    title = f"Code of {label(comparison.left, view)} and {label(comparison.right, view)}"
    return _joined([_code_block(comparison, comparison.code, view, title=title)], view)


def label(side: Side, view: View) -> str:
    """Return what a side is called."""
    return side.experiment.id[: view.short] if side.experiment is not None else WORKING_DIRECTORY


def checkpoint_cell(side: Side, view: View) -> str:
    """Return which checkpoint of a side is compared, and why this one."""
    if side.experiment is None:
        return "working directory"
    checkpoint = side.checkpoint
    if checkpoint is None:
        return "none"
    noted = (("best", side.experiment.best()), ("latest", side.experiment.latest()))
    note = next((f" {word}" for word, one in noted if one is not None and one.id == checkpoint.id), "")
    return f"{checkpoint.id[: view.short]} step {checkpoint.step}{note}"


def ran_cell(side: Side) -> str:
    """Return when a side ran, and for how long."""
    record = side.experiment
    if record is None:
        return "now"
    took = f" {text.span((record.ended - record.created).total_seconds())}" if record.ended is not None else ""
    return f"{record.created.astimezone():%Y-%m-%d %H:%M}{took}"


def metric_name(metric: MetricPair) -> str:
    """Return a metric's name with what is better."""
    return f"{text.safe(metric.name)}{f' ({metric.goal[:3]})' if metric.goal is not None else ''}"


@dataclass
class _Block:
    """A part of the page.

    Args:
        heading: Its first line, if it has one.
        rows: Its table.
        lines: What follows the table.
        of_files: Whether its names are paths, which may be long.
    """

    heading: str | None = None
    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    of_files: bool = False


# --- sections -----------------------------------------------------------------------------------------------------------


def _header(comparison: Comparison, view: View) -> _Block:
    sides = (comparison.left, comparison.right)
    rows = [
        ["", *(label(side, view) for side in sides)],
        ["checkpoint", *(checkpoint_cell(side, view) for side in sides)],
        ["ran", *(ran_cell(side) for side in sides)],
    ]
    return _Block(rows=rows)


def _recorded_blocks(comparison: Comparison, view: View) -> list[_Block]:
    names = {"params": "Params", "metrics": "Metrics", "env": "Environment"}
    names = {section: name for section, name in names.items() if section in comparison.sections}
    if names and (comparison.left.experiment is None or comparison.right.experiment is None):
        return [_Block(f"{', '.join(names.values())}: not recorded of a working directory")]
    compared: list[tuple[str, Sequence[Pair] | None, Callable[[Any], list[str]]]] = [
        ("params", comparison.params, _pair_row),
        ("metrics", comparison.metrics, _metric_row),
        ("env", comparison.environment, _pair_row),
    ]
    return [_pairs_block(names[section], pairs, view, row_of) for section, pairs, row_of in compared if pairs is not None]


def _pairs_block(name: str, pairs: Sequence[Pair], view: View, row_of: Callable[[Any], list[str]]) -> _Block:
    differing = [pair for pair in pairs if pair.differs]
    heading = f"{name}: {'same' if pairs else 'none'}"
    if differing:
        verb = "differs" if len(differing) == 1 else "differ"
        heading = view.style(f"{name} ({len(differing)} of {len(pairs)} {verb})", "bold")
    return _Block(heading, [row_of(pair) for pair in (pairs if view.every else differing)])


def _pair_row(pair: Pair) -> list[str]:
    sides = ((pair.left, pair.in_left), (pair.right, pair.in_right))
    return [f"  {text.safe(pair.name)}", *(text.cell(value) if present else "-" for value, present in sides)]


def _metric_row(metric: MetricPair) -> list[str]:
    present = [value for value, is_there in ((metric.left, metric.in_left), (metric.right, metric.in_right)) if is_there]
    cells = iter(text.column(present))
    sides = [next(cells) if is_there else "-" for is_there in (metric.in_left, metric.in_right)]
    return [f"  {metric_name(metric)}", *sides, *_change(metric, sides[0])]


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


def _code_block(
    comparison: Comparison, code: TreeComparison, view: View, *, stat: bool = False, words: bool = False, title: str = "Code"
) -> _Block:
    if not code.differing:
        return _Block(f"{title}: {_why_nothing(comparison, code, view)}")
    files = text.plural(len({pair.path for pair in code.differing}), "file")
    block = _Block(view.style(f"{title} ({files}, +{code.added} -{code.deleted})", "bold"), of_files=True)
    sides = (label(comparison.left, view), label(comparison.right, view))
    names = ("a", "b") if view.width is None else sides
    for change in code.changes:
        if stat or not is_shown_by_lines(change, view):
            block.rows.append(change_row(change))
        else:
            block.lines += change_lines(change, names, view, words=words)
    if not stat:
        block.lines += hints(code.changes, sides, view)
    return block


def _files_block(comparison: Comparison, files: TreeComparison, view: View) -> _Block:
    if not files.differing and not (view.every and files.pairs):
        return _Block(f"Files: {_why_nothing(comparison, files, view)}")
    same = [pair for pair in files.pairs if pair.status == "same"]
    shown = same if view.every else same[:SAME_FILES_SHOWN]
    verb = "differs" if len(files.differing) == 1 else "differ"
    heading = f"Files ({len(files.differing)} of {len(files.pairs)} {verb})" if files.differing else "Files: same"
    block = _Block(view.style(heading, "bold"), [file_row(pair) for pair in [*files.differing, *shown]], of_files=True)
    if len(same) > len(shown):
        block.lines.append(f"  … {len(same) - len(shown)} more are the same: --all")
    return block


def _why_nothing(comparison: Comparison, tree: TreeComparison, view: View) -> str:
    """Return why a section of files has no differences to show."""
    if any(tree.absent):
        if not tree.differs:
            return "none"
        sides = zip((comparison.left, comparison.right), tree.absent, strict=True)
        return "; ".join(f"{text.safe(reason)} in {label(side, view)}" for side, reason in sides if reason)
    return "same" if tree.pairs else "none"


# --- layout -------------------------------------------------------------------------------------------------------------


def _joined(blocks: Sequence[_Block], view: View) -> list[str]:
    """Lay all blocks out with the same first two columns; what stands right of them is each block's own."""
    deciding = [block for block in blocks if view.width is not None or not block.of_files] or blocks
    widths = _first_widths(deciding, view.width)
    joined: list[str] = []
    was_one_line = False
    for block in blocks:
        body = [*_table(block.rows, widths, view), *block.lines]
        is_one_line = not body
        joined += [""] if joined and not (is_one_line and was_one_line) else []
        joined += [block.heading] if block.heading is not None else []
        joined += body
        was_one_line = is_one_line
    return joined


def _first_widths(blocks: Sequence[_Block], limit: int | None) -> tuple[int, int]:
    """Return how wide names and left values are: a third and half of the rest at most, and no more than what stands behind allows."""
    rows = [row for block in blocks for row in block.rows]
    name, left = (max((text.width(row[index]) for row in rows), default=0) for index in (0, 1))
    if limit is None:
        return name, left
    name = min(name, max(MIN_CELL, limit // 3))
    behind = max((_width_behind(block.rows) for block in blocks if max(map(len, block.rows), default=0) > 3), default=0)
    room = limit - name - 2 * len(GAP)
    return name, min(left, max(MIN_CELL, min(room // 2, room - behind)))


def _width_behind(rows: Sequence[Sequence[str]]) -> int:
    """Return how wide all is that stands right of the left values."""
    widths = [
        max((text.width(row[index]) for row in rows if len(row) > index), default=0) for index in range(2, max(map(len, rows)))
    ]
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _table(rows: Sequence[Sequence[str]], widths: tuple[int, int], view: View) -> list[str]:
    if not rows:
        return []
    count = max(len(row) for row in rows)
    columns = [Column("", [row[index] if index < len(row) else "" for row in rows]) for index in range(count)]
    limits = [*widths, MIN_CELL]
    if view.width is not None:
        limits[2] = max(
            MIN_CELL, view.width - sum(widths) - sum(len(GAP) + column.width for column in columns[3:]) - 2 * len(GAP)
        )
        for column, limit in zip(columns, limits, strict=False):
            column.cells = [text.cut(cell, limit) for cell in column.cells]
    for column, width in zip(columns, widths, strict=False):
        # Lines up with the other blocks; only paths in a pipe are wider, for they are not cut there.
        column.cells = [cell + " " * (width - text.width(cell)) for cell in column.cells]
    for column in columns[3:]:
        column.right = any(cell.startswith(("+", "-")) for cell in column.cells)
        column.styles = [WORD_STYLES.get(cell, "") for cell in column.cells]
    return lines(columns, view.style, headings=False)
