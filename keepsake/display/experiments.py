"""The table of experiments: which columns, in which order, and what stands in them."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from keepsake.display import text
from keepsake.display.sparkline import sparkline
from keepsake.display.tables import STATUS_STYLES, Column, View, fitting, hidden_columns, lines
from keepsake.exceptions import InvalidQuery
from keepsake.repository.json_values import is_comparable
from keepsake.repository.summary import ID, STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from keepsake.repository.primary_metric import PrimaryMetric
    from keepsake.repository.summary import CheckpointRow, Summary

CHOSEN, BEST, PARAM, LATEST, METRIC, LATE_PARAM, USER, HOST, SAME_LATEST = range(1, 10)
"""Which columns are shown where a terminal is too narrow for all: those with the lowest rank."""

PARAMS_KEPT_LONGEST = 3
SAME_PARAMS_SHOWN = 5

SECONDS_LENGTH = len("2026-11-23T04:05:06")

_ALWAYS = ("experiment", "started", "status")
"""The columns that are there unless others are asked for."""


class Choice(NamedTuple):
    """Which columns somebody wants to see.

    Args:
        only: Patterns of the names of columns, in the order wanted; empty for those that are chosen by themselves.
        added: Patterns of columns to show besides.
        removed: Patterns of columns to leave out.
    """

    only: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Choice:
        """Read ``a``, ``+b`` and ``-c``, of which several may stand in one word with commas between them.

        Example:
            >>> Choice.parse(["val_loss,lr", "-user"])
            Choice(only=('val_loss', 'lr'), added=(), removed=('user',))
        """
        names = [name.strip() for word in words for name in word.split(",") if name.strip()]
        return cls(
            tuple(name for name in names if name[0] not in "+-"),
            tuple(name[1:] for name in names if name[0] == "+"),
            tuple(name[1:] for name in names if name[0] == "-"),
        )


class _Candidate(NamedTuple):
    """A column that could be shown.

    Args:
        name: What it is asked for by.
        is_wanted: Whether it is shown without being asked for.
        keep: See `Column`.
        build: Makes the column.
        values: What stands in it, for other programs.
    """

    name: str
    is_wanted: bool
    keep: tuple[int, int]
    build: Callable[[], Column]
    values: Callable[[], list[Any]]


class ExperimentTable:
    """Experiments as a table, one a line.

    Args:
        summaries: The experiments, in the order of the rows.
        view: How it is to look; ``every`` shows columns that are equal in all experiments too.
        mentioned: Names of params and metrics that are shown in any case: those that were filtered or sorted by.
        running: Whether it is the table of running experiments, with what matters there.
        choice: Which columns are wanted.
        counts: How many experiments there are and how many of them run, where these are not all of them.
        trends: For each experiment the values of its primary metric, oldest first, or none; a column shows their course.
        rows: How many are shown: the last ones. What is said of them, and which columns there are, goes by all.

    Raises:
        InvalidQuery: A column is asked for that does not exist.

    Attributes:
        shown: The columns that fit.
    """

    def __init__(
        self,
        summaries: Sequence[Summary],
        view: View,
        *,
        mentioned: Sequence[str] = (),
        running: bool = False,
        choice: Choice | None = None,
        counts: tuple[int, int] | None = None,
        trends: Sequence[Sequence[Any]] = (),
        rows: int | None = None,
    ) -> None:
        self._summaries = summaries
        self._view = view
        self._mentioned = mentioned
        self._counted = counts
        self._trends = trends
        self._best_of = [summary.best_row for summary in summaries]
        self._latest_of = [summary.latest_row for summary in summaries]
        self._metrics = [summary.shown_metrics for summary in summaries]
        self._words = [summary.status.word for summary in summaries]
        self._shared_metric = _shared_metric(summaries)
        self._best = _best_row(self._metrics, self._best_of, self._shared_metric)
        self._chosen = _chosen(list(self._candidates(running)), choice or Choice())
        columns = (candidate.build() for candidate in self._chosen)
        self._columns = [column if rows is None else column.last(rows) for column in columns]
        self.shown = fitting(self._columns, view.width)

    def lines(self) -> list[str]:
        """Return headings and rows."""
        return lines(self.shown, self._view.style)

    def rows(self) -> Iterator[list[str]]:
        """Yield headings and rows as they are read by people, without anything around them."""
        yield [column.heading for column in self._columns]
        yield from map(list, zip(*(column.cells for column in self._columns), strict=True))

    def values(self) -> Iterator[list[str]]:
        """Yield names and rows for other programs: whole IDs, all digits, times in UTC; what is missing is empty."""
        yield [candidate.name for candidate in self._chosen]
        columns = [[_exact(value) for value in candidate.values()] for candidate in self._chosen]
        yield from map(list, zip(*columns, strict=True))

    def footer(self) -> list[str]:
        """Return what is said below: how many there are, which is best, what is equal in all, what did not fit."""
        return [line for line in (self._counts(), self._same_in_all(), self._hidden()) if line]

    # --- columns ----------------------------------------------------------------------------------------------------

    def _candidates(self, running: bool) -> Iterator[_Candidate]:
        ids = [summary.id for summary in self._summaries]
        uploaded = [summary.is_uploaded for summary in self._summaries]
        statuses = [text.status(word, is_uploaded=known) for word, known in zip(self._words, uploaded, strict=True)]
        yield self._fixed("experiment", lambda: [id[: self._view.short] for id in ids], lambda: ids, styles=["bold"] * len(ids))
        yield self._fixed("started", self._started, lambda: [summary.created_text for summary in self._summaries])
        yield self._fixed("status", lambda: statuses, lambda: statuses, styles=[STATUS_STYLES[word] for word in self._words])
        yield from self._running_columns(wanted=running)
        yield from self._place_columns(running=running)
        yield from self._param_columns()
        yield from self._metric_columns()
        yield from self._checkpoint_columns()

    def _fixed(
        self,
        name: str,
        cells: Callable[[], list[str]],
        values: Callable[[], list[Any]],
        keep: tuple[int, int] = (0, 0),
        *,
        wanted: bool = True,
        styles: Sequence[str] = (),
    ) -> _Candidate:
        return _Candidate(name, wanted, keep, lambda: Column(name.replace("_", " ").upper(), cells(), keep, list(styles)), values)

    def _started(self) -> list[str]:
        if self._view.width is None:
            return [f"{summary.created_text[:SECONDS_LENGTH]}Z" for summary in self._summaries]
        return [f"{text.age((self._view.now - summary.created).total_seconds())} ago" for summary in self._summaries]

    def _running_columns(self, *, wanted: bool) -> Iterator[_Candidate]:
        yield self._fixed(
            "elapsed", lambda: [text.span(s) for s in self._elapsed_s()], self._elapsed_s, (CHOSEN, 0), wanted=wanted
        )
        yield self._fixed(
            "last",
            lambda: ["-" if beat is None else f"{text.age(beat)} ago" for beat in self._beats_s()],
            self._beats_s,
            (CHOSEN, 1),
            wanted=wanted,
        )

    def _elapsed_s(self) -> list[float]:
        return [((summary.ended or self._view.now) - summary.created).total_seconds() for summary in self._summaries]

    def _beats_s(self) -> list[float | None]:
        return [summary.heartbeat.age_s if summary.heartbeat is not None else None for summary in self._summaries]

    def _place_columns(self, *, running: bool) -> Iterator[_Candidate]:
        hosts, users = [summary.host for summary in self._summaries], [summary.user for summary in self._summaries]
        names, tags = [summary.name for summary in self._summaries], [", ".join(summary.tags) for summary in self._summaries]
        yield self._texts_column("name", names, (CHOSEN, 3), wanted=any(names))
        yield self._texts_column("tags", tags, (CHOSEN, 4), wanted=any(tags))
        yield self._texts_column(
            "host", hosts, (CHOSEN, 2) if running else (HOST, 0), wanted=running or self._is_wanted("host", hosts)
        )
        yield self._texts_column("user", users, (USER, 0), wanted=not running and self._is_wanted("user", users))
        sizes, counts = [one.size_bytes for one in self._summaries], [one.num_checkpoints for one in self._summaries]
        yield self._fixed(
            "size", lambda: [text.size(size) if size else "-" for size in sizes], lambda: sizes, (METRIC, 98), wanted=False
        )
        yield self._fixed("checkpoints", lambda: list(map(str, counts)), lambda: counts, (METRIC, 99), wanted=False)

    def _texts_column(self, name: str, values: list[Any], keep: tuple[int, int], *, wanted: bool) -> _Candidate:
        return self._fixed(
            name, lambda: [self._cut(text.safe(one)) or "-" for one in values], lambda: values, keep, wanted=wanted
        )

    def _param_columns(self) -> Iterator[_Candidate]:
        values = _param_values(self._summaries)
        wanted = [name for name in values if self._is_wanted(name, values[name])]
        # Few distinct values tell most: they group the experiments. Where all differ (a seed, a name) and what is long come last.
        ranked = sorted(wanted, key=lambda name: _telling(values[name]))
        ranks = {name: rank for rank, name in enumerate(ranked)}
        for name, column in values.items():
            rank = ranks.get(name, len(ranks))
            level = CHOSEN if name in self._mentioned else PARAM if rank < PARAMS_KEPT_LONGEST else LATE_PARAM
            yield self._recorded(f"params.{name}", name, column, (level, rank), name in ranks, text.cells)

    def _metric_columns(self) -> Iterator[_Candidate]:
        primary = {metric.name: None for summary in self._summaries if (metric := summary.primary_metric) is not None}
        names = dict.fromkeys(primary) | _names(self._metrics)
        suffix = "" if primary else " (LATEST)"
        for index, name in enumerate(names):
            values = _values(self._metrics, name)
            is_wanted = name in primary or self._is_wanted(name, values)
            level = CHOSEN if name in self._mentioned or not index else METRIC
            starred = name in primary and len(self._summaries) > 1
            yield self._recorded(
                f"metrics.{name}", name, values, (level, index), is_wanted, text.column, starred=starred, suffix=suffix
            )
            if not index and any(map(sparkline, self._trends)):
                yield self._trend_column()

    def _trend_column(self) -> _Candidate:
        def build() -> Column:
            from keepsake.display.trends import TrendColumn  # which only pages have

            return TrendColumn.of("TREND", list(self._trends), self._view, (BEST, 0))

        return _Candidate("trend", True, (BEST, 0), build, lambda: [_NOTHING] * len(self._trends))

    def _recorded(
        self,
        name: str,
        heading: str,
        values: list[Any],
        keep: tuple[int, int],
        is_wanted: bool,
        cells_of: Callable[[Sequence[Any]], list[str]],
        *,
        starred: bool = False,
        suffix: str = "",
    ) -> _Candidate:
        """Return the column of a param or a metric."""

        def build() -> Column:
            cells = self._cut_all(cells_of(values))
            styles = ["red" if _is_nonfinite(value) else "" for value in values] if _has_nonfinite(values) else []
            if starred and self._best is not None:
                styles = styles or [""] * len(cells)
                cells[self._best] += "*"
                styles[self._best] = "bold green"
            return Column(self._cut(text.safe(heading.upper())) + suffix, cells, keep, styles)

        return _Candidate(name, is_wanted, keep, build, lambda: values)

    def _checkpoint_columns(self) -> Iterator[_Candidate]:
        best, latest = self._checkpoints(self._best_of), self._checkpoints(self._latest_of)
        latest_keep = (SAME_LATEST if best == latest else LATEST, 0)
        yield self._fixed("best_checkpoint", lambda: best, lambda: _ids(self._best_of), (BEST, 0), wanted=any(best))
        yield self._fixed("latest_checkpoint", lambda: latest, lambda: _ids(self._latest_of), latest_keep, wanted=any(latest))

    def _checkpoints(self, checkpoints: Sequence[CheckpointRow | None]) -> list[str]:
        short = self._view.short
        return [f"{one[ID][:short]} (step {one[STEP] or 0})" if one is not None else "" for one in checkpoints]

    def _is_wanted(self, name: str, values: Sequence[Any]) -> bool:
        return self._view.every or name in self._mentioned or _differs(values)

    def _cut(self, shown: str) -> str:
        return shown if self._view.width is None else text.cut(shown)

    def _cut_all(self, shown: list[str]) -> list[str]:
        return shown if self._view.width is None else [text.cut(one) for one in shown]

    # --- footer -----------------------------------------------------------------------------------------------------

    def _counts(self) -> str:
        shown = len(self._summaries)
        total, running = self._counted or (shown, self._words.count("running"))
        counts = f"{text.plural(total, 'experiment')}{f', {running} running' if running else ''}."
        if shown < total:
            counts = f"Showing {shown:,} of {counts[:-1]}{self._flag(' (-n 0 for all)')}."
        if self._shared_metric is None or self._best is None:
            return counts
        name = self._shared_metric.name
        id = self._summaries[self._best].id[: self._view.short]
        return f"{counts} Best {text.safe(name)} {text.number(self._metrics[self._best][name])} ({id})"

    def _same_in_all(self) -> str:
        if self._view.every or len(self._summaries) < 2:
            return ""
        same = {name: values[0] for name, values in _param_values(self._summaries).items() if not _differs(values)}
        shown = [f"{text.safe(name)}={text.cut(text.cell(value))}" for name, value in list(same.items())[:SAME_PARAMS_SHOWN]]
        more = f" … {len(same) - SAME_PARAMS_SHOWN} more{self._flag(' (--all)')}" if len(same) > SAME_PARAMS_SHOWN else ""
        return f"Same in all: {' '.join(shown)}{more}" if shown else ""

    def _hidden(self) -> str:
        hidden = hidden_columns(self._columns, self.shown)
        return f"{hidden}{self._flag('  (--wide shows all, --columns picks)')}" if hidden else ""

    def _flag(self, hint: str) -> str:
        return hint if self._view.flags else ""


# --- choosing columns -----------------------------------------------------------------------------------------------


def _chosen(candidates: list[_Candidate], choice: Choice) -> list[_Candidate]:
    for pattern in (*choice.only, *choice.added, *choice.removed):
        if not any(_fits(candidate, pattern) for candidate in candidates) and "*" not in pattern:
            raise _no_such_column(pattern, candidates)
    if choice.only:
        # The experiment's ID tells the rows apart, whatever else is wanted.
        patterns = ("experiment", *choice.only)
        named = {one.name: one for pattern in patterns for one in candidates if _fits(one, pattern)}
        chosen = [_kept(one) for one in named.values()]
    else:
        chosen = [candidate for candidate in candidates if candidate.is_wanted]
    present = {candidate.name for candidate in chosen}
    added = [one for one in candidates if any(_fits(one, pattern) for pattern in choice.added)]
    chosen += [_kept(one) for one in added if one.name not in present]
    return [one for one in chosen if not any(_fits(one, pattern) for pattern in choice.removed)]


def _kept(candidate: _Candidate) -> _Candidate:
    """Return a column that was asked for, which is the last to give way to a narrow terminal."""
    if candidate.name in _ALWAYS:
        return candidate
    keep = (CHOSEN, candidate.keep[1])

    def build() -> Column:
        column = candidate.build()
        column.keep = keep
        return column

    return candidate._replace(keep=keep, build=build)


def _fits(candidate: _Candidate, pattern: str) -> bool:
    names = {candidate.name, candidate.name.removeprefix("params.").removeprefix("metrics.")}
    names |= {candidate.name.removesuffix("_checkpoint")}
    return pattern in names or ("*" in pattern and any(fnmatchcase(name, pattern) for name in names))


def _no_such_column(pattern: str, candidates: Sequence[_Candidate]) -> InvalidQuery:
    names = [candidate.name.removeprefix("params.").removeprefix("metrics.") for candidate in candidates]
    import difflib

    close = difflib.get_close_matches(pattern, names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names[:20])}"
    return InvalidQuery(f'no column named "{pattern}"', hint=hint)


# --- values ---------------------------------------------------------------------------------------------------------

_NOTHING = text.NOTHING


def _param_values(summaries: Sequence[Summary]) -> dict[str, list[Any]]:
    flat = [summary.flat_params for summary in summaries]
    return {name: _values(flat, name) for name in _names(flat)}


def _names(rows: Iterable[dict[str, Any]]) -> dict[str, None]:
    """Return the names that there are in rows, in the order in which they first come; nearly all rows have the same ones."""
    names: dict[str, None] = {}
    for shape in dict.fromkeys(map(tuple, rows)):
        names.update(dict.fromkeys(shape))
    return names


def _values(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name, _NOTHING) for row in rows]


def _differs(values: Sequence[Any]) -> bool:
    if len(set(map(type, values))) == 1 and values[0] == values[0]:
        return values.count(values[0]) < len(values)
    return any(not _same(value, values[0]) for value in values)


def _same(one: Any, other: Any) -> bool:
    both_nan = one != one and other != other
    return both_nan or bool(one == other and isinstance(one, bool) == isinstance(other, bool))


def _telling(values: Sequence[Any]) -> tuple[bool, bool]:
    """Return a sort key: what groups the experiments comes first."""
    if {list, dict} & set(map(type, values)):
        return True, False
    return False, 2 < len(values) == len(set(values))


def _exact(value: Any) -> str:
    """Return a value for other programs, on one line that is safe on a terminal."""
    if value is _NOTHING or value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return str(value).lower() if isinstance(value, int) else text.cell(value)


def _has_nonfinite(values: Sequence[Any]) -> bool:
    kinds = set(map(type, values))
    if kinds == {float}:
        return not all(map(math.isfinite, values))
    return not kinds.isdisjoint({float}) and any(map(_is_nonfinite, values))


def _is_nonfinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _shared_metric(summaries: Sequence[Summary]) -> PrimaryMetric | None:
    metrics = {metric for summary in summaries if (metric := summary.primary_metric) is not None}
    return metrics.pop() if len(metrics) == 1 else None


def _ids(checkpoints: Sequence[CheckpointRow | None]) -> list[Any]:
    return [one[ID] if one is not None else _NOTHING for one in checkpoints]


def _best_row(
    metrics: Sequence[dict[str, Any]], best: Sequence[CheckpointRow | None], metric: PrimaryMetric | None
) -> int | None:
    if metric is None:
        return None
    sign = 1 if metric.goal == "minimize" else -1
    values = [(sign * metrics[row][metric.name], row) for row, checkpoint in enumerate(best) if checkpoint is not None]
    return min((pair for pair in values if is_comparable(pair[0])), default=(None, None))[1]


def best_row(summaries: Sequence[Summary]) -> int | None:
    """Return which of these experiments is the best by the primary metric that they share; None where there is no such."""
    metrics, best = [summary.shown_metrics for summary in summaries], [summary.best_row for summary in summaries]
    return _best_row(metrics, best, _shared_metric(summaries))
