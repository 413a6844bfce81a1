"""What is recorded of an experiment, as people read it: what a listing knows is at hand, the whole record is read when more is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepsake.query.listed import Listed
from keepsake.repository import layout
from keepsake.repository.records import ExperimentRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from keepsake.experiment import Experiment
    from keepsake.query.listed import ListedRecords
    from keepsake.repository.primary_metric import PrimaryMetric
    from keepsake.repository.status import Outcome
    from keepsake.repository.summary import Summary


_SHARED = (
    "id",
    "created",
    "params",
    "host",
    "user",
    "command",
    "path",
    "python_version",
    "keepsake_version",
    "git",
    "ended",
    "outcome",
    "error",
    "heartbeat_interval_s",
)
"""Fields that a record and a listing have both."""


class Recorded:
    """The fields of an experiment, as of the moment when it was loaded or listed.

    Args:
        known: Its record, or what a listing has found of it.
    """

    def __init__(self, known: ExperimentRecord | Listed) -> None:
        self._listed = known if isinstance(known, Listed) else None
        self._record = known if isinstance(known, ExperimentRecord) else None

    @property
    def record(self) -> ExperimentRecord:
        """The whole record; of an experiment from a list it is read now, if nothing has asked for it yet."""
        if self._record is None:
            assert self._listed is not None  # one of both there always is
            self._record = self._listed.load()
        return self._record

    @record.setter
    def record(self, record: ExperimentRecord) -> None:
        self._record, self._listed = record, None

    @property
    def _known(self) -> ExperimentRecord | Summary:
        """What says the simple fields: the record where it has been read."""
        return self._listed.summary if self._record is None and self._listed is not None else self.record

    @property
    def metric_in_force(self) -> PrimaryMetric | None:
        """The primary metric, if there is one; a listing knows it."""
        return self._known.primary_metric

    def outline(self) -> ExperimentRecord:
        """Return the record as far as it is known without reading it: of an experiment from a list, two checkpoints at most."""
        known = self._known
        if isinstance(known, ExperimentRecord):
            return known
        checkpoints = {one.id: one for one in (known.best(), known.latest()) if one is not None}
        fields = {name: getattr(known, name) for name in _SHARED}
        record = ExperimentRecord(**fields, checkpoints=sorted(checkpoints.values(), key=lambda one: one.created))
        record.heartbeat, record.is_uploaded = known.heartbeat, known.is_uploaded
        return record

    # --- fields -----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """64 hexadecimal characters."""
        return self._known.id

    @property
    def created(self) -> datetime:
        """When it was started, in UTC."""
        return self._known.created

    @property
    def params(self) -> dict[str, Any]:
        """What was passed in: hyperparameters and whatever else decides the run."""
        return self._known.params

    @property
    def host(self) -> str:
        """Name of the machine; empty in records of keepsake 0.4.2."""
        return self._known.host

    @property
    def user(self) -> str:
        """Who started it."""
        return self._known.user

    @property
    def config(self) -> dict[str, Any]:
        """The configuration in force, such as the repository as it was written."""
        return self.record.config

    @property
    def command(self) -> str:
        """The command line, quoted for a shell, without secrets."""
        return self._known.command

    @property
    def path(self) -> str | None:
        """What was saved of the project, relative to its directory; None if nothing was."""
        return self._known.path

    @property
    def python_version(self) -> str:
        """Version of the Python that ran it."""
        return self._known.python_version

    @property
    def python_packages(self) -> dict[str, str]:
        """Versions of the distributions that were imported when it started, by name."""
        return self.record.python_packages

    @property
    def keepsake_version(self) -> str:
        """Version of keepsake that recorded it."""
        return self._known.keepsake_version

    @property
    def git(self) -> dict[str, Any] | None:
        """``commit``, ``branch``, ``dirty``, ``modified`` and ``remote`` of the project's Git repository, if it has one."""
        return self._known.git

    @property
    def system(self) -> dict[str, Any] | None:
        """``os``, ``cpus``, ``memory_bytes`` and ``gpus`` of the machine."""
        return self.record.system

    @property
    def pid(self) -> int | None:
        """The process that recorded it."""
        return self.record.pid

    @property
    def ended(self) -> datetime | None:
        """When it ended, in UTC; None while it runs, or where its process died."""
        return self._known.ended

    @property
    def outcome(self) -> Outcome | None:
        """``finished``, ``failed`` or ``interrupted``; None while it runs, or where its process died."""
        return self._known.outcome

    @property
    def error(self) -> str | None:
        """Type and message of the exception that ended it, in one line."""
        return self._known.error

    @property
    def num_checkpoints(self) -> int:
        """How many checkpoints it has."""
        known = self._known
        return len(known.checkpoints) if isinstance(known, ExperimentRecord) else known.num_checkpoints

    def short_id(self) -> str:
        """Return the first 7 characters of the ID."""
        return layout.short_id(self.id)


def raw_checkpoints(experiments: Sequence[Experiment]) -> Iterator[tuple[Summary, list[Any]]]:
    """Yield experiments and their checkpoints as JSON; records that nobody has read yet are read many at a time."""
    unread: dict[ListedRecords, list[str]] = {}
    for experiment in experiments:
        if experiment._record is None and experiment._listed is not None:
            unread.setdefault(experiment._listed.records, []).append(experiment.id)
    read = {raw["id"]: raw.get("checkpoints") or [] for records, ids in unread.items() for raw in records.raw(ids)}
    for experiment in experiments:
        if experiment._record is not None:
            yield experiment.summary, [one.to_json() for one in experiment._record.checkpoints]
        elif experiment.id in read:
            yield experiment.summary, read[experiment.id]
