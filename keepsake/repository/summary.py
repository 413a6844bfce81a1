"""What a listing needs to know of one experiment: small enough to keep a hundred thousand of them at hand.

A summary is made of a record, kept as JSON by `keepsake.query.index`, and read lazily: a listing that shows fifty of ten thousand
experiments decodes little of the others. Everything about an experiment stands in its record only.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from keepsake.exceptions import CorruptedRecord
from keepsake.repository import fast_json
from keepsake.repository.json_values import INFINITY, MINUS_INFINITY, NAN, decode_value, format_time, is_comparable, parse_time
from keepsake.repository.layout import SHORT_ID_LENGTH, id_of_json_key
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.status import Heartbeat, Outcome, Status, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from keepsake.repository.annotations import Annotation
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

(
    _ID,
    _CREATED,
    _PARAMS,
    _FLAT_PARAMS,
    _USER,
    _HOST,
    _COMMAND,
    _PATH,
    _PYTHON_VERSION,
    _KEEPSAKE_VERSION,
    _OUTCOME,
    _ERROR,
    _ENDED,
    _HEARTBEAT_INTERVAL_S,
    _NUM_CHECKPOINTS,
    _SIZE_BYTES,
    _PRIMARY_METRIC,
    _BEST,
    _LATEST,
    _HAS_MARKERS,
) = range(20)
"""Where the values stand in a row: what a table of thousands and most filters need. Names for each would take half of the time."""

CheckpointRow: TypeAlias = "Sequence[Any]"
"""ID, step and metrics of a checkpoint, as they stand in the record."""

ID, STEP, METRICS = range(3)
"""Where these stand."""

_MARKERS = tuple(f'"{marker}"'.encode() for marker in (NAN, INFINITY, MINUS_INFINITY))

_QUOTE = ord('"')

_NUMBERS = {int, float}

_UNREAD: Final = object()


class Summary:
    """What is kept of one experiment; its properties are those of `ExperimentRecord` where they have the same name.

    Args:
        row: What `summarize` has made of the record.
        apart: What is kept apart of that, by name, as far as it is at hand; the rest is loaded when it is asked for.
        heartbeat: The last sign of life, where one is known and the experiment has not ended.
        is_uploaded: Whether the store that it was recorded for has all of it.

    Attributes:
        heartbeat: As given.
        is_uploaded: As given.
        annotation: Name, tags and notes, if somebody has given it some.
        aliases: The aliases of its checkpoints, by name: the ID of each one's checkpoint.
        load: Returns what is kept apart, because few questions are about it: the ``"details"`` or the ``"ranges"`` that `summarize`
            has made, or the ``"packages"``.

    Example:
        >>> from keepsake.repository.json_values import utc_now
        >>> from keepsake.repository.records import CheckpointRecord, ExperimentRecord
        >>> record = ExperimentRecord("4" * 64, utc_now(), {"lr": 0.1})
        >>> record.checkpoints = [CheckpointRecord("a" * 64, utc_now(), 1, metrics={"loss": 0.5})]
        >>> summary = Summary.of(record)
        >>> summary.params, summary.num_checkpoints, summary.latest().metrics
        ({'lr': 0.1}, 1, {'loss': 0.5})
    """

    # Not set one by one for each of ten thousand.
    annotation: Annotation | None = None
    aliases: Mapping[str, str] = MappingProxyType({})
    _created: datetime | None = None
    _params: dict[str, Any] | None = None
    _flat_params: dict[str, Any] | None = None
    _best: Any = _UNREAD
    _latest: Any = _UNREAD

    def __init__(
        self,
        row: Sequence[Any],
        apart: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        *,
        heartbeat: Heartbeat | None = None,
        is_uploaded: bool = True,
    ) -> None:
        self._row = row
        self._apart = apart
        self.heartbeat = heartbeat
        self.is_uploaded = is_uploaded
        self.load: Callable[[str], Mapping[str, Any]] = _nothing

    @classmethod
    def of(cls, record: ExperimentRecord) -> Summary:
        """Return the summary of a record that has been loaded."""
        row, details, ranges = summarize(record.to_json())
        apart = {"details": details, "ranges": ranges, "packages": record.python_packages}
        return cls(row, apart, heartbeat=record.heartbeat, is_uploaded=record.is_uploaded)

    # --- fields -----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """64 hexadecimal characters."""
        return self._row[_ID]  # type: ignore[no-any-return]

    @property
    def created(self) -> datetime:
        """When it was started, in UTC."""
        if self._created is None:
            self._created = parse_time(self._row[_CREATED])
        return self._created

    @property
    def created_text(self) -> str:
        """The same as the format has it."""
        return self._row[_CREATED]  # type: ignore[no-any-return]

    @property
    def params(self) -> dict[str, Any]:
        """Hyperparameters by name, nested ones as dicts."""
        if self._params is None:
            self._params = self._decoded(self.params_json)
        return self._params

    @property
    def params_json(self) -> dict[str, Any]:
        """The same as they stand in the record."""
        params = self._row[_PARAMS]
        return fast_json.loads(params.encode()) if isinstance(params, str) else params  # type: ignore[no-any-return]

    @property
    def flat_params(self) -> dict[str, Any]:
        """Hyperparameters by name, nested ones with dotted names."""
        if self._flat_params is None:
            flat = self._row[_FLAT_PARAMS]
            self._flat_params = self.params if flat is None else self._decoded(flat)
        return self._flat_params

    @property
    def user(self) -> str:
        """Who started it."""
        return self._row[_USER]  # type: ignore[no-any-return]

    @property
    def host(self) -> str:
        """Name of the machine; empty in records of keepsake 0.4.2."""
        return self._row[_HOST]  # type: ignore[no-any-return]

    @property
    def command(self) -> str:
        """The command line."""
        return self._row[_COMMAND]  # type: ignore[no-any-return]

    @property
    def path(self) -> str | None:
        """What was saved of the project; None if nothing was."""
        return self._row[_PATH]  # type: ignore[no-any-return]

    @property
    def python_version(self) -> str:
        """Version of the Python that ran it."""
        return self._row[_PYTHON_VERSION]  # type: ignore[no-any-return]

    @property
    def python_packages(self) -> Mapping[str, str]:
        """Versions of the distributions that were imported, by name."""
        return self.kept_apart("packages")

    @property
    def keepsake_version(self) -> str:
        """Version of keepsake that recorded it."""
        return self._row[_KEEPSAKE_VERSION]  # type: ignore[no-any-return]

    @property
    def git(self) -> dict[str, Any] | None:
        """``commit``, ``branch``, ``dirty`` and ``remote``, if the project is in a Git repository."""
        return self.kept_apart("details").get("git")

    @property
    def ended(self) -> datetime | None:
        """When it ended, in UTC."""
        ended = self._row[_ENDED]
        return parse_time(ended) if ended is not None else None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended."""
        return self._row[_OUTCOME]  # type: ignore[no-any-return]

    @property
    def error(self) -> str | None:
        """What made it fail."""
        return self._row[_ERROR]  # type: ignore[no-any-return]

    @property
    def heartbeat_interval_s(self) -> float | None:
        """Seconds between two beats."""
        return self._row[_HEARTBEAT_INTERVAL_S]  # type: ignore[no-any-return]

    @property
    def num_checkpoints(self) -> int:
        """How many checkpoints it has."""
        return self._row[_NUM_CHECKPOINTS]  # type: ignore[no-any-return]

    @property
    def size_bytes(self) -> int:
        """Size of all its archives, as far as its record announces them."""
        return self._row[_SIZE_BYTES]  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """What people call it; empty if nobody has given it a name."""
        return self.annotation.name if self.annotation is not None else ""

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags."""
        return self.annotation.tags if self.annotation is not None else ()

    @property
    def notes(self) -> str:
        """What people have written about it."""
        return self.annotation.notes if self.annotation is not None else ""

    # --- metrics ----------------------------------------------------------------------------------------------------

    @property
    def primary_metric(self) -> PrimaryMetric | None:
        """The primary metric in force."""
        metric = self._row[_PRIMARY_METRIC]
        return _primary_metric_of(*metric) if metric is not None else None

    @property
    def metric_names(self) -> list[str]:
        """The metrics of all checkpoints, in the order in which they first came."""
        return self.kept_apart("ranges").get("metric_names", [])  # type: ignore[no-any-return]

    @property
    def lowest(self) -> dict[str, float]:
        """The least finite value of each metric over all checkpoints."""
        return self.kept_apart("ranges").get("lowest", {})  # type: ignore[no-any-return]

    @property
    def highest(self) -> dict[str, float]:
        """The greatest finite value of each metric over all checkpoints."""
        return self.kept_apart("ranges").get("highest", {})  # type: ignore[no-any-return]

    def best(self) -> CheckpointRecord | None:
        """Return the checkpoint with the best primary metric."""
        if self._best is _UNREAD:
            best = self.best_json
            self._best = _checkpoint(best) if best is not None else None
        return self._best  # type: ignore[no-any-return]

    def latest(self) -> CheckpointRecord | None:
        """Return the checkpoint that was made last."""
        if self._latest is _UNREAD:
            latest = self.kept_apart("details").get("latest")
            self._latest = _checkpoint(latest) if latest is not None else self.best()
        return self._latest  # type: ignore[no-any-return]

    @property
    def best_json(self) -> dict[str, Any] | None:
        """The best checkpoint as it stands in the record."""
        return self.kept_apart("details").get("best")

    @property
    def latest_json(self) -> dict[str, Any] | None:
        """The checkpoint that was made last as it stands in the record."""
        return self.kept_apart("details").get("latest") or self.best_json

    @property
    def best_row(self) -> CheckpointRow | None:
        """ID, step and metrics of the best checkpoint as they stand in the record: a table has no time for more."""
        return self._row[_BEST]  # type: ignore[no-any-return]

    @property
    def latest_row(self) -> CheckpointRow | None:
        """ID, step and metrics of the checkpoint that was made last."""
        # Kept only once where it is the best one as well.
        return self._row[_LATEST] or self._row[_BEST]  # type: ignore[no-any-return]

    @property
    def shown_metrics(self) -> dict[str, Any]:
        """The metrics that stand for the experiment: those of its best checkpoint, else of its latest."""
        shown = self._row[_BEST] or self._row[_LATEST]
        return self._decoded(shown[METRICS] or {}) if shown is not None else {}

    def kept_apart(self, what: str) -> Mapping[str, Any]:
        """Return the ``"details"``, the ``"ranges"`` or the ``"packages"``; nothing where the experiment was deleted meanwhile."""
        if what not in self._apart:
            self._apart = {**self._apart, what: self.load(what)}
        return self._apart[what]

    # --- status -----------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """The status as of the moment when the summary was read."""
        return judge(self.outcome, self.heartbeat_interval_s, self.heartbeat)

    def _decoded(self, values: dict[str, Any]) -> dict[str, Any]:
        return decode_value(values) if self._row[_HAS_MARKERS] else values

    def __repr__(self) -> str:
        return f"<Summary {self.id[:SHORT_ID_LENGTH]}, {self.num_checkpoints} checkpoints>"


def _nothing(what: str) -> Mapping[str, Any]:
    return {}


_primary_metric_of = lru_cache(PrimaryMetric)
"""Thousands of experiments have the same few."""


# --- making them ----------------------------------------------------------------------------------------------------


class Parsed(NamedTuple):
    """What is kept of a record's file.

    Args:
        row: See `summarize`.
        details: See there.
        ranges: See there.
        ids: The IDs of the experiment and of all its checkpoints.
        packages: JSON of the versions of the packages, by name.
    """

    row: list[Any]
    details: dict[str, Any]
    ranges: dict[str, Any]
    ids: list[str]
    packages: str

    @property
    def created(self) -> str:
        """When the experiment was started, as the format has it."""
        return self.row[_CREATED]  # type: ignore[no-any-return]


def parse(content: bytes, *, key: str) -> Parsed:
    """Return what is kept of a record's file.

    Only what is kept is looked at: a first listing waits for every record.

    Args:
        content: What is in the file.
        key: Its key.

    Raises:
        CorruptedRecord: It is not an experiment's record.
    """
    try:
        return _parsed(fast_json.loads(content), key, _has_markers(content))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as err:
        from keepsake.repository.records import ExperimentRecord

        ExperimentRecord.from_bytes(content, key=key)  # names the damage
        raise CorruptedRecord(f"the record {key} is damaged: {err}") from err


def _has_markers(content: bytes) -> bool:
    """Tell whether a text in a record's file may stand for a number that JSON lacks."""
    # A look for one byte takes a tenth of the time of one for two, and hardly any text begins with a bracket.
    place = content.find(b"[")
    while place > 0:
        if content[place - 1] == _QUOTE:
            return any(marker in content for marker in _MARKERS)
        place = content.find(b"[", place + 1)
    return False


