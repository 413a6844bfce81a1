"""An experiment's record: JSON to objects and back, and what follows from it alone (best, latest, status).

Keys that this version does not know survive: each object keeps the JSON it was read from and lays its own fields over it.
Where a record lies is `keepsake.repository.layout`'s business; reading and writing it `keepsake.repository.repository`'s.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from keepsake.exceptions import CorruptedRecord
from keepsake.repository.json_values import decode_value, encode_value, format_time, is_comparable, parse_time
from keepsake.repository.layout import id_of_json_key, is_id
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.status import Heartbeat, Outcome, Status, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from datetime import datetime

    from keepsake.repository.primary_metric import Goal


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """What a record announces of a stored archive.

    Args:
        size_bytes: Length of the archive as it is stored.
        files: How many files it holds.
        index_sha256: The digest of its index in hexadecimal, which vouches for each file in it; None where it has no index.
        sha256: The digest of all of it where it has no index: one thread alone could compute it, twice as long as it takes to write.
    """

    size_bytes: int
    files: int
    index_sha256: str | None = None
    sha256: str | None = None


@dataclass
class CheckpointRecord:
    """What is recorded of a checkpoint.

    Args:
        id: 64 hexadecimal characters.
        created: When it was made, in UTC.
        step: Number of the step, not negative.
        path: What was saved, relative to the project directory; None where no files were.
        metrics: Values by name, as `keepsake.values` leaves them.
        primary_metric: The metric to choose the best by, if it was given with this checkpoint.
        archive: What is stored; None where nothing is, or not yet, or the record is 0.4.2's, which does not say.
        archive_pending: The files are on their way.
        raw: The JSON it was read from.
    """

    id: str
    created: datetime
    step: int
    path: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    primary_metric: PrimaryMetric | None = None
    archive: ArchiveInfo | None = None
    archive_pending: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def has_files(self) -> bool:
        """Tell whether files were saved, by us or by 0.4.2."""
        return self.path is not None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this checkpoint, keys in the order of 0.4.2's."""
        known: dict[str, Any] = {
            "id": self.id,
            "created": format_time(self.created),
            "metrics": encode_value(self.metrics),
            "step": self.step,
            "path": self.path if self.path is not None else "",
            "primary_metric": self.raw.get("primary_metric"),
        }
        if self.primary_metric is not None:
            known["primary_metric"] = {
                **_mapping(self.raw.get("primary_metric")),
                "name": self.primary_metric.name,
                "goal": self.primary_metric.goal,
            }
        if self.archive is not None or self.archive_pending:
            known["archive"] = archive_to_json(self.archive, self.raw.get("archive"))
        return _over(self.raw, known)

    def to_text(self, fragments: MutableMapping[str, str] | None = None) -> str:
        """Return the JSON text of this checkpoint, as it stands in a record; see `ExperimentRecord.to_bytes`."""
        text = fragments.get(self.id) if fragments is not None else None
        if text is None:
            is_final = not self.archive_pending
            text = _text_of(self.to_json()).replace("\n", "\n  ")
            if is_final and fragments is not None:
                fragments[self.id] = text
        return text

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> CheckpointRecord:
        """Build a checkpoint from its JSON object; raises `ValueError` or `KeyError` where that is not one."""
        return cls(
            id=_id(raw["id"]),
            created=parse_time(raw["created"]),
            step=_whole_number(raw.get("step")) or 0,
            path=_text(raw.get("path")) or None,
            metrics=decode_value(_mapping(raw.get("metrics"))),
            primary_metric=_primary_metric(raw.get("primary_metric")),
            archive=archive_from_json(raw.get("archive")),
            archive_pending="archive" in raw and raw["archive"] is None,
            raw=raw,
        )


