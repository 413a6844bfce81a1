"""Journals: what live experiments of a repository on disk have accepted and not yet stored.

Each live experiment has a directory of its own in ``.journal/``: segments of a log of entries, and what is staged
(`keepsake.repository.staging`). The record is rewritten rarely, because it is rewritten whole; in between, an entry is one line
appended here, which outlives the process. So whoever reads an experiment lays the entries over its record (`replay`), and whoever
opens a repository stores what dead processes have left (`keepsake.repository.recovery`). The bytes are described in ``docs/format.md``.
"""

from __future__ import annotations

import json
import os
import platform
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, get_args

from keepsake.exceptions import WriteError
from keepsake.repository.json_values import format_time, parse_time
from keepsake.repository.layout import is_id, short_id
from keepsake.repository.records import ArchiveInfo, CheckpointRecord, ExperimentRecord, archive_from_json, archive_to_json
from keepsake.repository.status import Outcome
from keepsake.storage.disk import JOURNAL_DIRECTORY, disk_error
from keepsake.storage.locks import ProcessLock, machine_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from keepsake.exceptions import StorageError

_SEGMENT_SUFFIX = ".log"
_WRITER_NAME = "writer.json"

# --- entries --------------------------------------------------------------------------------------------------------


def accepted(checkpoint: CheckpointRecord) -> dict[str, Any]:
    """Return the entry of a new checkpoint."""
    return {"checkpoint": checkpoint.to_json()}


def stored(id: str, archive: ArchiveInfo) -> dict[str, Any]:
    """Return the entry of an archive that lies in its place, of the experiment itself or of a checkpoint."""
    return {"stored": {"id": id, "archive": archive_to_json(archive)}}


def unsaved(id: str) -> dict[str, Any]:
    """Return the entry of a checkpoint whose files could not be taken; its metrics stay."""
    return {"unsaved": {"id": id}}


def ended(at: datetime, outcome: Outcome, error: str | None) -> dict[str, Any]:
    """Return the entry of the end."""
    return {"ended": {"at": format_time(at), "outcome": outcome, "error": error}}


def resumed(at: datetime) -> dict[str, Any]:
    """Return the entry of going on after the end, by this process."""
    return {"resumed": {"at": format_time(at), "pid": os.getpid(), "host": platform.node()}}


def replay(record: ExperimentRecord, entries: Iterable[Mapping[str, Any]]) -> bool:
    """Lay entries over a record; tell whether that changed anything.

    An entry that the record holds already changes nothing: a process may die between rewriting the record and dropping the entries.
    One that makes no sense is left out: a newer keepsake may have written it.
    """
    places = {checkpoint.id: checkpoint for checkpoint in record.checkpoints}
    changed = False
    for entry in entries:
        with suppress(KeyError, ValueError, TypeError, AttributeError, OverflowError):
            [(kind, content)] = entry.items()
            changed |= _APPLY[kind](record, places, content)
    return changed


def _apply_checkpoint(record: ExperimentRecord, places: dict[str, CheckpointRecord], content: dict[str, Any]) -> bool:
    checkpoint = CheckpointRecord.from_json(content)
    if checkpoint.id in places:
        return False
    record.checkpoints.append(checkpoint)
    places[checkpoint.id] = checkpoint
    return True


def _apply_stored(record: ExperimentRecord, places: dict[str, CheckpointRecord], content: dict[str, Any]) -> bool:
    target = record if content["id"] == record.id else places[content["id"]]
    archive = archive_from_json(content["archive"])
    if target.archive == archive and not target.archive_pending:
        return False
    target.archive, target.archive_pending = archive, False
    return True


def _apply_unsaved(record: ExperimentRecord, places: dict[str, CheckpointRecord], content: dict[str, Any]) -> bool:
    checkpoint = places[content["id"]]
    if checkpoint.path is None:
        return False
    checkpoint.path, checkpoint.archive, checkpoint.archive_pending = None, None, False
    return True


def _apply_ended(record: ExperimentRecord, places: dict[str, CheckpointRecord], content: dict[str, Any]) -> bool:
    ending = parse_time(content["at"]), content["outcome"], content["error"]
    if ending[1] not in get_args(Outcome) or not isinstance(ending[2], str | None):
        raise ValueError(f"no end of an experiment: {content}")
    if (record.ended, record.outcome, record.error) == ending or any(at >= ending[0] for at in record.resumed):
        # It is there already, or it has gone on since.
        return False
    record.ended, record.outcome, record.error = ending
    return True


