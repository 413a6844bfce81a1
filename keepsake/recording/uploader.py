"""Moves what an outbox holds to the store where it belongs, as often and as long as it takes.

An archive goes first, then the record that announces it, then the archive is removed here: a reader of the store never finds a record
of nothing, and whatever moment the process dies at, the next one goes on from there. Metrics need not wait for files: until an archive
has arrived, the record in the store says that it is on its way.
"""

from __future__ import annotations

import copy
import hashlib
import random
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from keepsake import messages
from keepsake.exceptions import AccessDenied, DoesNotExist, KeepsakeError, StorageError, StorageUnavailable
from keepsake.repository import history, layout
from keepsake.repository.annotations import Annotation, read
from keepsake.repository.journal import JournalDirectory
from keepsake.repository.merging import merge, owners
from keepsake.storage.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keepsake.recording.outbox import Outbox, Uploaded, Waiting
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord
    from keepsake.repository.repository import Repository

DELETED_ETAG = "deleted"
"""What is remembered of a record that was gone as soon as it had been written; no store gives it to any."""

MIN_INTERVAL_S = 2.0
"""Shortest time between two uploads of one experiment's record."""

PAUSE_FACTOR = 4
"""The pause after an upload in terms of its own duration, so that a slow line is not kept busy by records alone."""

FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
"""The pause after the first failure, doubled with each further one, and the longest."""

EXIT_PATIENCE_S = 60.0
"""How long the end of a process tries to reach a store that cannot be reached, before it leaves the rest to ``keepsake sync``."""


# --- one experiment -------------------------------------------------------------------------------------------------


class ExperimentUpload:
    """Moves one experiment.

    Args:
        outbox: Where from.
        target: Where to.
        experiment_id: The experiment.
        on_progress: Called with how many more bytes of files have been sent; negative where they have to be sent again.
    """

    def __init__(
        self, outbox: Outbox, target: Repository, experiment_id: str, *, on_progress: Callable[[int], None] | None = None
    ) -> None:
        self._outbox = outbox
        self._target = target
        self._id = experiment_id
        self._on_progress = on_progress or (lambda _: None)
        self._place = JournalDirectory(outbox.directory, experiment_id)
        self._annotation: Annotation | None = None

    def run(self) -> bool:
        """Move all that is there now; tell whether the store has all of it. False if another process is at it.

        Raises:
            StorageError: The store cannot take it now.
            RepositoryError: The repository there is of a format that we must not write.
        """
        self._place.path.parent.mkdir(exist_ok=True)
        if not self._place.upload_lock.acquire():
            return False
        try:
            return self._run()
        except DoesNotExist:
            # Deleted here, or there, meanwhile.
            return True
        finally:
            self._place.upload_lock.release()

    def _run(self) -> bool:
        self._target.prepare()
        is_over = not self._place.path.exists()
        record = self._outbox.repository.load(self._id)
        waiting = self._waiting_archives(record)
        self._publish(record, waiting)
        self._upload_annotation()
        self._upload_history()
        while waiting:
            key = next(iter(waiting))
            self._upload(key, waiting.pop(key))
            self._publish(record, waiting)
            self._outbox.storage.delete([key])
            record = self._outbox.repository.load(self._id)
            # Those that were stored here meanwhile come last.
            waiting |= {found: size for found, size in self._waiting_archives(record).items() if found not in waiting}
        if is_over:
            self._outbox.forget(self._id)
        return is_over or not any(owner.archive_pending for owner in owners(record))

    def _waiting_archives(self, record: ExperimentRecord) -> dict[str, int]:
        """Return the archives that lie here, with their sizes, oldest first."""
        announced = [_key_of(owner, record) for owner in owners(record) if owner.archive is not None]
        prefixes = (layout.EXPERIMENT_ARCHIVES_PREFIX, layout.CHECKPOINT_ARCHIVES_PREFIX)
        here = {info.key: info.size_bytes for prefix in prefixes for info in self._outbox.storage.list(prefix)}
        return {key: here[key] for key in announced if key in here}

    def _upload(self, key: str, size_bytes: int) -> None:
        # Whole objects only ever appear in a store. One of the same name is the same: its name was drawn for it alone.
        there = next((info for info in self._target.storage.list(key) if info.key == key), None)
        if there is not None and there.size_bytes == size_bytes:
            self._on_progress(size_bytes)
            return
        with _Watched(self._outbox.directory / key, self._on_progress) as file:
            self._target.storage.write(key, cast("BinaryIO", file))

    def _upload_annotation(self) -> None:
        """Write there what has been said of it here; the first time, over what others have said of it there."""
        annotation = read(self._outbox.repository, self._id)
        if annotation == (self._annotation or Annotation()):
            return
        theirs = read(self._target, self._id) if self._annotation is None else Annotation()
        self._target.storage.write(layout.annotations_key(self._id), annotation.or_else(theirs).to_bytes())
        self._annotation = annotation

    def _upload_history(self) -> None:
        """Write there what has been logged since the last time: segments that have grown, as far as their lines are whole."""
        known = self._outbox.uploaded(self._id)
        for info in self._outbox.storage.list(layout.metrics_prefix(self._id)):
            name = info.key.rpartition("/")[2]
            if info.size_bytes <= known.history.get(name, 0):
                continue
            lines = history.whole_lines(self._outbox.storage.read(info.key))
            self._target.storage.write(info.key, lines)
            known.history[name] = len(lines)
            self._outbox.remember(self._id, known)

    def _publish(self, record: ExperimentRecord, waiting: dict[str, int]) -> None:
        """Write the record there, if it would say something new, without announcing what has not arrived."""
        known = self._outbox.uploaded(self._id)
        self._take_over_changes(record, known)
        published = _without(record, waiting)
        content = published.to_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest == known.digest:
            return
        self._target.storage.write(layout.record_key(self._id), content)
        # It was there: where it is not any more, somebody has deleted it already, which the next look tells.
        etag = self._target.record_etag(self._id) or DELETED_ETAG
        uploaded = replace(known, digest=digest, etag=etag, checkpoints=[one.id for one in record.checkpoints])
        self._outbox.remember(self._id, uploaded)

    def _take_over_changes(self, record: ExperimentRecord, known: Uploaded) -> None:
        """Take over what others have changed in the store since we wrote there: deleted, or recorded by another machine.

        Raises:
            DoesNotExist: The whole experiment was deleted.
        """
        if known.etag is None:
            return
        etag = self._target.record_etag(self._id)
        if etag == known.etag:
            return
        if etag is None:
            # With what we have uploaded since.
            self._target.delete_experiment(record)
            self._outbox.forget(self._id)
            raise DoesNotExist(f"experiment {layout.short_id(self._id)} was deleted in {self._target.label} meanwhile")
        theirs = self._target.load_stored(self._id)
        deleted = set(known.checkpoints) - {checkpoint.id for checkpoint in theirs.checkpoints}
        if merge(record, theirs, known=known.checkpoints, deleted=deleted):

            def change(own: ExperimentRecord) -> None:
                merge(own, theirs, known=known.checkpoints, deleted=deleted)

            self._outbox.repository.update(self._id, change)
            self._outbox.storage.delete([layout.checkpoint_archive_key(id) for id in deleted])


