"""The table of experiments: which columns, in which order, and what stands in them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.tables import Column, Style, fitting, lines, plain
from keepsake.repository.layout import SHORT_ID_LENGTH
from keepsake.repository.records import is_comparable
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord, PrimaryMetric

STATUS_STYLES = {"running": "cyan", "stopped": "", "failed": "red"}

ALWAYS, PARAM, METRIC, LATEST, LATE_PARAM, USER, HOST, SAME_LATEST = 0, 1, 2, 3, 4, 5, 6, 7
"""What is dropped where a terminal is too narrow: the highest first."""

PARAMS_KEPT_LONGEST = 3


@dataclass(frozen=True, slots=True)
class Layout:
    """How the table is to look.

    Args:
        width: Terminal columns; None for a pipe or a file, which gets everything uncut and times in ISO 8601.
        now: The present moment, which ages are counted to.
        every: Whether columns that are equal in all experiments are shown too.
        running: Whether it is the table of running experiments, with what matters there.
    """

    width: int | None
    now: datetime
    every: bool = False
    running: bool = False


def experiment_table(
    records: Sequence[ExperimentRecord],
    layout: Layout,
    *,
    mentioned: Sequence[str] = (),
    short: int = SHORT_ID_LENGTH,
    style: Style = plain,
) -> list[str]:
    """Return the table as lines of text, one experiment a line.

    Args:
        records: The experiments, in the order of the rows.
        layout: How it is to look.
        mentioned: Names of params and metrics that are shown in any case: those that were filtered or sorted by.
        short: Length of a short ID, see `short_length`.
        style: How to colour.
    """
    columns = fitting(_columns(records, layout, mentioned, short), layout.width)
    return lines(columns, style)


def footer(records: Sequence[ExperimentRecord], layout: Layout, mentioned: Sequence[str] = ()) -> list[str]:
    """Return what is said below the table: how many there are, which is best, what is equal in all, what did not fit."""
    running = sum(record.status.word == "running" for record in records)
    said = f"{text.plural(len(records), 'experiment')}{f', {running} running' if running else ''}."
    metric = _shared_metric(records)
    best = _best_record(records, metric)
    if metric is not None and best is not None:
        checkpoint = best.best()
        assert checkpoint is not None
        said += f" Best {text.safe(metric.name)} {text.number(checkpoint.metrics[metric.name])} ({best.id[:SHORT_ID_LENGTH]})"
    said_lines = [said]
    if not layout.every and len(records) > 1:
        same = {name: values[0] for name, values in _param_values(records).items() if not _differs(values)}
        if same:
            shown = [f"{text.safe(name)}={text.cut(text.cell(value))}" for name, value in list(same.items())[:5]]
            more = f" … {len(same) - 5} more (--all)" if len(same) > 5 else ""
            said_lines.append(f"Same in all: {' '.join(shown)}{more}")
    every_column = _columns(records, layout, mentioned, SHORT_ID_LENGTH)
    kept = fitting(every_column, layout.width)
    hidden = [column.heading.lower() for column in every_column if column not in kept]
    if hidden:
        said_lines.append(
            f"{text.plural(len(hidden), 'column')} hidden: {', '.join(hidden)}  (a wider terminal or a pipe shows all)"
        )
    return said_lines


def short_length(ids: Sequence[str]) -> int:
    """Return how many characters of an ID tell all of these apart: 7, and more only where that is not enough."""
    length = SHORT_ID_LENGTH
    for one, other in pairwise(sorted(ids)):
        while one[:length] == other[:length] and length < len(one):
            length += 1
    return length


# --- columns --------------------------------------------------------------------------------------------------------


def _columns(records: Sequence[ExperimentRecord], layout: Layout, mentioned: Sequence[str], short: int) -> list[Column]:
    statuses = [record.status.word for record in records]
    columns = [
        Column("EXPERIMENT", [record.id[:short] for record in records], ALWAYS, ["bold"] * len(records)),
        Column("STARTED", [_started(record, layout) for record in records], ALWAYS),
        Column("STATUS", [str(word) for word in statuses], ALWAYS, [STATUS_STYLES[word] for word in statuses]),
    ]
    if layout.running:
        columns += _running_columns(records, layout)
    else:
        columns += _where_columns(records, layout)
    columns += _param_columns(records, layout, mentioned)
    columns += _metric_columns(records, layout, mentioned)
    return columns + _checkpoint_columns(records, layout, short)


def _started(record: ExperimentRecord, layout: Layout) -> str:
    if layout.width is None:
        return text.iso(record.created)
    return f"{text.age((layout.now - record.created).total_seconds())} ago"


def _running_columns(records: Sequence[ExperimentRecord], layout: Layout) -> list[Column]:
    lasts = [record.heartbeat.age_s if record.heartbeat is not None else None for record in records]
    return [
        Column("ELAPSED", [text.span((layout.now - record.created).total_seconds()) for record in records], ALWAYS),
        Column("LAST", [text.age(last) + " ago" if last is not None else "-" for last in lasts], HOST),
        Column("HOST", [_cell(record.host or "-", layout) for record in records], USER),
    ]


def _where_columns(records: Sequence[ExperimentRecord], layout: Layout) -> list[Column]:
    columns = []
    for heading, cells, keep in (
        ("HOST", [record.host for record in records], HOST),
        ("USER", [record.user for record in records], USER),
    ):
        if layout.every or len(set(cells)) > 1:
            columns.append(Column(heading, [_cell(cell or "-", layout) for cell in cells], keep))
    return columns


def _param_columns(records: Sequence[ExperimentRecord], layout: Layout, mentioned: Sequence[str]) -> list[Column]:
    values = _param_values(records)
    chosen = [name for name, column in values.items() if layout.every or name in mentioned or _differs(column)]
    # Few distinct values tell most: they group the experiments. All different ones (a seed, a name) come last.
    chosen.sort(key=lambda name: (name not in mentioned, _distinct(values[name]) == len(records) > 2, _distinct(values[name])))
    columns = []
    for index, name in enumerate(chosen):
        keep = ALWAYS if name in mentioned else PARAM if index < PARAMS_KEPT_LONGEST else LATE_PARAM
        cells = ["-" if value is _NOTHING else _cell(value, layout) for value in values[name]]
        columns.append(Column(text.safe(name).upper(), cells, keep))
    return columns


def _metric_columns(records: Sequence[ExperimentRecord], layout: Layout, mentioned: Sequence[str]) -> list[Column]:
    primary = list(dict.fromkeys(m.name for record in records if (m := record.primary_metric) is not None))
    every = dict.fromkeys(name for record in records if (shown := _shown(record)) is not None for name in shown.metrics)
    if layout.every or not primary:
        chosen = [*primary, *(name for name in every if name not in primary)]
    else:
        chosen = [*primary, *(name for name in mentioned if name in every and name not in primary)]
    columns = []
    for index, name in enumerate(chosen):
        is_primary = name in primary
        heading = text.safe(name).upper() + ("" if is_primary or primary else " (LATEST)")
        best = _best_record(records, _shared_metric(records)) if is_primary and len(records) > 1 else None
        cells, styles = [], []
        for record in records:
            shown = _shown(record)
            value = shown.metrics.get(name, _NOTHING) if shown is not None else _NOTHING
            cells.append(("-" if value is _NOTHING else _cell(value, layout)) + ("*" if record is best else ""))
            styles.append("bold green" if record is best else "red" if _is_nan(value) else "")
        columns.append(Column(heading, cells, ALWAYS if name in mentioned or (is_primary and not index) else METRIC, styles))
    return columns


def _checkpoint_columns(records: Sequence[ExperimentRecord], layout: Layout, short: int) -> list[Column]:
    best = [_checkpoint_cell(record.best(), short) for record in records]
    latest = [_checkpoint_cell(record.latest(), short) for record in records]
    columns = []
    if any(best):
        columns.append(Column("BEST CHECKPOINT", best, LATEST))
    if any(latest):
        columns.append(Column("LATEST CHECKPOINT", latest, SAME_LATEST if best == latest else LATEST))
    return columns


def _checkpoint_cell(checkpoint: CheckpointRecord | None, short: int) -> str:
    return f"{checkpoint.id[:short]} (step {checkpoint.step})" if checkpoint is not None else ""


# --- values ---------------------------------------------------------------------------------------------------------

_NOTHING = object()


def _shown(record: ExperimentRecord) -> CheckpointRecord | None:
    return record.best() or record.latest()


def _param_values(records: Sequence[ExperimentRecord]) -> dict[str, list[Any]]:
    flat = [flatten(record.params) for record in records]
    return {name: [params.get(name, _NOTHING) for params in flat] for name in dict.fromkeys(n for params in flat for n in params)}


def _differs(values: Sequence[Any]) -> bool:
    return any(value != values[0] or isinstance(value, bool) != isinstance(values[0], bool) for value in values)


def _distinct(values: Sequence[Any]) -> int:
    return len({repr(value) for value in values})


def _cell(value: Any, layout: Layout) -> str:
    shown = text.cell(value)
    return shown if layout.width is None else text.cut(shown)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _shared_metric(records: Sequence[ExperimentRecord]) -> PrimaryMetric | None:
    metrics = {metric for record in records if (metric := record.primary_metric) is not None}
    return metrics.pop() if len(metrics) == 1 else None


def _best_record(records: Sequence[ExperimentRecord], metric: PrimaryMetric | None) -> ExperimentRecord | None:
    if metric is None:
        return None
    sign = 1 if metric.goal == "minimize" else -1
    candidates = [(sign * best.metrics[metric.name], record) for record in records if (best := record.best()) is not None]
    candidates = [candidate for candidate in candidates if is_comparable(candidate[0])]
    return min(candidates, key=lambda candidate: candidate[0], default=(None, None))[1]
