"""Whether a repository holds what its records say, and what in it belongs to nobody: what ``keepsake fsck`` does.

Looking changes nothing. What can be repaired without losing anything comes with the way to do it (`Finding.repair`); a damaged record
or archive is never touched, because a part of it may still be saved by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from keepsake.exceptions import CorruptedRecord, DoesNotExist, KeepsakeError, ObjectNotFound, StorageError
from keepsake.repository import annotations as said
from keepsake.repository import history, layout, recovery
from keepsake.repository.journal import journals, replay
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.staging import Staging
from keepsake.repository.status import judge, tolerance_s
from keepsake.storage import DiskStorage
from keepsake.storage.disk import TEMPORARY_DIRECTORY, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from keepsake.repository.journal import JournalDirectory
    from keepsake.repository.records import ArchiveInfo
    from keepsake.repository.repository import Repository
    from keepsake.storage import ObjectInfo

Severity: TypeAlias = Literal["damage", "leftover", "note"]
Owner: TypeAlias = ExperimentRecord | CheckpointRecord
Progress: TypeAlias = Callable[[int], None]

T = TypeVar("T")
R = TypeVar("R")

ORPHANED_S = 86_400.0
"""Age from which an object without a record is taken for one that a deletion has left, in seconds: keepsake 0.4.2 writes a
checkpoint's files before the record that names them, and may take hours for it where its store is slow."""