def _apply_resumed(record: ExperimentRecord, places: dict[str, CheckpointRecord], content: dict[str, Any]) -> bool:
    at, pid, host = parse_time(content["at"]), int(content["pid"]), str(content["host"])
    if at in record.resumed:
        return False
    record.ended = record.outcome = record.error = None
    record.resumed = [*record.resumed, at]
    record.pid, record.host = pid, host
    return True


_APPLY = {
    "checkpoint": _apply_checkpoint,
    "stored": _apply_stored,
    "unsaved": _apply_unsaved,
    "ended": _apply_ended,
    "resumed": _apply_resumed,
}


# --- lines ----------------------------------------------------------------------------------------------------------


def _line(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as a line: its checksum, a space, and JSON."""
    text = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _entries(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the entries of a segment without the lines that are not whole.

    The last one may be cut where the process was killed in the middle of it, and after a power cut any may be missing.
    """
    for line in content.split(b"\n"):
        checksum, _, text = line.partition(b" ")
        with suppress(ValueError):
            if int(checksum, 16) == zlib.crc32(text):
                entry = json.loads(text)
                if isinstance(entry, dict):
                    yield entry


# --- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Writer:
    """Who records an experiment.

    Args:
        pid: The process.
        host: The name of its machine, for people.
        machine: What tells its machine from others, see `keepsake.storage.locks.machine_id`.
    """

    pid: int
    host: str
    machine: str

    @classmethod
    def this_process(cls) -> Writer:
        """Return what names the calling process."""
        return cls(os.getpid(), platform.node(), machine_id())


class JournalDirectory:
    """The place of one experiment's journal, for whoever reads it.

    Args:
        root: The repository's directory.
        experiment_id: The experiment.

    Attributes:
        key: Where it lies in the repository.
        path: The directory.
        lock: Held by the process that records the experiment, for as long as it does.
        record_lock: Held by whoever rewrites the experiment's record, while it does.
        upload_lock: Held by whoever uploads the experiment to the store that it was recorded for, while it does.
    """

    def __init__(self, root: Path, experiment_id: str) -> None:
        self.root = root
        self.experiment_id = experiment_id
        self.key = f"{JOURNAL_DIRECTORY}/{experiment_id}"
        self.path = root / self.key
        self.lock = ProcessLock(root / JOURNAL_DIRECTORY / f"{experiment_id}.lock")
        self.record_lock = ProcessLock(root / JOURNAL_DIRECTORY / f"{experiment_id}.record")
        self.upload_lock = ProcessLock(root / JOURNAL_DIRECTORY / f"{experiment_id}.upload")

    def entries(self) -> list[dict[str, Any]]:
        """Return what is written and not known to be in the record, oldest first.

        Read it *before* the record: an entry goes from here only when the record holds it.
        """
        found: list[dict[str, Any]] = []
        for number in self.segments():
            with suppress(FileNotFoundError):
                found += _entries(self.segment(number).read_bytes())
        return found

    def mentions(self, checkpoint_id: str) -> bool:
        """Tell whether a checkpoint is written here and not known to be in the record."""
        record = ExperimentRecord(id=self.experiment_id, created=datetime.min.replace(tzinfo=UTC))
        replay(record, self.entries())
        return any(checkpoint.id == checkpoint_id for checkpoint in record.checkpoints)

    def segments(self) -> list[int]:
        """Return the numbers of the segments, in their order."""
        try:
            names = [path.name for path in self.path.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        stems = (name.removesuffix(_SEGMENT_SUFFIX) for name in names if name.endswith(_SEGMENT_SUFFIX))
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def segment(self, number: int) -> Path:
        """Return the path of a segment."""
        return self.path / f"{number:06d}{_SEGMENT_SUFFIX}"

    def writer(self) -> Writer | None:
        """Return who has made the journal, if that can be read."""
        try:
            found = json.loads((self.path / _WRITER_NAME).read_bytes())
            return Writer(int(found["pid"]), str(found["host"]), str(found["machine"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def refusal(self) -> WriteError:
        """Return the error for a second writer."""
        writer = self.writer()
        who = f"process {writer.pid} on {writer.host}" if writer is not None else "another process"
        return WriteError(
            f"experiment {short_id(self.experiment_id)} is being recorded by {who}; one process records an experiment",
            url=f"file://{self.root}",
        )

    def error(self, err: OSError) -> StorageError:
        """Return an error of the operating system as ours."""
        return disk_error(err, WriteError, "write", f"{JOURNAL_DIRECTORY}/{short_id(self.experiment_id)}", self.root)

    def remove(self) -> None:
        """Remove the journal with all that is staged in it."""
        import shutil

        shutil.rmtree(self.path, ignore_errors=True)


def journals(root: Path) -> list[JournalDirectory]:
    """Return the journals of a repository, those of live and of dead processes."""
    try:
        names = [path.name for path in (root / JOURNAL_DIRECTORY).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [JournalDirectory(root, name) for name in sorted(names) if is_id(name)]


# --- writing --------------------------------------------------------------------------------------------------------

LOOK_PATIENCE_S = 0.5
"""How long to wait for who has the lock: somebody who only looks whether the writer is dead gives it back at once."""


class Journal:
    """The journal of an experiment that this process records.

    An entry that was appended outlives the process; a power cut may cost those since the last `sync`. Not for several threads.

    Args:
        place: Where it lies; its lock is held.
        number: The number of the first segment to write.
    """

    def __init__(self, place: JournalDirectory, number: int) -> None:
        self.place = place
        self._number = number
        self._descriptor = self._open(number)
        self._size_bytes = 0
        self._synced_bytes = 0

    @classmethod
    def open(cls, root: Path, experiment_id: str) -> Self:
        """Become the one process that records an experiment, and start a segment of its journal.

        Raises:
            WriteError: Another process records it, or the directory cannot be written.
        """
        place = JournalDirectory(root, experiment_id)
        try:
            place.path.parent.mkdir(exist_ok=True)
            if not place.lock.acquire(wait_s=LOOK_PATIENCE_S):
                raise place.refusal()
            place.path.mkdir(exist_ok=True)
            (place.path / _WRITER_NAME).write_text(json.dumps(asdict(Writer.this_process())), encoding="utf-8")
            return cls(place, max(place.segments(), default=0) + 1)
        except OSError as err:
            place.lock.release()
            raise place.error(err) from err

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add an entry, whole or not at all.

        Raises:
            WriteError: There is no room, or the directory cannot be written.
        """
        line, written = _line(entry), 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as err:
            # What is there of it would run into the next line.
            with suppress(OSError):
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise self.place.error(err) from err
        self._size_bytes += len(line)

    def rotate(self) -> int:
        """Start a new segment, and return the number of the last one before it.

        Raises:
            WriteError: The directory cannot be written; the journal goes on in the present segment.
        """
        if not self._size_bytes:
            return self._number - 1
        try:
            descriptor = self._open(self._number + 1)
        except OSError as err:
            raise self.place.error(err) from err
        os.close(self._descriptor)
        self._descriptor, self._size_bytes, self._synced_bytes = descriptor, 0, 0
        self._number += 1
        return self._number - 1

    def drop_through(self, number: int) -> None:
        """Remove the segments up to one: the record holds what is in them."""
        for present in self.place.segments():
            if present <= number:
                with suppress(OSError):
                    self.place.segment(present).unlink()

    def sync(self) -> None:
        """Make what was appended outlive a power cut; does nothing if it does already.

        Another thread may append meanwhile, or rotate, which makes the old segment needless.
        """
        number, size_bytes = self._number, self._size_bytes
        if self._synced_bytes < size_bytes:
            with suppress(OSError):
                os.fsync(self._descriptor)
                if number == self._number:
                    self._synced_bytes = size_bytes

    def close(self, *, remove: bool) -> None:
        """Let go of the experiment.

        Args:
            remove: Whether the record holds all and nothing is staged any more.
        """
        os.close(self._descriptor)
        if remove:
            self.place.remove()
        self.place.lock.release()

    def _open(self, number: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        return os.open(self.place.segment(number), flags, 0o666)
