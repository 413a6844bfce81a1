"""Experiments, checkpoints and histories as columns: which there are, what they are called and what stands in them.

Names are those of the filter language: fields as they are, params as ``param.lr``, metrics as ``metric.val_loss``, whatever else is
called so. No library of data frames is needed here.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from keepsake.query.names import FIELDS, MISSING
from keepsake.repository.json_values import decode_value, parse_time, utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from keepsake.repository.summary import Summary

Kind: TypeAlias = Literal["text", "texts", "time", "whole", "number", "truth", "any"]
"""What stands in a column, beside None for what is missing: ``texts`` are lists, ``any`` is of several kinds or of none of these."""

Metrics: TypeAlias = Literal["best", "latest"]

_PLAIN = {int, float, bool, type(None)}


class Column(NamedTuple):
    """One value for each row.

    Args:
        kind: What sort of values they are.
        values: The values; None where there is none.
    """

    kind: Kind
    values: list[Any]


def experiment_columns(summaries: Sequence[Summary], metrics: Metrics = "best") -> dict[str, Column]:
    """Return the columns of experiments, by name.

    Args:
        summaries: The experiments, one a row.
        metrics: Those of which checkpoint: of the ``best``, and of the latest where none is the best; or of the ``latest``.
    """
    now = utc_now()
    duration = FIELDS["duration"].get
    durations = [duration(one, now) for one in summaries]
    git = [one.git or {} for one in summaries]
    best, latest = [one.best_json for one in summaries], [one.latest_json for one in summaries]
    primary = [one.primary_metric for one in summaries]
    shown = latest if metrics == "latest" else [one or other for one, other in zip(best, latest, strict=True)]
    return {
        "id": Column("text", [one.id for one in summaries]),
        "name": _texts(one.name for one in summaries),
        "tags": Column("texts", [list(one.tags) for one in summaries]),
        "notes": _texts(one.notes for one in summaries),
        "status": Column("text", [one.status.word for one in summaries]),
        "outcome": _texts(one.outcome for one in summaries),
        "error": _texts(one.error for one in summaries),
        "created": Column("time", [one.created for one in summaries]),
        "ended": Column("time", [one.ended for one in summaries]),
        "duration_s": Column("number", [None if one is MISSING else one for one in durations]),
        "user": _texts(one.user for one in summaries),
        "host": _texts(one.host for one in summaries),
        "command": _texts(one.command for one in summaries),
        "git.commit": _texts(one.get("commit") for one in git),
        "checkpoints": Column("whole", [one.num_checkpoints for one in summaries]),
        "size_bytes": Column("whole", [one.size_bytes for one in summaries]),
        "primary_metric": _texts(one.name if one is not None else None for one in primary),
        "goal": _texts(one.goal if one is not None else None for one in primary),
        "best.id": Column("text", [one and one["id"] for one in best]),
        "best.step": Column("whole", [one and _step(one) for one in best]),
        "latest.id": Column("text", [one and one["id"] for one in latest]),
        "latest.step": Column("whole", [one and _step(one) for one in latest]),
        **_named("param.", [one.flat_params for one in summaries]),
        **_metric_columns([one["metrics"] or {} if one is not None else {} for one in shown]),
    }


def checkpoint_columns(groups: Iterable[tuple[Summary, Sequence[Mapping[str, Any]]]]) -> dict[str, Column]:
    """Return the columns of checkpoints, by name, with the params of their experiments.

    Args:
        groups: Experiments, and checkpoints of each as they stand in its record.
    """
    rows: list[Mapping[str, Any]] = []
    owners: list[Summary] = []
    is_best: list[bool] = []
    for summary, checkpoints in groups:
        best = summary.best_json
        best_id = best["id"] if best is not None else None
        rows += checkpoints
        owners += [summary] * len(checkpoints)
        is_best += [row["id"] == best_id for row in checkpoints]
    return {
        "experiment": Column("text", [one.id for one in owners]),
        "name": _texts(one.name for one in owners),
        "id": Column("text", [row["id"] for row in rows]),
        "created": Column("time", [parse_time(row["created"]) for row in rows]),
        "step": Column("whole", [_step(row) for row in rows]),
        "best": Column("truth", is_best),
        "path": _texts(row.get("path") for row in rows),
        "size_bytes": Column("whole", [int(archive["size_bytes"]) if (archive := row.get("archive")) else None for row in rows]),
        **_named("param.", [one.flat_params for one in owners]),
        **_metric_columns([row.get("metrics") or {} for row in rows]),
    }


def history_columns(steps: Sequence[int], times: Sequence[datetime], metrics: Mapping[str, Sequence[Any]]) -> dict[str, Column]:
    """Return the columns of a history, by name.

    Args:
        steps: The step of each row.
        times: When each was logged.
        metrics: Values by metric.
    """
    columns = {f"metric.{name}": _numbers(list(values)) for name, values in metrics.items()}
    return {"step": Column("whole", list(steps)), "time": Column("time", list(times)), **columns}


def _step(checkpoint: Mapping[str, Any]) -> int:
    return int(checkpoint["step"] or 0)


def _texts(values: Iterable[str | None]) -> Column:
    """Return texts; an empty one is none."""
    return Column("text", [value or None for value in values])


def _metric_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Return metrics as they stand in records, by name; numbers are never whole only because these happen to be."""
    columns = {}
    for name in dict.fromkeys(chain.from_iterable(rows)):
        values = [row.get(name) for row in rows]
        if not _PLAIN.issuperset(map(type, values)):
            values = [decode_value(value) for value in values]
        columns[f"metric.{name}"] = _numbers(values)
    return columns


def _numbers(values: list[Any]) -> Column:
    kind = _kind(values)
    return Column("number" if kind == "whole" else kind, values)


def _named(prefix: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    columns = {}
    for name in dict.fromkeys(chain.from_iterable(rows)):
        values = [row.get(name) for row in rows]
        columns[prefix + name] = Column(_kind(values), values)
    return columns


def _kind(values: Iterable[Any]) -> Kind:
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int}:
        return "whole"
    if kinds and kinds <= {int, float}:
        return "number"
    if kinds == {bool}:
        return "truth"
    return "text" if kinds == {str} else "any"
