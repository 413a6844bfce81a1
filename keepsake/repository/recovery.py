"""What dead processes have left in a repository on disk is put into its place, by the next process that opens it.

Nothing is touched of a process that may be alive: its lock tells, which the kernel gives back when a process ends, however it ends.
"""

from __future__ import annotations

from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, Any

from keepsake import messages
from keepsake.exceptions import AccessDenied, DoesNotExist, KeepsakeError, ReadError
from keepsake.repository import layout
from keepsake.repository.journal import JournalDirectory, journals, replay, stored, unsaved
from keepsake.repository.records import CheckpointRecord
from keepsake.repository.staging import Staging
from keepsake.storage import DiskStorage
from keepsake.storage.disk import JOURNAL_DIRECTORY
from keepsake.storage.locks import ProcessLock, machine_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keepsake.repository.records import ArchiveInfo, ExperimentRecord
    from keepsake.repository.repository import Repository

SILENT_ELSEWHERE_S = 600.0
"""How long a process of another machine, whose lock may not reach this one, has not beaten before it counts as dead: well above the
tolerance of the status, since what a process that was only suspended has staged must not be taken from it."""

SILENT_WITHOUT_BEAT_S = 86_400.0
"""The same for one that does not beat, counted from what it wrote last."""


def recover(repository: Repository) -> None:
    """Store what dead processes have accepted, and sweep their temporary files.

    What cannot be done is said and left to the next process; readers see the entries all the same. Does nothing for a repository that
    is not on disk.
    """
    root, storage = repository.local_root, repository.storage
    if root is None or not isinstance(storage, DiskStorage):
        return
    for place in journals(root):
        try:
            _recover_one(repository, place)
        except (KeepsakeError, OSError) as err:
            _report(place, err)
    with suppress(KeepsakeError, OSError):
        storage.sweep()
        _sweep_locks(root / JOURNAL_DIRECTORY)


def _report(place: JournalDirectory, err: Exception) -> None:
    text = f"what experiment {layout.short_id(place.experiment_id)} has left in {place.path} cannot be stored: {err}"
    # Who only may read a repository cannot mend that, and sees all that was accepted.
    if isinstance(err, AccessDenied | PermissionError):
        messages.debug(text)
    else:
        messages.warn_once(f"recovery {place.path}", text)


def _recover_one(repository: Repository, place: JournalDirectory) -> None:
    if not place.lock.acquire():
        return
    is_over = False
    try:
        if _is_dead(repository, place):
            count = _store_all(repository, place)
            place.remove()
            is_over = True
            if count:
                what = f"{count} checkpoint{'' if count == 1 else 's'}"
                id = layout.short_id(place.experiment_id)
                messages.info(f"recovered {what} that experiment {id} had not stored when its process ended")
    finally:
        # The file stays where somebody elsewhere may hold it in a way that this machine does not see.
        place.lock.release(remove=is_over)


def is_left_behind(repository: Repository, place: JournalDirectory) -> bool:
    """Tell whether a journal is that of a dead process, for certain."""
    try:
        if not place.lock.acquire():
            return False
    except OSError:
        # A repository that is not ours to write does not let us ask.
        return False
    is_dead = False
    try:
        is_dead = _is_dead(repository, place)
    finally:
        place.lock.release(remove=False)
    return is_dead


def _is_dead(repository: Repository, place: JournalDirectory) -> bool:
    """Tell whether the writer is dead for certain, given that its lock could be had."""
    writer = place.writer()
    if place.lock.is_real and (writer is None or writer.machine == machine_id()):
        return True
    heartbeat = repository.heartbeat(place.experiment_id)
    if heartbeat is not None:
        return heartbeat.age_s > SILENT_ELSEWHERE_S
    ages = [time() - path.stat().st_mtime for path in place.path.iterdir()]
    return min(ages, default=SILENT_WITHOUT_BEAT_S) >= SILENT_WITHOUT_BEAT_S


def _store_all(repository: Repository, place: JournalDirectory) -> int:
    """Bring the record up to date, and return how many of its checkpoints were not in it."""
    entries = place.entries()
    try:
        record = repository.load_stored(place.experiment_id)
        known = {checkpoint.id for checkpoint in record.checkpoints if not checkpoint.archive_pending}
        replay(record, entries)
        entries += _stored_files(repository, Staging(place), record)
        with repository.rewriting(place.experiment_id):
            record = repository.load_stored(place.experiment_id)
            if replay(record, entries):
                repository.save(record)
    except DoesNotExist:
        if not repository.is_deleted(place.experiment_id):
            raise
        # It was deleted while its process lived.
        return 0
    if record.outcome is not None:
        repository.end_beat(record.id)
    return sum(checkpoint.id not in known for checkpoint in record.checkpoints)


def _stored_files(repository: Repository, staging: Staging, record: ExperimentRecord) -> Iterator[dict[str, Any]]:
    """Store the files that a record promises and that are not announced, and yield the entries that say so."""
    owners: list[ExperimentRecord | CheckpointRecord] = [record, *record.checkpoints]
    for owner in owners:
        if not owner.archive_pending:
            continue
        is_code = owner is record
        key = layout.experiment_archive_key(owner.id) if is_code else layout.checkpoint_archive_key(owner.id)
        if staging.is_whole(owner.id) or any(True for _ in repository.storage.list(key)):
            try:
                yield stored(owner.id, _stored_intact(repository, staging, owner.id, key))
            except ReadError as err:
                messages.error(f"the files of {_what(owner)} are lost, its metrics are not: {err}")
                staging.discard(owner.id)
                yield unsaved(owner.id)
        elif not is_code:
            # It died in the middle of taking the files; the call had not returned.
            yield unsaved(owner.id)


def _stored_intact(repository: Repository, staging: Staging, id: str, key: str) -> ArchiveInfo:
    archive = staging.store(id, repository, key)
    staging.sweep(id)
    # Not all that was staged is on the disk, where the machine itself went down.
    repository.archives.check(key)
    return archive


def _what(owner: ExperimentRecord | CheckpointRecord) -> str:
    if isinstance(owner, CheckpointRecord):
        return f"checkpoint {layout.short_id(owner.id)} (step {owner.step})"
    return f"experiment {layout.short_id(owner.id)}"


def _sweep_locks(directory: Path) -> None:
    """Remove lock files that nobody holds and that belong to no journal."""
    for path in list(directory.iterdir()) if directory.is_dir() else []:
        if path.suffix in (".lock", ".record", ".upload") and not path.with_suffix("").exists():
            lock = ProcessLock(path)
            if lock.acquire():
                lock.release()