def _parsed(raw: Mapping[str, Any], key: str, has_markers: bool) -> Parsed:
    if id_of_json_key(key) != raw["id"]:
        raise ValueError("it is about another experiment")
    ids = [raw["id"], *[checkpoint["id"] for checkpoint in raw.get("checkpoints") or ()]]
    return Parsed(*summarize(raw, has_markers), ids, fast_json.dumps(raw.get("python_packages") or {}))


def summarize(raw: Mapping[str, Any], has_markers: bool = True) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Return what is kept of a record's JSON, again as JSON: the row of a table, and two parts that fewer questions are about.

    Args:
        raw: The record's JSON.
        has_markers: Whether a text in it may stand for a number that JSON lacks.
    """
    checkpoints = raw.get("checkpoints") or []
    metrics = [checkpoint.get("metrics") or {} for checkpoint in checkpoints]
    columns = _columns(metrics)
    numbers = {name: column for name, values in columns.items() if (column := _numbers(values))}
    metric = _primary_metric(checkpoints)
    best = _best(checkpoints, metrics, columns.get(metric[0], ()), *metric) if metric is not None else None
    latest = checkpoints[-1] if checkpoints and checkpoints[-1] is not best else None
    for checkpoint in (best, latest):
        if checkpoint is not None:
            _checkpoint(checkpoint)  # raises where it is none
    params, outcome, ended = raw.get("params") or {}, raw.get("outcome"), raw.get("ended")
    flat = _flattened(params)
    row = [
        raw["id"],
        format_time(parse_time(raw["created"])),
        # A table needs only the flat ones, and what it does not need is read faster as a text.
        params if flat is None else fast_json.dumps(params),
        flat,
        raw.get("user") or "",
        raw.get("host") or "",
        raw.get("command") or "",
        raw.get("path") or None,
        raw.get("python_version") or "",
        raw.get("keepsake_version") or raw.get("replicate_version") or "",
        outcome if outcome in ("finished", "failed", "interrupted") else None,
        raw.get("error"),
        format_time(parse_time(ended)) if ended else None,
        raw.get("heartbeat_interval_s"),
        len(checkpoints),
        sum([int(owner["archive"]["size_bytes"]) for owner in (raw, *checkpoints) if owner.get("archive")]),
        metric,
        _row_of(best),
        _row_of(latest),
        has_markers,
    ]
    details = {"git": raw.get("git"), "best": best, "latest": latest}
    ranges = {
        "metric_names": list(columns),
        "lowest": {name: min(values) for name, values in numbers.items()},
        "highest": {name: max(values) for name, values in numbers.items()},
    }
    return row, details, ranges


def _checkpoint(raw: Mapping[str, Any]) -> CheckpointRecord:
    from keepsake.repository.records import CheckpointRecord  # which a table of summaries does not need

    return CheckpointRecord.from_json(raw)


def _flattened(params: dict[str, Any]) -> dict[str, Any] | None:
    if not any(isinstance(value, dict) for value in params.values()):
        return None
    from keepsake.values import flatten  # which only what is new has to wait for

    return flatten(params)


def _row_of(checkpoint: Mapping[str, Any] | None) -> CheckpointRow | None:
    return [checkpoint["id"], checkpoint.get("step"), checkpoint.get("metrics")] if checkpoint is not None else None


def _columns(rows: list[dict[str, Any]]) -> dict[str, Sequence[Any]]:
    """Return the values by name, as far as rows have them; names in the order in which they first come."""
    names = list(rows[0]) if rows else []
    if len(names) > 1 and sum(map(len, rows)) == len(names) * len(rows):
        # All of them at once, if each row has these names: the usual case.
        with suppress(KeyError):
            return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
    return {name: [row[name] for row in rows if name in row] for name in dict.fromkeys(chain.from_iterable(rows))}


def _numbers(values: Sequence[Any]) -> Sequence[Any]:
    """Return the numbers among JSON values, which are finite as they stand there."""
    return values if set(map(type, values)) <= _NUMBERS else [value for value in values if type(value) in _NUMBERS]


def _primary_metric(checkpoints: list[dict[str, Any]]) -> tuple[str, str] | None:
    """Return the primary metric in force: the last one given holds."""
    for checkpoint in reversed(checkpoints):
        metric = checkpoint.get("primary_metric")
        if metric:
            name, goal = metric.get("name"), metric.get("goal")
            if isinstance(name, str) and goal in ("maximize", "minimize"):
                return name, goal
    return None


def _best(
    checkpoints: list[dict[str, Any]], metrics: list[dict[str, Any]], column: Sequence[Any], name: str, goal: str
) -> dict[str, Any] | None:
    """Return the checkpoint with the best value, the earliest of equals; as `ExperimentRecord.best` does."""
    values = column if len(column) == len(metrics) else [row.get(name) for row in metrics]
    comparable = _numbers(values)
    if len(comparable) < len(values):
        values = [decode_value(value) for value in values]
        comparable = [value for value in values if is_comparable(value)]
    return checkpoints[values.index((min if goal == "minimize" else max)(comparable))] if comparable else None
