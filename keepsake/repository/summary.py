"""What a listing needs to know of one experiment: small enough to keep a hundred thousand of them at hand.

A summary is made of a record, kept as JSON by `keepsake.query.index`, and read lazily: a listing that shows fifty of ten thousand
experiments decodes little of the others. Everything about an experiment stands in its record only.
"""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keepsake.exceptions import CorruptedRecord
from keepsake.repository import fast_json
from keepsake.repository.layout import SHORT_ID_LENGTH, id_of_json_key
from keepsake.repository.records import (
    INFINITY,
    MINUS_INFINITY,
    NAN,
    CheckpointRecord,
    ExperimentRecord,
    PrimaryMetric,
    decode_value,
    format_time,
    is_comparable,
    parse_time,
)
from keepsake.repository.status import Heartbeat, Outcome, Status, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from keepsake.repository.annotations import Annotation

_COPIED = (
    "id",
    "params",
    "user",
    "host",
    "command",
    "path",
    "python_version",
    "keepsake_version",
    "git",
    "outcome",
    "error",
    "heartbeat_interval_s",
)
"""Keys of a record that its summary takes as they are."""

_MARKERS = tuple(f'"{marker}"'.encode() for marker in (NAN, INFINITY, MINUS_INFINITY))

_NUMBERS = {int, float}

_UNREAD: Final = object()


