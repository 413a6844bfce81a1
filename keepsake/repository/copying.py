"""Copying experiments from one repository to another, archive by archive, verified on the way.

The archives go first and the record last, so a reader of the target never finds a record of nothing; a copy that breaks off goes on
where it was, because what has arrived is left out.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from keepsake.exceptions import ReadError, StorageError
from keepsake.repository import history, layout
from keepsake.storage import OverlayStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import WriteableBuffer

    from keepsake.repository.records import ArchiveInfo, ExperimentRecord
    from keepsake.repository.repository import Repository
    from keepsake.storage import Storage


def copy_experiment(
    source: Repository, target: Repository, record: ExperimentRecord, *, on_progress: Callable[[int], None] | None = None
) -> bool:
    """Copy an experiment with everything that belongs to it; tell whether anything was missing in the target.

    Files that the source itself is still waiting for stay announced as such.

    Args:
        source: Where from.
        target: Where to; prepared for writing.
        record: The experiment.
        on_progress: Called with how many bytes have been copied, after each archive.

    Raises:
        ReadError: What is read is not what its record announces; it has not been copied.
        StorageError: Either store failed.
    """
    has_copied = False
    for key, announced in _archives(record):
        has_copied |= _copy_archive(source, target, key, announced)
        if on_progress is not None:
            on_progress(announced.size_bytes if announced is not None else 0)
    has_copied |= _copy_history(source, target, record.id)
    content = record.to_bytes()
    key = layout.record_key(record.id)
    if target.record_etag(record.id) is None or target.storage.read(key) != content:
        target.storage.write(key, content)
        has_copied = True
    return has_copied


def size_bytes(record: ExperimentRecord) -> int:
    """Return how much the archives of an experiment hold that its record announces."""
    return sum(announced.size_bytes for _, announced in _archives(record) if announced is not None)


def _archives(record: ExperimentRecord) -> Iterator[tuple[str, ArchiveInfo | None]]:
    if record.path is not None and not record.archive_pending:
        yield layout.experiment_archive_key(record.id), record.archive
    for checkpoint in record.checkpoints:
        if checkpoint.has_files and not checkpoint.archive_pending:
            yield layout.checkpoint_archive_key(checkpoint.id), checkpoint.archive


def _copy_archive(source: Repository, target: Repository, key: str, announced: ArchiveInfo | None) -> bool:
    there = next((info for info in target.storage.list(key) if info.key == key), None)
    here = next((info for info in source.storage.list(key) if info.key == key), None)
    if here is None:
        raise ReadError(
            f"{key} is not in {source.label}", url=source.storage.url, key=key, hint=f"keepsake fsck -R {source.label}"
        )
    if there is not None and there.size_bytes == here.size_bytes:
        return False
    origin = _store_of(source.storage, key)
    if type(origin) is type(target.storage) and hasattr(origin, "copy_from"):
        # One store, which copies without the bytes coming here.
        cast("Any", target.storage).copy_from(origin, key, key)
        return True
    with source.storage.open(key) as stream:
        verified = _Verified(stream, announced, key, source)
        target.storage.write(key, cast("BinaryIO", io.BufferedReader(verified)))
    return True


def _copy_history(source: Repository, target: Repository, experiment_id: str) -> bool:
    """Copy the segments of a history that are missing in the target, or longer here: they only ever grow."""
    prefix = layout.metrics_prefix(experiment_id)
    there = {info.key: info.size_bytes for info in target.storage.list(prefix)}
    longer = [info.key for info in source.storage.list(prefix) if info.size_bytes > there.get(info.key, -1)]
    for key in longer:
        target.storage.write(key, history.whole_lines(source.storage.read(key)))
    return bool(longer)


def _store_of(storage: Storage, key: str) -> Storage:
    """Return the one of two stores in front of each other in which an object lies."""
    if not isinstance(storage, OverlayStorage):
        return storage
    is_in_front = any(info.key == key for info in storage.front.list(key))
    return storage.front if is_in_front else storage.back


class _Verified(io.RawIOBase):
    """Reads through to a stream, and fails at its end where the digest is not the one announced: then nothing is written."""

    def __init__(self, stream: BinaryIO, announced: ArchiveInfo | None, key: str, source: Repository) -> None:
        super().__init__()
        self._stream = stream
        self._announced = announced
        self._key = key
        self._source = source
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._digest.update(data)
        if not data and self._announced is not None and self._digest.hexdigest() != self._announced.sha256:
            raise StorageError(
                f"{self._key} in {self._source.label} does not match its sha256, and is not copied",
                url=self._source.storage.url,
                key=self._key,
                hint=f"keepsake fsck -R {self._source.label}",
            )
        return len(data)