class _Watched:
    """A file that says how much of it is read, and takes that back where it was in vain.

    Args:
        path: The file.
        on_progress: Called with how many more bytes have been read.
    """

    def __init__(self, path: Path, on_progress: Callable[[int], None]) -> None:
        self._file = path.open("rb")
        self._on_progress = on_progress
        self._read_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None:
            self._on_progress(-self._read_bytes)

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._file.read(size)
        if data:
            self._read_bytes += len(data)
            self._on_progress(len(data))
        return data


def _key_of(owner: ExperimentRecord | CheckpointRecord, record: ExperimentRecord) -> str:
    return layout.experiment_archive_key(owner.id) if owner is record else layout.checkpoint_archive_key(owner.id)


def _without(record: ExperimentRecord, waiting: dict[str, int]) -> ExperimentRecord:
    """Return a record that says of some archives that they are on their way."""
    published = copy.copy(record)
    published.checkpoints = [
        replace(one, archive=None, archive_pending=True) if layout.checkpoint_archive_key(one.id) in waiting else one
        for one in record.checkpoints
    ]
    if layout.experiment_archive_key(record.id) in waiting:
        published.archive, published.archive_pending = None, True
    return published


# --- in the background ----------------------------------------------------------------------------------------------


class Uploader:
    """Moves one experiment in the background while it is recorded, and what is left of it at the end.

    Failures are said once, and tried again with growing pauses. A daemon thread; forked children have none.

    Args:
        outbox: Where from.
        target: Where to.
        experiment_id: The experiment.

    Attributes:
        label: How the user wrote the address of the target.
        is_done: Whether the store had all of it after the last attempt.
        beats: Whether the experiment has a sign of life, the first of which is to be there before its record.
        on_progress: Called with how many more bytes of files have been sent; negative where they have to be sent again.
    """

    def __init__(self, outbox: Outbox, target: Repository, experiment_id: str) -> None:
        self.label = target.label
        self._outbox = outbox
        self._target = target
        self._id = experiment_id
        self._upload = ExperimentUpload(outbox, target, experiment_id, on_progress=lambda count: self.on_progress(count))
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._starting = threading.RLock()
        self._trying = threading.RLock()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self.is_done = False
        self.beats = False
        self.on_progress: Callable[[int], None] = lambda _: None

    def bring(self) -> None:
        """Take the experiment into the outbox, if only the store has it.

        Raises:
            StorageError: The store cannot be read.
            DoesNotExist: The experiment was deleted.
        """
        if not self._outbox.holds(self._id):
            etag = self._target.record_etag(self._id)
            infos = self._target.storage.list(layout.metrics_prefix(self._id))
            segments = {info.key.rpartition("/")[2]: info.size_bytes for info in infos}
            self._outbox.bring(self._target.load_stored(self._id), etag, segments)

    def last_segment(self) -> int:
        """Return the highest number of a segment of the experiment's history that the store is known to hold; 0 if there is none."""
        return max((history.order_of(name)[0] for name in self._outbox.uploaded(self._id).history), default=0)

    def last_logged_step(self) -> int:
        """Return the highest step in the history that the store is known to hold; -1 if there is none, or it cannot be read now."""
        if not self._outbox.uploaded(self._id).history:
            return -1
        with suppress(StorageError):
            return max((point.step for point in self._target.history(self._id)), default=-1)
        return -1

    # --- the sign of life -------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Say in the store that the experiment's process is alive, if the store can be reached."""
        with suppress(StorageError):
            self._target.beat(self._id)

    def end_beat(self) -> None:
        """Remove the sign of life, if the store can be reached."""
        with suppress(StorageError):
            self._target.end_beat(self._id)

    # --- in the background ------------------------------------------------------------------------------------------

    def notify(self) -> None:
        """Say that there is something to upload."""
        with self._starting:
            if self._thread is None:
                # Each thread has an event of its own: one that was closed must not go on for the next.
                self._closed = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._closed,), name="keepsake-uploader", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    # The interpreter is about to end, and the thread that ends it does what is left.
                    self._thread = None
        self._changed.set()

    def close(self) -> None:
        """End the thread, and wait for an upload in flight; a further change starts a new one."""
        with self._starting:
            thread, self._thread = self._thread, None
            self._closed.set()
            self._changed.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self, closed: threading.Event) -> None:
        while True:
            self._changed.wait()
            if closed.is_set():
                # What has changed since is for the next thread.
                return
            self._changed.clear()
            start = time.monotonic()
            error = self._try()
            if error is None:
                closed.wait(max(MIN_INTERVAL_S, PAUSE_FACTOR * (time.monotonic() - start)))
            else:
                pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failures - 1, 10))
                # Many trainings that lost the same store must not all come back at the same moment.
                closed.wait(pause_s * random.uniform(0.5, 1.0))
                self._changed.set()

    # --- at the end -------------------------------------------------------------------------------------------------

    def flush(self, *, patience_s: float = 0.0) -> bool:
        """Upload all that is there, and tell whether the store has it.

        Args:
            patience_s: How long to go on trying where the store cannot be reached, in seconds.
        """
        end = time.monotonic() + patience_s
        while (error := self._try()) is not None:
            left_s = end - time.monotonic()
            if left_s <= 0 or not isinstance(error, StorageUnavailable):
                return False
            time.sleep(min(FIRST_RETRY_S, left_s))
        return self.is_done

    def _try(self) -> Exception | None:
        """Try once, and return what went wrong."""
        with self._trying:
            try:
                if self.beats:
                    self._target.beat(self._id)
                    self.beats = False
                self.is_done = self._upload.run()
            except Exception as err:  # noqa: BLE001 - after init() nothing of ours may stop a training
                self._failures += 1
                self._report(err)
                return err
            if self._failures:
                self._failures = 0
                messages.info(f"{self.label} is being uploaded to again")
            return None

    def _report(self, err: Exception) -> None:
        messages.debug_exception(err)
        if self._failures > 1:
            return
        why = err.message if isinstance(err, KeepsakeError) else f"{type(err).__name__}: {err}"
        then = "renew the credentials, then run" if isinstance(err, AccessDenied) else "will retry, or run"
        left = self._outbox.waiting()
        what = f"{left.checkpoints} checkpoint{'' if left.checkpoints == 1 else 's'}, {size_text(left.size_bytes)}"
        messages.warning(f"{why}; saved to {self._outbox.directory} ({what}); {then}: keepsake sync")

    def waiting(self) -> Waiting:
        """Return how much the outbox holds."""
        return self._outbox.waiting()


# --- by hand --------------------------------------------------------------------------------------------------------


class Sync:
    """Moves all that an outbox holds, for ``keepsake sync``.

    Args:
        outbox: Where from.
        target: Where to.

    Attributes:
        label: The address of the target, for people.
    """

    def __init__(self, outbox: Outbox, target: Repository) -> None:
        self.label = target.label
        self._outbox = outbox
        self._target = target

    def waiting(self) -> Waiting:
        """Return how much the outbox holds."""
        return self._outbox.waiting()

    def run(self, on_progress: Callable[[int], None] | None = None) -> list[str]:
        """Move all of it, and return the experiments that are still being recorded, of which more will come.

        Args:
            on_progress: Called with how many more bytes of files have been sent.

        Raises:
            StorageError: The store cannot take it now; what has arrived has left the outbox.
            RepositoryError: The repository there is of a format that we must not write.
        """
        # What dead processes have not stored in the outbox comes first.
        self._outbox.repository.check()
        return [
            id
            for id in self._outbox.experiment_ids()
            if not ExperimentUpload(self._outbox, self._target, id, on_progress=on_progress).run() or self._outbox.holds(id)
        ]