@dataclass
class ExperimentRecord:
    """What is recorded of an experiment and its checkpoints; the meaning of each key stands in ``docs/format.md``.

    ``heartbeat`` and ``is_uploaded`` are not part of the JSON: whoever loads the record puts there what was known at that moment: the last
    sign of life, and whether the store that it was recorded for has all of it.
    """

    id: str
    created: datetime
    params: dict[str, Any] = field(default_factory=dict)
    host: str = ""
    user: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    path: str | None = None
    python_version: str = ""
    python_packages: dict[str, str] = field(default_factory=dict)
    checkpoints: list[CheckpointRecord] = field(default_factory=list)
    keepsake_version: str = ""
    git: dict[str, Any] | None = None
    system: dict[str, Any] | None = None
    pid: int | None = None
    ended: datetime | None = None
    outcome: Outcome | None = None
    error: str | None = None
    heartbeat_interval_s: float | None = None
    resumed: list[datetime] = field(default_factory=list)
    archive: ArchiveInfo | None = None
    archive_pending: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    heartbeat: Heartbeat | None = field(default=None, repr=False, compare=False)
    is_uploaded: bool = field(default=True, repr=False, compare=False)

    # --- what follows from the record -------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """The status as of the moment when the record was loaded."""
        return judge(self.outcome, self.heartbeat_interval_s, self.heartbeat)

    @property
    def primary_metric(self) -> PrimaryMetric | None:
        """The primary metric in force: the last one given holds until it is changed."""
        return next((c.primary_metric for c in reversed(self.checkpoints) if c.primary_metric is not None), None)

    def best(self) -> CheckpointRecord | None:
        """Return the checkpoint with the best primary metric, the earliest of equals.

        Checkpoints where the metric is missing, not a number or NaN are left out, in whatever order they come.
        """
        metric = self.primary_metric
        if metric is None:
            return None
        sign = 1 if metric.goal == "minimize" else -1
        candidates = [c for c in self.checkpoints if is_comparable(c.metrics.get(metric.name))]
        return min(candidates, key=lambda c: sign * c.metrics[metric.name], default=None)

    def latest(self) -> CheckpointRecord | None:
        """Return the checkpoint that was made last."""
        return self.checkpoints[-1] if self.checkpoints else None

    # --- JSON -------------------------------------------------------------------------------------------------------

    def to_json(self, *, with_checkpoints: bool = True) -> dict[str, Any]:
        """Return the JSON object of this experiment: 0.4.2's keys in its order, then ours, then unknown ones.

        Args:
            with_checkpoints: False leaves the list of checkpoints empty.
        """
        known: dict[str, Any] = {
            "id": self.id,
            "created": format_time(self.created),
            "params": encode_value(self.params),
            "host": self.host,
            "user": self.user,
            "config": self.config,
            "command": self.command,
            "path": self.path if self.path is not None else "",
            "python_version": self.python_version,
            "python_packages": self.python_packages,
            "checkpoints": [checkpoint.to_json() for checkpoint in self.checkpoints] if with_checkpoints else [],
            "keepsake_version": self.keepsake_version,
        }
        ours: dict[str, Any] = {
            "git": self.git,
            "system": self.system,
            "pid": self.pid,
            "ended": format_time(self.ended) if self.ended is not None else None,
            "outcome": self.outcome,
            "error": self.error,
            "heartbeat_interval_s": self.heartbeat_interval_s,
            "resumed": [format_time(time) for time in self.resumed],
        }
        # A record that 0.4.2 wrote gets only those of our keys that say something.
        known |= {key: value for key, value in ours.items() if value or not self.raw or key in self.raw}
        if self.archive is not None or self.archive_pending:
            known["archive"] = archive_to_json(self.archive, self.raw.get("archive"))
        return _over(self.raw, known)

    def to_bytes(self, fragments: MutableMapping[str, str] | None = None) -> bytes:
        """Return the content of the record's file.

        Args:
            fragments: The texts of its checkpoints by ID, for somebody who writes a record many times: those that are missing are
                made and put there, but for checkpoints whose files are on their way, which will change.
        """
        text = _text_of(self.to_json(with_checkpoints=False))
        if self.checkpoints:
            checkpoints = ",\n  ".join(checkpoint.to_text(fragments) for checkpoint in self.checkpoints)
            # A text holds no line break, so this line is the key of the record itself.
            text = text.replace('\n "checkpoints": []', f'\n "checkpoints": [\n  {checkpoints}\n ]', 1)
        return f"{text}\n".encode()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ExperimentRecord:
        """Build an experiment from its JSON object; raises `ValueError` or `KeyError` where that is not one."""
        ended = raw.get("ended")
        return cls(
            id=_id(raw["id"]),
            created=parse_time(raw["created"]),
            params=decode_value(_mapping(raw.get("params"))),
            host=_text(raw.get("host")) or "",
            user=_text(raw.get("user")) or "",
            config=_mapping(raw.get("config")),
            command=_text(raw.get("command")) or "",
            path=_text(raw.get("path")) or None,
            python_version=_text(raw.get("python_version")) or "",
            python_packages={name: _text(version) or "" for name, version in _mapping(raw.get("python_packages")).items()},
            checkpoints=[CheckpointRecord.from_json(_mapping(item)) for item in _list(raw.get("checkpoints"))],
            keepsake_version=_text(raw.get("keepsake_version")) or _text(raw.get("replicate_version")) or "",
            git=_mapping(raw.get("git")) or None,
            system=_mapping(raw.get("system")) or None,
            pid=_whole_number(raw.get("pid")),
            ended=parse_time(ended) if ended else None,
            outcome=_outcome(raw.get("outcome")),
            error=_text(raw.get("error")),
            heartbeat_interval_s=_number(raw.get("heartbeat_interval_s")),
            resumed=[parse_time(time) for time in _list(raw.get("resumed"))],
            archive=archive_from_json(raw.get("archive")),
            archive_pending="archive" in raw and raw["archive"] is None,
            raw=raw,
        )

    @classmethod
    def from_bytes(cls, content: bytes, *, key: str) -> ExperimentRecord:
        """Parse the content of a record's file.

        Raises:
            CorruptedRecord: It is not an experiment's record; the message names ``key`` and the cause.
        """
        try:
            # Decoded here, because json.loads would take UTF-16 and a byte-order mark as well.
            record = cls.from_json(_mapping(json.loads(content.decode(), parse_constant=_no_json)))
            if id_of_json_key(key) not in (None, record.id):
                raise ValueError(f"it is about another experiment, {record.id}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as err:
            cause = f"it has no {err}" if isinstance(err, KeyError) else str(err)
            raise CorruptedRecord(f"the record {key} is damaged: {cause}") from err
        return record


# --- times ----------------------------------------------------------------------------------------------------------


# --- parts ----------------------------------------------------------------------------------------------------------


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _text_of(raw: Mapping[str, Any]) -> str:
    """Return the JSON text of an object, one that can be written as UTF-8."""
    # Only what keepsake does not know itself can hold numbers or characters that JSON and UTF-8 lack.
    try:
        text = json.dumps(raw, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(encode_value(raw), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=1)
    return text


def _over(raw: Mapping[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Lay the known keys over what was read, known ones first.

    The announcement of an archive is the one known key that may have to go: where files were promised that never came.
    """
    return known | {key: value for key, value in raw.items() if key not in known and key != "archive"}


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", {} if value is None else _expect(value, dict, "an object"))


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", [] if value is None else _expect(value, list, "an array"))


def _text(value: Any) -> str | None:
    return cast("str | None", None if value is None else _expect(value, str, "a string"))


def _number(value: Any) -> float | None:
    number = cast("float | None", None if value is None else _expect(value, (int, float), "a number"))
    if isinstance(number, float) and not math.isfinite(number):
        # It would be written as a text, and then be damage itself.
        raise ValueError(f"expected a finite number, found {number}")
    return number


def _whole_number(value: Any) -> int | None:
    number = _number(value)
    if number is None:
        return None
    if number != int(number):
        raise ValueError(f"expected a whole number, found {number}")
    return int(number)


def _expect(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"expected {name}, found {value!r:.40}")
    return value


def _id(value: Any) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise ValueError(f"bad ID {value!r:.80}")
    return value


def _primary_metric(raw: Any) -> PrimaryMetric | None:
    metric = _mapping(raw)
    name, goal = _text(metric.get("name")), _text(metric.get("goal"))
    # A goal that this version does not know is none, as with any unknown key: the record keeps it.
    return PrimaryMetric(name, cast("Goal", goal)) if name is not None and goal in ("maximize", "minimize") else None


def _outcome(value: Any) -> Outcome | None:
    return cast("Outcome | None", value) if _text(value) in ("finished", "failed", "interrupted") else None


def archive_to_json(archive: ArchiveInfo | None, raw: Any = None) -> dict[str, Any] | None:
    """Return what a record says of an archive, over what it said before."""
    if archive is None:
        return None
    digests = {"index_sha256": archive.index_sha256, "sha256": archive.sha256}
    known = {name: digest for name, digest in digests.items() if digest is not None}
    return {**_mapping(raw), "size_bytes": archive.size_bytes, "files": archive.files, **known}


def archive_from_json(raw: Any) -> ArchiveInfo | None:
    """Read what a record says of an archive; raises `ValueError` or `KeyError` where it makes no sense."""
    if raw is None:
        return None
    archive = _mapping(raw)
    size_bytes, files = _whole_number(archive["size_bytes"]), _whole_number(archive["files"])
    index_sha256, sha256 = _text(archive.get("index_sha256")), _text(archive.get("sha256"))
    if size_bytes is None or files is None or index_sha256 is sha256 is None:
        raise ValueError(f"expected a size, a number of files and a digest, found {raw!r:.80}")
    return ArchiveInfo(size_bytes, files, index_sha256, sha256)
