"""The outbox: what was recorded for a store and has not arrived there yet, as a repository of its own on this machine's disk.

The recorder writes here as into any repository on disk; the uploader (`keepsake.recording.uploader`) moves it to where it belongs and
removes what has arrived. So being offline is nothing special: it is an outbox that has not been emptied yet. The directory says itself
where its content belongs, so it can be copied to another machine and emptied there.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from keepsake.exceptions import StorageError
from keepsake.repository import layout
from keepsake.repository.journal import JournalDirectory
from keepsake.repository.recovery import is_left_behind
from keepsake.repository.repository import Repository
from keepsake.storage import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keepsake.repository.records import ExperimentRecord

OUTBOXES = Path(".keepsake") / "outbox"
"""Where the outboxes of a project lie, below its directory."""

_ADDRESS_NAME = "outbox.json"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What the store is known to hold of an experiment.

    Args:
        digest: Of the record as it was last written there.
        etag: Which the store gave it; None if it is not there.
        checkpoints: The checkpoints that it named: what is missing in the store or here now has been deleted there or here.
        history: The segments of its history by name, with how many bytes of each.
    """

    digest: str = ""
    etag: str | None = None
    checkpoints: list[str] = field(default_factory=list)
    history: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What has not arrived yet.

    Args:
        experiments: How many experiments something is missing of.
        checkpoints: How many checkpoints' files.
        size_bytes: How much they hold.
    """

    experiments: int
    checkpoints: int
    size_bytes: int


class Outbox:
    """What one project has recorded for one store.

    The constructor does no input or output.

    Args:
        directory: Where it lies.
        url: Where its content belongs.

    Attributes:
        repository: What it holds, as a repository.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.storage = DiskStorage(directory)
        self.repository = Repository(self.storage, label=str(directory))

    @classmethod
    def of(cls, project_directory: Path, url: str) -> Outbox:
        """Return the outbox of a project for a store."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", url.partition("://")[2]).strip("-")[:40]
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        return cls(project_directory / OUTBOXES / f"{readable}-{digest}", url)

    def prepare(self) -> None:
        """Make it, and write down where its content belongs."""
        if not (self.directory / _ADDRESS_NAME).exists():
            self.storage.write(_ADDRESS_NAME, json.dumps({"url": self.url}).encode())
        self.repository.prepare()

    def experiment_ids(self) -> list[str]:
        """Return the experiments that something is missing of."""
        return self.repository.experiment_ids()

    def holds(self, experiment_id: str) -> bool:
        """Tell whether something of an experiment is missing."""
        return (self.directory / layout.record_key(experiment_id)).exists()

    def bring(self, record: ExperimentRecord, etag: str | None, history: dict[str, int]) -> None:
        """Take in an experiment that the store has, to record more of it.

        Args:
            record: Its record there.
            etag: The record's etag there.
            history: The segments of its history there by name, with their sizes in bytes.
        """
        self.prepare()
        self.remember(record.id, Uploaded(etag=etag, checkpoints=[one.id for one in record.checkpoints], history=history))
        self.repository.save(record)

    def uploaded(self, experiment_id: str) -> Uploaded:
        """Return what the store is known to hold of an experiment."""
        try:
            return Uploaded(**json.loads(self.storage.read(_uploaded_key(experiment_id))))
        except (StorageError, ValueError, TypeError):
            return Uploaded()

    def remember(self, experiment_id: str, uploaded: Uploaded) -> None:
        """Write that down."""
        self.storage.write(_uploaded_key(experiment_id), json.dumps(asdict(uploaded)).encode())

    def forget(self, experiment_id: str) -> None:
        """Remove an experiment: the store has all of it, or nobody wants it. Does nothing while somebody records it."""
        place = JournalDirectory(self.directory, experiment_id)
        if not place.lock.acquire():
            return
        try:
            self.repository.delete_experiment(self.repository.load_stored(experiment_id))
            self.storage.delete([_uploaded_key(experiment_id)])
        finally:
            place.lock.release()

    def left_behind(self) -> list[str]:
        """Return the experiments that nobody records any more."""
        places = {id: JournalDirectory(self.directory, id) for id in self.experiment_ids()}
        return [id for id, place in places.items() if not place.path.exists() or is_left_behind(self.repository, place)]

    def waiting(self) -> Waiting:
        """Return how much has not arrived yet."""
        checkpoints = list(self.storage.list(layout.CHECKPOINT_ARCHIVES_PREFIX))
        code = list(self.storage.list(layout.EXPERIMENT_ARCHIVES_PREFIX))
        size_bytes = sum(info.size_bytes for info in (*checkpoints, *code))
        return Waiting(len(self.experiment_ids()), len(checkpoints), size_bytes)


def _uploaded_key(experiment_id: str) -> str:
    return f"metadata/uploads/{experiment_id}.json"


def outboxes(project_directory: Path) -> Iterator[Outbox]:
    """Yield the outboxes of a project."""
    parent = project_directory / OUTBOXES
    for directory in sorted(parent.iterdir()) if parent.is_dir() else ():
        with suppress(OSError, ValueError, KeyError, TypeError):
            yield Outbox(directory, str(json.loads((directory / _ADDRESS_NAME).read_bytes())["url"]))
