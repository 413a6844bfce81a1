"""The table of experiments: which columns, in which order, and what stands in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from keepsake.display import text
from keepsake.display.tables import STATUS_STYLES, Column, View, fitting, lines
from keepsake.repository.records import is_comparable
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord, PrimaryMetric

MENTIONED, BEST, PARAM, LATEST, METRIC, LATE_PARAM, USER, HOST, SAME_LATEST = range(1, 10)
"""Which columns are shown where a terminal is too narrow for all: those with the lowest rank."""

PARAMS_KEPT_LONGEST = 3
SAME_PARAMS_SHOWN = 5


class ExperimentTable:
    """Experiments as a table, one a line.

    Args:
        records: The experiments, in the order of the rows.
        view: How it is to look; ``every`` shows columns that are equal in all experiments too.
        mentioned: Names of params and metrics that are shown in any case: those that were filtered or sorted by.
        running: Whether it is the table of running experiments, with what matters there.
    """

    def __init__(
        self, records: Sequence[ExperimentRecord], view: View, *, mentioned: Sequence[str] = (), running: bool = False
    ) -> None:
        self._records = records
        self._view = view
        self._mentioned = mentioned
        self._shared_metric = _shared_metric(records)
        self._best = _best_record(records, self._shared_metric)
        self._columns = self._all_columns(running)
        self._shown = fitting(self._columns, view.width)

    def lines(self) -> list[str]:
        """Return headings and rows."""
        return lines(self._shown, self._view.style)

    def footer(self) -> list[str]:
        """Return what is said below: how many there are, which is best, what is equal in all, what did not fit."""
        return [line for line in (self._counts(), self._same_in_all(), self._hidden()) if line]

    # --- columns ----------------------------------------------------------------------------------------------------

    def _all_columns(self, running: bool) -> list[Column]:
        words = [record.status.word for record in self._records]
        statuses = [text.status(record) for record in self._records]
        return [
            Column("EXPERIMENT", [record.id[: self._view.short] for record in self._records], styles=["bold"] * len(statuses)),
            Column("STARTED", [self._started(record) for record in self._records]),
            Column("STATUS", statuses, styles=[STATUS_STYLES[word] for word in words]),
            *(self._running_columns() if running else self._place_columns()),
            *self._param_columns(),
            *self._metric_columns(),
            *self._checkpoint_columns(),
        ]

    def _started(self, record: ExperimentRecord) -> str:
        return text.iso(record.created) if self._view.width is None else f"{self._age_of(record)} ago"

    def _age_of(self, record: ExperimentRecord) -> str:
        return text.age((self._view.now - record.created).total_seconds())

    def _running_columns(self) -> list[Column]:
        beats = [record.heartbeat.age_s if record.heartbeat is not None else None for record in self._records]
        elapsed = [text.span((self._view.now - record.created).total_seconds()) for record in self._records]
        return [
            Column("ELAPSED", elapsed, (MENTIONED, 0)),
            Column("LAST", ["-" if beat is None else f"{text.age(beat)} ago" for beat in beats], (MENTIONED, 1)),
            Column("HOST", [self._text(record.host) for record in self._records], (MENTIONED, 2)),
        ]

    def _place_columns(self) -> list[Column]:
        hosts, users = [record.host for record in self._records], [record.user for record in self._records]
        return [
            Column(heading, [self._text(place) for place in places], (rank, 0))
            for heading, places, rank in (("HOST", hosts, HOST), ("USER", users, USER))
            if self._is_shown(heading.lower(), places)
        ]

    def _param_columns(self) -> list[Column]:
        values = _param_values(self._records)
        chosen = [name for name in values if self._is_shown(name, values[name])]
        # Few distinct values tell most: they group the experiments. Where all differ (a seed, a name) and what is long come last.
        ranked = sorted(
            chosen,
            key=lambda name: (
                any(isinstance(value, list | dict) for value in values[name]),
                1 < len(values[name]) == len(set(map(repr, values[name]))) > 2,
            ),
        )
        columns = []
        for name in chosen:
            rank = ranked.index(name)
            level = MENTIONED if name in self._mentioned else PARAM if rank < PARAMS_KEPT_LONGEST else LATE_PARAM
            cells = ["-" if value is _NOTHING else self._cut(text.cell(value)) for value in values[name]]
            styles = ["red" if _is_nonfinite(value) else "" for value in values[name]]
            columns.append(Column(self._heading(name), cells, (level, rank), styles))
        return columns

    def _metric_columns(self) -> list[Column]:
        primary = list(dict.fromkeys(m.name for record in self._records if (m := record.primary_metric) is not None))
        shown = [record.best() or record.latest() for record in self._records]
        names = dict.fromkeys(
            [*primary, *(name for checkpoint in shown if checkpoint is not None for name in checkpoint.metrics)]
        )
        columns = []
        for index, name in enumerate(names):
            values = [checkpoint.metrics.get(name, _NOTHING) if checkpoint is not None else _NOTHING for checkpoint in shown]
            if name in primary or self._is_shown(name, values):
                level = MENTIONED if name in self._mentioned or not index else METRIC
                columns.append(self._metric_column(name, values, (level, index), is_primary=name in primary, latest=not primary))
        return columns

    def _metric_column(self, name: str, values: list[Any], keep: tuple[int, int], *, is_primary: bool, latest: bool) -> Column:
        present = iter(text.column([value for value in values if value is not _NOTHING]))
        cells = ["-" if value is _NOTHING else self._cut(next(present)) for value in values]
        styles = ["red" if _is_nonfinite(value) else "" for value in values]
        if is_primary and self._best is not None and len(self._records) > 1:
            row = next(index for index, record in enumerate(self._records) if record is self._best)
            cells[row] += "*"
            styles[row] = "bold green"
        return Column(self._heading(name) + (" (LATEST)" if latest else ""), cells, keep, styles)

    def _checkpoint_columns(self) -> list[Column]:
        best = [self._checkpoint(record.best()) for record in self._records]
        latest = [self._checkpoint(record.latest()) for record in self._records]
        columns = []
        if any(best):
            columns.append(Column("BEST CHECKPOINT", best, (BEST, 0)))
        if any(latest):
            columns.append(Column("LATEST CHECKPOINT", latest, (SAME_LATEST if best == latest else LATEST, 0)))
        return columns

    def _checkpoint(self, checkpoint: CheckpointRecord | None) -> str:
        return f"{checkpoint.id[: self._view.short]} (step {checkpoint.step})" if checkpoint is not None else ""

    def _is_shown(self, name: str, values: Sequence[Any]) -> bool:
        return self._view.every or name in self._mentioned or _differs(values)

    def _heading(self, name: str) -> str:
        return self._cut(text.safe(name.upper()))

    def _text(self, recorded: str) -> str:
        return self._cut(text.safe(recorded)) or "-"

    def _cut(self, shown: str) -> str:
        return shown if self._view.width is None else text.cut(shown)

    # --- footer -----------------------------------------------------------------------------------------------------

    def _counts(self) -> str:
        running = sum(record.status.word == "running" for record in self._records)
        counts = f"{text.plural(len(self._records), 'experiment')}{f', {running} running' if running else ''}."
        checkpoint = self._best.best() if self._best is not None else None
        if checkpoint is None or self._shared_metric is None or self._best is None:
            return counts
        name = self._shared_metric.name
        return f"{counts} Best {text.safe(name)} {text.number(checkpoint.metrics[name])} ({self._best.id[: self._view.short]})"

    def _same_in_all(self) -> str:
        if self._view.every or len(self._records) < 2:
            return ""
        same = {name: values[0] for name, values in _param_values(self._records).items() if not _differs(values)}
        shown = [f"{text.safe(name)}={text.cut(text.cell(value))}" for name, value in list(same.items())[:SAME_PARAMS_SHOWN]]
        more = f" … {len(same) - SAME_PARAMS_SHOWN} more (--all)" if len(same) > SAME_PARAMS_SHOWN else ""
        return f"Same in all: {' '.join(shown)}{more}" if shown else ""

    def _hidden(self) -> str:
        hidden = [column.heading.lower() for column in self._columns if column not in self._shown]
        if not hidden:
            return ""
        return f"{text.plural(len(hidden), 'column')} hidden: {', '.join(hidden)}  (a wider terminal or a pipe shows all)"


# --- values ---------------------------------------------------------------------------------------------------------

_NOTHING = object()


def _param_values(records: Sequence[ExperimentRecord]) -> dict[str, list[Any]]:
    flat = [flatten(record.params) for record in records]
    return {name: [params.get(name, _NOTHING) for params in flat] for name in dict.fromkeys(n for params in flat for n in params)}


def _differs(values: Sequence[Any]) -> bool:
    return any(not _same(value, values[0]) for value in values)


def _same(one: Any, other: Any) -> bool:
    both_nan = one != one and other != other
    return both_nan or bool(one == other and isinstance(one, bool) == isinstance(other, bool))


def _is_nonfinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


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