class Summary:
    """What is kept of one experiment; its properties are those of `ExperimentRecord` where they have the same name.

    Args:
        data: What `summarize` has made of the record.
        heartbeat: The last sign of life, where one is known and the experiment has not ended.
        is_uploaded: Whether the store that it was recorded for has all of it.

    Attributes:
        heartbeat: As given.
        is_uploaded: As given.
        annotation: Name, tags and notes, if somebody has given it some.
        aliases: The aliases of its checkpoints, by name: the ID of each one's checkpoint.
        load_packages: Returns the packages, which are kept apart: few questions are about them.

    Example:
        >>> from keepsake.repository.records import CheckpointRecord, ExperimentRecord, utc_now
        >>> record = ExperimentRecord("4" * 64, utc_now(), {"lr": 0.1})
        >>> record.checkpoints = [CheckpointRecord("a" * 64, utc_now(), 1, metrics={"loss": 0.5})]
        >>> summary = Summary.of(record)
        >>> summary.params, summary.num_checkpoints, summary.latest().metrics
        ({'lr': 0.1}, 1, {'loss': 0.5})
    """

    __slots__ = (
        "_best",
        "_created",
        "_data",
        "_flat_params",
        "_latest",
        "_params",
        "aliases",
        "annotation",
        "heartbeat",
        "is_uploaded",
        "load_packages",
    )

    def __init__(self, data: dict[str, Any], *, heartbeat: Heartbeat | None = None, is_uploaded: bool = True) -> None:
        self._data = data
        self.heartbeat = heartbeat
        self.is_uploaded = is_uploaded
        self.annotation: Annotation | None = None
        self.aliases: Mapping[str, str] = {}
        self.load_packages: Callable[[], Mapping[str, str]] = dict
        self._created: datetime | None = None
        self._params: dict[str, Any] | None = None
        self._flat_params: dict[str, Any] | None = None
        self._best: Any = _UNREAD
        self._latest: Any = _UNREAD

    @classmethod
    def of(cls, record: ExperimentRecord) -> Summary:
        """Return the summary of a record that has been loaded."""
        summary = cls(summarize(record.to_json()), heartbeat=record.heartbeat, is_uploaded=record.is_uploaded)
        summary.load_packages = lambda: record.python_packages
        return summary

    # --- fields -----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """64 hexadecimal characters."""
        return self._data["id"]  # type: ignore[no-any-return]

    @property
    def created(self) -> datetime:
        """When it was started, in UTC."""
        if self._created is None:
            self._created = parse_time(self._data["created"])
        return self._created

    @property
    def created_text(self) -> str:
        """The same as the format has it."""
        return self._data["created"]  # type: ignore[no-any-return]

    @property
    def params(self) -> dict[str, Any]:
        """Hyperparameters by name, nested ones as dicts."""
        if self._params is None:
            self._params = self._decoded(self._data["params"])
        return self._params

    @property
    def flat_params(self) -> dict[str, Any]:
        """Hyperparameters by name, nested ones with dotted names."""
        if self._flat_params is None:
            params = self.params
            flat = self._data["flat_params"]
            self._flat_params = params if flat is None else self._decoded(flat)
        return self._flat_params

    @property
    def user(self) -> str:
        """Who started it."""
        return self._data["user"]  # type: ignore[no-any-return]

    @property
    def host(self) -> str:
        """Name of the machine; empty in records of keepsake 0.4.2."""
        return self._data["host"]  # type: ignore[no-any-return]

    @property
    def command(self) -> str:
        """The command line."""
        return self._data["command"]  # type: ignore[no-any-return]

    @property
    def path(self) -> str | None:
        """What was saved of the project; None if nothing was."""
        return self._data["path"]  # type: ignore[no-any-return]

    @property
    def python_version(self) -> str:
        """Version of the Python that ran it."""
        return self._data["python_version"]  # type: ignore[no-any-return]

    @property
    def python_packages(self) -> Mapping[str, str]:
        """Versions of the distributions that were imported, by name."""
        return self.load_packages()

    @property
    def keepsake_version(self) -> str:
        """Version of keepsake that recorded it."""
        return self._data["keepsake_version"]  # type: ignore[no-any-return]

    @property
    def git(self) -> dict[str, Any] | None:
        """``commit``, ``branch``, ``dirty`` and ``remote``, if the project is in a Git repository."""
        return self._data["git"]  # type: ignore[no-any-return]

    @property
    def ended(self) -> datetime | None:
        """When it ended, in UTC."""
        ended = self._data["ended"]
        return parse_time(ended) if ended is not None else None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended."""
        return self._data["outcome"]  # type: ignore[no-any-return]

    @property
    def error(self) -> str | None:
        """What made it fail."""
        return self._data["error"]  # type: ignore[no-any-return]

    @property
    def heartbeat_interval_s(self) -> float | None:
        """Seconds between two beats."""
        return self._data["heartbeat_interval_s"]  # type: ignore[no-any-return]

    @property
    def num_checkpoints(self) -> int:
        """How many checkpoints it has."""
        return self._data["num_checkpoints"]  # type: ignore[no-any-return]

    @property
    def size_bytes(self) -> int:
        """Size of all its archives, as far as its record announces them."""
        return self._data["size_bytes"]  # type: ignore[no-any-return]

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
        metric = self._data["primary_metric"]
        return PrimaryMetric(*metric) if metric is not None else None

    @property
    def metric_names(self) -> list[str]:
        """The metrics of all checkpoints, in the order in which they first came."""
        return self._data["metric_names"]  # type: ignore[no-any-return]

    @property
    def lowest(self) -> dict[str, float]:
        """The least finite value of each metric over all checkpoints."""
        return self._data["lowest"]  # type: ignore[no-any-return]

    @property
    def highest(self) -> dict[str, float]:
        """The greatest finite value of each metric over all checkpoints."""
        return self._data["highest"]  # type: ignore[no-any-return]

    def best(self) -> CheckpointRecord | None:
        """Return the checkpoint with the best primary metric."""
        if self._best is _UNREAD:
            best = self._data["best"]
            self._best = CheckpointRecord.from_json(best) if best is not None else None
        return self._best  # type: ignore[no-any-return]

    def latest(self) -> CheckpointRecord | None:
        """Return the checkpoint that was made last."""
        if self._latest is _UNREAD:
            # Kept only once where it is the best one as well.
            latest = self._data["latest"]
            self._latest = CheckpointRecord.from_json(latest) if latest is not None else self.best()
        return self._latest  # type: ignore[no-any-return]

    @property
    def best_json(self) -> dict[str, Any] | None:
        """The best checkpoint as it stands in the record: a table of thousands has no time to look closer."""
        return self._data["best"]  # type: ignore[no-any-return]

    @property
    def latest_json(self) -> dict[str, Any] | None:
        """The checkpoint that was made last as it stands in the record."""
        return self._data["latest"] or self._data["best"]  # type: ignore[no-any-return]

    @property
    def shown_metrics(self) -> dict[str, Any]:
        """The metrics that stand for the experiment: those of its best checkpoint, else of its latest."""
        shown = self._data["best"] or self._data["latest"]
        return self._decoded(shown["metrics"] or {}) if shown is not None else {}

    # --- status -----------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """The status as of the moment when the summary was read."""
        return judge(self.outcome, self.heartbeat_interval_s, self.heartbeat)

    def _decoded(self, values: dict[str, Any]) -> dict[str, Any]:
        return decode_value(values) if self._data["has_markers"] else values

    def __repr__(self) -> str:
        return f"<Summary {self.id[:SHORT_ID_LENGTH]}, {self.num_checkpoints} checkpoints>"


# --- making them ----------------------------------------------------------------------------------------------------


class Parsed(NamedTuple):
    """What is kept of a record's file.

    Args:
        summary: See `summarize`.
        ids: The IDs of the experiment and of all its checkpoints.
        packages: JSON of the versions of the packages, by name.
    """

    summary: dict[str, Any]
    ids: list[str]
    packages: str


def parse(content: bytes, *, key: str) -> Parsed:
    """Return what is kept of a record's file.

    Only what is kept is looked at: a first listing waits for every record.

    Args:
        content: What is in the file.
        key: Its key.

    Raises:
        CorruptedRecord: It is not an experiment's record.
    """
    has_markers = any(marker in content for marker in _MARKERS)
    try:
        return _parsed(fast_json.loads(content), key, has_markers)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as err:
        ExperimentRecord.from_bytes(content, key=key)  # names the damage
        raise CorruptedRecord(f"the record {key} is damaged: {err}") from err


def _parsed(raw: Mapping[str, Any], key: str, has_markers: bool) -> Parsed:
    if id_of_json_key(key) != raw["id"]:
        raise ValueError("it is about another experiment")
    ids = [raw["id"], *[checkpoint["id"] for checkpoint in raw.get("checkpoints") or ()]]
    return Parsed(summarize(raw, has_markers), ids, fast_json.dumps(raw.get("python_packages") or {}))


def summarize(raw: Mapping[str, Any], has_markers: bool = True) -> dict[str, Any]:
    """Return what is kept of a record's JSON, again as JSON.

    Args:
        raw: The record's JSON.
        has_markers: Whether a text in it may stand for a number that JSON lacks.
    """
    from keepsake.values import flatten  # which only what is new has to wait for

    checkpoints = raw.get("checkpoints") or []
    metrics = [checkpoint.get("metrics") or {} for checkpoint in checkpoints]
    columns = {name: _column(metrics, name) for name in dict.fromkeys(chain.from_iterable(metrics))}
    numbers = {name: column for name, values in columns.items() if (column := _numbers(values))}
    metric = _primary_metric(checkpoints)
    best = _best(checkpoints, metrics, *metric) if metric is not None else None
    latest = checkpoints[-1] if checkpoints else None
    for checkpoint in (best, latest):
        if checkpoint is not None:
            CheckpointRecord.from_json(checkpoint)  # raises where it is none
    data = {key: raw.get(key) for key in _COPIED}
    params = data["params"] = data["params"] or {}
    for name in ("user", "host", "command", "python_version"):
        data[name] = data[name] or ""
    data["path"] = data["path"] or None
    data["keepsake_version"] = data["keepsake_version"] or raw.get("replicate_version") or ""
    data["outcome"] = data["outcome"] if data["outcome"] in ("finished", "failed", "interrupted") else None
    ended = raw.get("ended")
    return data | {
        "created": format_time(parse_time(raw["created"])),
        "ended": format_time(parse_time(ended)) if ended else None,
        "num_checkpoints": len(checkpoints),
        "primary_metric": metric,
        "best": best,
        "latest": latest if latest is not best else None,
        "metric_names": list(columns),
        "lowest": {name: min(values) for name, values in numbers.items()},
        "highest": {name: max(values) for name, values in numbers.items()},
        "size_bytes": sum([int(owner["archive"]["size_bytes"]) for owner in (raw, *checkpoints) if owner.get("archive")]),
        "flat_params": flatten(params) if any(isinstance(value, dict) for value in params.values()) else None,
        "has_markers": has_markers,
    }


def _column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row[name] for row in rows if name in row]


def _numbers(values: list[Any]) -> list[Any]:
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


def _best(checkpoints: list[dict[str, Any]], metrics: list[dict[str, Any]], name: str, goal: str) -> dict[str, Any] | None:
    """Return the checkpoint with the best value, the earliest of equals; as `ExperimentRecord.best` does."""
    values = [row.get(name) for row in metrics]
    comparable = _numbers(values)
    if len(comparable) < len(values):
        values = [decode_value(value) for value in values]
        comparable = [value for value in values if is_comparable(value)]
    return checkpoints[values.index((min if goal == "minimize" else max)(comparable))] if comparable else None