MAX_THREADS = 16
"""More readers than this make no store faster."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Args:
        severity: ``damage``: something that was recorded cannot be had; ``leftover``: something takes room and belongs to nobody,
            or waits to be stored; ``note``: worth knowing, and nothing is wrong.
        kind: What it is, for programs: a few words joined by hyphens.
        key: Where in the repository.
        text: What it is, for people.
        hint: The command that mends it, if there is one.
        repair: Mends it; None where that cannot be done without losing something.
    """

    severity: Severity
    kind: str
    key: str
    text: str
    hint: str | None = None
    repair: Callable[[], None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Report:
    """What a check has found.

    Args:
        experiments: How many records could be read.
        checkpoints: How many checkpoints they name.
        size_bytes: How much the archives hold that they announce.
        findings: What is not as it should be.
    """

    experiments: int
    checkpoints: int
    size_bytes: int
    findings: list[Finding]


def check(repository: Repository, *, quick: bool = False, progress: Callable[[int], Progress] | None = None) -> Report:
    """Compare a repository with what its records say.

    Experiments that run meanwhile, and their journals, are as they should be.

    Args:
        repository: The repository.
        quick: Look at presence and sizes only, and read no archive.
        progress: Called with the number of bytes that will be read; what it returns is called with how many more have been.

    Raises:
        RepositoryError: Its format is not understood.
        StorageError: It cannot be listed.

    Example:
        >>> from keepsake.repository.repository import Repository
        >>> from keepsake.storage import MemoryStorage
        >>> check(Repository(MemoryStorage())).findings
        []
    """
    repository.check_format()
    return _Check(repository).run(quick=quick, progress=progress)


@dataclass(frozen=True, slots=True)
class _Archive:
    """An archive that a record names.

    Args:
        owner: The experiment or the checkpoint.
        experiment: The experiment.
        key: Where it lies.
    """

    owner: Owner
    experiment: ExperimentRecord
    key: str

    @property
    def announced(self) -> ArchiveInfo | None:
        return self.owner.archive

    @property
    def name(self) -> str:
        if isinstance(self.owner, CheckpointRecord):
            of = f"step {self.owner.step} of experiment {layout.short_id(self.experiment.id)}"
            return f"checkpoint {layout.short_id(self.owner.id)} ({of})"
        return f"experiment {layout.short_id(self.experiment.id)}"


class _Check:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._storage = repository.storage
        # In this order: what appears between one listing and the next must not look like an orphan.
        self._archives = {info.key: info for prefix in _ARCHIVE_PREFIXES for info in self._storage.list(prefix)}
        self._heartbeats = {info.key: info for info in self._storage.list(layout.HEARTBEATS_PREFIX)}
        self._segments = {info.key: info for info in self._storage.list(layout.METRICS_PREFIX)}
        self._annotations = {info.key: info for info in self._storage.list(layout.ANNOTATIONS_PREFIX)}
        self._aliases = {info.key: info for info in self._storage.list(layout.ALIASES_PREFIX)}
        root = repository.local_root
        self._journals = {place.experiment_id: place for place in journals(root)} if root is not None else {}
        self._staged = {id: place.entries() for id, place in self._journals.items()}
        self._records: list[ExperimentRecord] = []
        self._unreadable: list[str] = []

    def run(self, *, quick: bool, progress: Callable[[int], Progress] | None) -> Report:
        findings = [*self._spec(), *self._read_records()]
        archives = [archive for record in self._records for archive in _archives_of(record)]
        findings += self._presence(archives)
        if not quick:
            findings += self._content(archives, progress)
            findings += self._unreadable_history()
        findings += [*self._twice(), *self._dead_journals(), *self._temporary_files(), *self._orphans(archives), *self._beats()]
        findings += [*self._orphaned_history(), *self._said_of_experiments(), *self._aliases_of_checkpoints()]
        return Report(
            experiments=len(self._records),
            checkpoints=sum(len(record.checkpoints) for record in self._records),
            size_bytes=sum(self._archives[archive.key].size_bytes for archive in archives if archive.key in self._archives),
            findings=findings,
        )

    # --- records ----------------------------------------------------------------------------------------------------

    def _spec(self) -> Iterator[Finding]:
        if not self._repository.exists() and any(True for _ in self._storage.list(layout.RECORDS_PREFIX)):
            text = f"{layout.SPEC_KEY}, which says of which format the repository is, is not there"
            yield Finding("damage", "spec-missing", layout.SPEC_KEY, text, repair=self._repository.prepare)

    def _read_records(self) -> Iterator[Finding]:
        keys = [info.key for info in self._storage.list(layout.RECORDS_PREFIX)]
        for key in keys:
            if layout.id_of_json_key(key) is None:
                yield Finding("note", "foreign-file", key, "a file that is no record of keepsake's")
        known = [key for key in keys if layout.id_of_json_key(key) is not None]
        for key, found in zip(known, _side_by_side(self._read_record, known), strict=True):
            if isinstance(found, ExperimentRecord):
                self._records.append(found)
            elif found is not None:
                self._unreadable.append(key)
                name = f"of experiment {layout.short_id(layout.id_of_json_key(key) or '')}"
                said = "; ".join((found.message, *found.facts)).replace(key, name)
                yield Finding("damage", "record-damaged", key, f"{said}; put it back from a backup if there is one")

    def _read_record(self, key: str) -> ExperimentRecord | KeepsakeError | None:
        id = layout.id_of_json_key(key) or ""
        try:
            record = self._repository.load_stored(id)
        except DoesNotExist:
            # Deleted meanwhile.
            return None
        except (CorruptedRecord, StorageError) as err:
            return err
        replay(record, self._staged.get(id, []))
        record.heartbeat = self._repository.heartbeat(id) if record.outcome is None else None
        return record

    def _twice(self) -> Iterator[Finding]:
        owners: dict[str, str] = {}
        for record in self._records:
            for checkpoint in record.checkpoints:
                other = owners.setdefault(checkpoint.id, record.id)
                if other != record.id:
                    short = layout.short_id
                    text = f"checkpoint {short(checkpoint.id)} belongs to experiment {short(other)} too; they share its files"
                    yield Finding("note", "checkpoint-twice", layout.record_key(record.id), text)

    # --- archives ---------------------------------------------------------------------------------------------------

    def _presence(self, archives: Iterable[_Archive]) -> Iterator[Finding]:
        for archive in archives:
            info = self._archives.get(archive.key) or self._appeared(archive.key)
            if archive.owner.archive_pending:
                yield from self._pending(archive, info)
            elif info is None:
                yield Finding("damage", "files-missing", archive.key, f"the files of {archive.name} are not there", _rm(archive))
            elif archive.announced is not None and archive.announced.size_bytes != info.size_bytes:
                sizes = f"{info.size_bytes:,} bytes instead of {archive.announced.size_bytes:,}"
                yield Finding("damage", "files-damaged", archive.key, f"the files of {archive.name}: {sizes}", _rm(archive))

    def _appeared(self, key: str) -> ObjectInfo | None:
        found = next((info for info in self._storage.list(key) if info.key == key), None)
        if found is not None:
            self._archives[key] = found
        return found

    def _pending(self, archive: _Archive, info: ObjectInfo | None) -> Iterator[Finding]:
        """Judge files that the record says to be on their way: a journal, or a process that lives, still brings them."""
        record = archive.experiment
        if record.id in self._journals or judge(None, record.heartbeat_interval_s, record.heartbeat).word == "running":
            return
        if info is not None:
            text = f"the files of {archive.name} are there, and not announced in the record"
            yield Finding("damage", "files-not-announced", archive.key, text, repair=lambda: self._announce(archive))
        elif isinstance(archive.owner, CheckpointRecord):
            text = f"the files of {archive.name} have never arrived; its metrics are there"
            yield Finding("damage", "files-missing", archive.key, text, _rm(archive))
        else:
            text = f"the code of {archive.name} has never arrived"
            yield Finding("note", "code-missing", archive.key, text)

    def _announce(self, archive: _Archive) -> None:
        self._repository.archives.check(archive.key)
        announcement = self._repository.archives.describe(archive.key)

        def announce(record: ExperimentRecord) -> None:
            owners: list[Owner] = [record, *record.checkpoints]
            for owner in owners:
                if owner.id == archive.owner.id:
                    owner.archive, owner.archive_pending = announcement, False

        self._repository.update(archive.experiment.id, announce)

    def _content(self, archives: Iterable[_Archive], progress: Callable[[int], Progress] | None) -> Iterator[Finding]:
        """Read all archives that are there and not known to be damaged."""
        wanted = [archive for archive in archives if self._is_worth_reading(archive)]
        read = progress(sum(self._archives[archive.key].size_bytes for archive in wanted)) if progress is not None else None

        def problem(archive: _Archive) -> KeepsakeError | None:
            try:
                self._repository.archives.check(archive.key, announced=archive.announced)
            except ObjectNotFound:
                pass
            except KeepsakeError as err:
                # It may have been deleted meanwhile, with its experiment.
                return err if self._appeared(archive.key) is not None else None
            finally:
                if read is not None:
                    read(self._archives[archive.key].size_bytes)
            return None

        for archive, err in zip(wanted, _side_by_side(problem, wanted), strict=True):
            if err is not None:
                text = f"the files of {archive.name}: {'; '.join((err.message, *err.facts))}"
                yield Finding("damage", "files-damaged", archive.key, text, _rm(archive))

    def _is_worth_reading(self, archive: _Archive) -> bool:
        info = self._archives.get(archive.key)
        announced = archive.announced
        return info is not None and (announced is None or announced.size_bytes == info.size_bytes)

    def _orphans(self, archives: Iterable[_Archive]) -> Iterator[Finding]:
        owned = {archive.key for archive in archives}
        for key in sorted(self._archives.keys() - owned):
            info = self._archives[key]
            if not layout.is_id(key.rpartition("/")[2].removesuffix(".tar.gz")):
                yield Finding("note", "foreign-file", key, "a file that is no archive of keepsake's")
            elif self._appeared(key) is not None:
                yield self._orphan(key, info, f"archive of {size_text(info.size_bytes)} that no record names")

    def _orphan(self, key: str, info: ObjectInfo, what: str) -> Finding:
        """Return the finding for an object that is nobody's, and may be removed where that is certain."""
        if self._unreadable:
            text = f"{what}; it may belong to a record that is damaged, and is kept"
        elif info.age_s < ORPHANED_S:
            text = f"{what}; it may be about to be named, and is kept for a day"
        else:
            return Finding("leftover", "orphan", key, what, repair=lambda: self._storage.delete([key]))
        return Finding("note", "orphan", key, text)

    # --- history ----------------------------------------------------------------------------------------------------

    def _unreadable_history(self) -> Iterator[Finding]:
        keys = [key for key in self._segments if layout.id_of_segment_key(key) is not None]
        for key, lines in zip(keys, _side_by_side(self._damaged_lines, keys), strict=True):
            if lines:
                of = f"experiment {layout.short_id(layout.id_of_segment_key(key) or '')}"
                what = f"{lines:,} line{'' if lines == 1 else 's'} of the history of {of} cannot be read and are left out"
                yield Finding("damage", "history-damaged", key, what)

    def _damaged_lines(self, key: str) -> int:
        try:
            return history.damaged_lines(self._storage.read(key))
        except ObjectNotFound:
            # Deleted meanwhile.
            return 0

    def _orphaned_history(self) -> Iterator[Finding]:
        known = {record.id for record in self._records}
        for key, info in self._segments.items():
            id = layout.id_of_segment_key(key)
            if id is None:
                yield Finding("note", "foreign-file", key, "a file that is no history of keepsake's")
            elif id not in known and self._gone(id):
                yield self._orphan(key, info, "history that belongs to no record")

    # --- what people say --------------------------------------------------------------------------------------------

    def _said_of_experiments(self) -> Iterator[Finding]:
        known = {record.id for record in self._records}
        keys = {key: layout.id_of_json_key(key) for key in self._annotations}
        for key, found in self._read_small(keys, said.Annotation.from_bytes):
            id = keys[key]
            if id is None:
                yield Finding("note", "foreign-file", key, "a file that is no annotation of keepsake's")
            elif isinstance(found, CorruptedRecord):
                text = f"name, tags and notes of experiment {layout.short_id(id)} cannot be read: {found.message}"
                yield Finding("damage", "annotation-damaged", key, text)
            elif id not in known and self._gone(id):
                yield self._orphan(key, self._annotations[key], "name, tags and notes that belong to no record")

    def _aliases_of_checkpoints(self) -> Iterator[Finding]:
        known = {checkpoint.id for record in self._records for checkpoint in record.checkpoints}
        names = {key: layout.alias_of_key(key) for key in self._aliases}
        for key, found in self._read_small(names, said.Alias.from_bytes):
            name = names[key]
            if name is None:
                yield Finding("note", "foreign-file", key, "a file that is no alias of keepsake's")
            elif isinstance(found, CorruptedRecord):
                yield Finding("damage", "alias-damaged", key, f"the alias @{name} cannot be read: {found.message}")
            elif found is not None and found.checkpoint not in known:
                what = f"alias @{name} of checkpoint {layout.short_id(found.checkpoint)}, which is in no record"
                yield self._orphan(key, self._aliases[key], what)

    def _read_small(self, keys: Iterable[str], build: Callable[..., T]) -> Iterator[tuple[str, T | CorruptedRecord | None]]:
        """Yield what stands in files, or why it cannot be read; None for those that are deleted meanwhile."""

        def read(key: str) -> T | CorruptedRecord | None:
            try:
                return build(self._storage.read(key), key=key)
            except ObjectNotFound:
                return None
            except CorruptedRecord as err:
                return err

        wanted = list(keys)
        yield from zip(wanted, _side_by_side(read, wanted), strict=True)

    # --- leftovers --------------------------------------------------------------------------------------------------

    def _beats(self) -> Iterator[Finding]:
        records = {layout.heartbeat_key(record.id): record for record in self._records}
        for key, info in self._heartbeats.items():
            record = records.get(key)
            if layout.id_of_json_key(key) is None:
                yield Finding("note", "foreign-file", key, "a file that is no heartbeat of keepsake's")
            elif record is None and self._gone(layout.id_of_json_key(key) or ""):
                yield self._orphan(key, info, "heartbeat that belongs to no record")
            elif record is not None and record.outcome is not None and info.age_s > tolerance_s(record.heartbeat_interval_s):
                text = f"heartbeat of experiment {layout.short_id(record.id)}, which has ended"
                yield Finding("leftover", "heartbeat", key, text, repair=_end_beat(self._repository, record.id))

    def _gone(self, id: str) -> bool:
        """Tell whether there is still no record: an experiment beats before its record is written."""
        return self._repository.record_etag(id) is None and layout.record_key(id) not in self._unreadable

    def _dead_journals(self) -> Iterator[Finding]:
        stored = {record.id: record for record in self._records}
        for id, place in self._journals.items():
            if not recovery.is_left_behind(self._repository, place):
                continue
            name = f"experiment {layout.short_id(id)}"
            text = (
                f"journal of {name}, whose process has died: {_waiting(place, self._repository)}"
                if id in stored
                else f"journal of {name}, which was deleted"
            )
            yield Finding("leftover", "journal", place.key, text, repair=lambda: recovery.recover(self._repository))

    def _temporary_files(self) -> Iterator[Finding]:
        storage = self._storage
        if not isinstance(storage, DiskStorage):
            return
        for path, size_bytes in storage.left_behind():
            text = f"temporary file of {size_text(size_bytes)} of a process that has died"
            yield Finding("leftover", "temporary-file", f"{TEMPORARY_DIRECTORY}/{path.name}", text, repair=storage.sweep)


_ARCHIVE_PREFIXES = (layout.EXPERIMENT_ARCHIVES_PREFIX, layout.CHECKPOINT_ARCHIVES_PREFIX)


def _archives_of(record: ExperimentRecord) -> Iterator[_Archive]:
    if record.path is not None:
        yield _Archive(record, record, layout.experiment_archive_key(record.id))
    for checkpoint in record.checkpoints:
        if checkpoint.has_files:
            yield _Archive(checkpoint, record, layout.checkpoint_archive_key(checkpoint.id))


def _rm(archive: _Archive) -> str | None:
    """Return the command that gives a lost checkpoint up; an experiment without its code is still worth keeping."""
    return f"keepsake rm {layout.short_id(archive.owner.id)}" if isinstance(archive.owner, CheckpointRecord) else None


def _end_beat(repository: Repository, experiment_id: str) -> Callable[[], None]:
    return lambda: repository.end_beat(experiment_id)


def _waiting(place: JournalDirectory, repository: Repository) -> str:
    """Say what a journal holds that is not in the repository."""
    record = repository.load_stored(place.experiment_id)
    before = len(record.checkpoints)
    replay(record, place.entries())
    staging = Staging(place)
    size_bytes = sum(staging.size_bytes(id) for id in staging.ids())
    count = len(record.checkpoints) - before
    checkpoints = f"{count} checkpoint{'' if count == 1 else 's'} and " if count else ""
    return f"{checkpoints}{size_text(size_bytes)} of files are not stored yet"


def _side_by_side(work: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
    """Return what each item gives, in their order, with several at work at the same time."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(MAX_THREADS, len(items), (os.cpu_count() or 1) + 2)) as pool:
        return list(pool.map(work, items))
