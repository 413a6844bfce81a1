"""The tables of one experiment: its metrics, and its checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.tables import GAP, Column, View, fitting, hidden_columns, lines, total_width
from keepsake.display.trends import TrendColumn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

METRICS_SHOWN = 20

CHECKPOINTS_SHOWN = 8
FIRST_CHECKPOINTS, LAST_CHECKPOINTS = 2, 3
"""How many are shown of more than `CHECKPOINTS_SHOWN`, beside the best one and those that have an alias."""

MIN_NOTE_WIDTH = 8


def metric_table(record: ExperimentRecord, courses: Mapping[str, Sequence[Any]], view: View) -> list[str]:
    """Return each metric with its value at the best checkpoint, the last value that it had, and its course; its heading comes first.

    Args:
        record: The experiment.
        courses: The values of each metric, oldest first.
        view: How it is to look.
    """
    names = metric_names(record, courses)
    shown = names[:METRICS_SHOWN] if view.is_short else names
    if not shown:
        return []
    columns = metric_columns(record, shown, courses, view)
    columns[0] = replace(columns[0], cells=[_cut_name(f"  {name}", view) for name in columns[0].cells])
    more = len(names) - len(shown)
    return [*lines(fitting(columns, view.width), view.style), *([f"  {view.more(more, '--all')}"] if more else [])]


def metric_columns(
    record: ExperimentRecord, shown: Sequence[str], courses: Mapping[str, Sequence[Any]], view: View
) -> list[Column]:
    """Return the columns of a table of metrics.

    Args:
        record: The experiment.
        shown: The metrics, one a row.
        courses: The values of each metric, oldest first.
        view: How it is to look.
    """
    best = record.best()
    at_best = best.metrics if best is not None else {}
    last = {name: courses[name][-1] for name in shown}
    pairs = [iter(text.column([*([at_best[name]] if name in at_best else []), last[name]])) for name in shown]
    best_cells = [_cut(next(pair), view) if name in at_best else "-" for name, pair in zip(shown, pairs, strict=True)]
    columns = [
        Column("Metrics", [metric_name(record, name) for name in shown]),
        *([Column("best", best_cells, styles=[value_style(at_best.get(name)) for name in shown], right=True)] if best else []),
        Column("last", [_cut(next(pair), view) for pair in pairs], styles=[value_style(last[n]) for n in shown], right=True),
        TrendColumn.of("trend", [courses[name] for name in shown], view, (1, 0)),
    ]
    return columns if any(columns[-1].cells) else columns[:-1]


def checkpoint_table(record: ExperimentRecord, aliases: Mapping[str, str], view: View) -> list[str]:
    """Return the checkpoints, one a line: all of them, or the first and the last with those that stand out.

    Args:
        record: The experiment.
        aliases: IDs of checkpoints by alias.
        view: How it is to look.
    """
    shown = _shown(record, aliases, view)
    if not shown:
        return []
    columns = checkpoint_columns([record], shown, aliases, view)
    fitted = fitting(columns, view.width)
    table = lines(fitted, view.style)
    left_out = len(record.checkpoints) - len(shown)
    if left_out:
        table.insert(1 + FIRST_CHECKPOINTS, f"  {view.more(left_out, '--all')}")
    hidden = hidden_columns(columns, fitted)
    if hidden and view.width is not None:
        table.append(text.cut_end(f"  {hidden}", view.width))
    return table


def checkpoint_columns(
    records: Sequence[ExperimentRecord], shown: Sequence[CheckpointRecord], aliases: Mapping[str, str], view: View
) -> list[Column]:
    """Return the columns of a table of checkpoints.

    Args:
        records: The experiments that they belong to.
        shown: The checkpoints, one a row.
        aliases: IDs of checkpoints by alias.
        view: How it is to look.
    """
    owners = {checkpoint.id: record.id for record in records for checkpoint in record.checkpoints}
    columns = [
        Column("ID", [checkpoint.id[: view.short] for checkpoint in shown], styles=["bold"] * len(shown)),
        *([Column("EXPERIMENT", [owners[one.id][: view.short] for one in shown])] if len(records) > 1 else []),
        Column("STEP", [str(checkpoint.step) for checkpoint in shown], right=True),
        Column("AGE", [text.age((view.now - c.created).total_seconds()) for c in shown], right=True),
        *(_metric_column(records, name, shown, view, index) for index, name in enumerate(_metric_names(records))),
    ]
    if any(checkpoint.archive is not None for checkpoint in shown):
        sizes = [text.size(checkpoint.archive.size_bytes) if checkpoint.archive is not None else "-" for checkpoint in shown]
        columns.append(Column("SIZE", sizes, (2, 0), right=True))
    columns.append(Column("", _noted(records, aliases, shown, columns, view)))
    return columns


def _metric_column(
    records: Sequence[ExperimentRecord], name: str, shown: Sequence[CheckpointRecord], view: View, index: int
) -> Column:
    values = iter(text.column([checkpoint.metrics[name] for checkpoint in shown if name in checkpoint.metrics]))
    cells = [_cut(next(values), view) if name in checkpoint.metrics else "-" for checkpoint in shown]
    styles = [value_style(checkpoint.metrics.get(name)) for checkpoint in shown]
    owners = [record for record in records if record.primary_metric is not None and record.primary_metric.name == name]
    best = {checkpoint.id for record in owners if (checkpoint := record.best()) is not None}
    is_primary = bool(owners)
    if any(checkpoint.id in best for checkpoint in shown):
        # The star hangs over the right edge, so that the numbers stay below each other.
        cells = [cell + ("*" if checkpoint.id in best else " ") for cell, checkpoint in zip(cells, shown, strict=True)]
        styles = ["bold green" if one.id in best else style for one, style in zip(shown, styles, strict=True)]
    return Column(_cut(text.safe(name.upper()), view), cells, (1 if is_primary else 3, index), styles, right=True)


def _noted(
    records: Sequence[ExperimentRecord],
    aliases: Mapping[str, str],
    shown: Sequence[CheckpointRecord],
    columns: Sequence[Column],
    view: View,
) -> list[str]:
    """Return what is said at the end of each line, cut to the room beside what matters most: up to the primary metric."""
    noted: dict[str, dict[str, None]] = {}
    for record in records:
        for id, said in notes(record, aliases).items():
            noted.setdefault(id, {}).update(dict.fromkeys(said))
    cells = [", ".join(noted.get(checkpoint.id, ())) for checkpoint in shown]
    if view.width is None:
        return cells
    room = view.width - total_width([column for column in columns if column.keep[0] <= 1]) - len(GAP)
    return [text.cut_end(cell, max(room, MIN_NOTE_WIDTH)) for cell in cells]


def _shown(record: ExperimentRecord, aliases: Mapping[str, str], view: View) -> list[CheckpointRecord]:
    """Return the checkpoints to show: the first ones, those that stand out, and the last ones."""
    everything = record.checkpoints
    if not view.is_short or len(everything) <= CHECKPOINTS_SHOWN:
        return everything
    best, aliased = record.best(), set(aliases.values())
    between = everything[FIRST_CHECKPOINTS:-LAST_CHECKPOINTS]
    return [
        *everything[:FIRST_CHECKPOINTS],
        *(checkpoint for checkpoint in between if checkpoint is best or checkpoint.id in aliased),
        *everything[-LAST_CHECKPOINTS:],
    ]


# --- parts ----------------------------------------------------------------------------------------------------------


def metric_names(record: ExperimentRecord, courses: Mapping[str, Sequence[Any]] | None = None) -> list[str]:
    """Return the names of all metrics of the checkpoints, then those that were only logged; the primary one comes first."""
    names = dict.fromkeys([name for checkpoint in record.checkpoints for name in checkpoint.metrics] + list(courses or ()))
    metric = record.primary_metric
    return sorted(names, key=lambda name: metric is None or name != metric.name)


def _metric_names(records: Sequence[ExperimentRecord]) -> list[str]:
    """Return the names of the metrics of all checkpoints; primary ones come first."""
    primary = {record.primary_metric.name for record in records if record.primary_metric is not None}
    names = dict.fromkeys(name for record in records for name in metric_names(record))
    return sorted(names, key=lambda name: name not in primary)


def metric_name(record: ExperimentRecord, name: str) -> str:
    """Return a metric's name with its goal, such as ``val_loss (min)``."""
    metric = record.primary_metric
    goal = f" ({metric.goal[:3]})" if metric is not None and metric.name == name else ""
    return f"{text.safe(name)}{goal}"


def notes(record: ExperimentRecord, aliases: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what makes checkpoints stand out, by their IDs: which is the best, which the latest, and their aliases."""
    found: dict[str, list[str]] = {}
    for word, checkpoint in (("best", record.best()), ("latest", record.latest())):
        if checkpoint is not None:
            found.setdefault(checkpoint.id, []).append(word)
    for alias, checkpoint_id in aliases.items():
        found.setdefault(checkpoint_id, []).append(f"@{text.safe(alias)}")
    return found


def value_style(value: Any) -> str:
    """Return the name of the style of a value: what is no finite number catches the eye."""
    return "red" if isinstance(value, float) and not math.isfinite(value) else ""


def _cut(shown: str, view: View) -> str:
    return shown if view.width is None else text.cut(shown)


def _cut_name(name: str, view: View) -> str:
    """Cut a name so that two thirds of the line are left for what stands beside it."""
    return name if view.width is None else text.cut(name, max(text.MAX_CELL, view.width // 3))
