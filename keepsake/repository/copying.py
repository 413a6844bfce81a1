"""Copying experiments from one repository to another, archive by archive, verified on the way.

The archives go first and the record last, so a reader of the target never finds a record of nothing; a copy that breaks off goes on
where it was, because what has arrived is left out.
"""

from __future__ import annotations

import copy
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from keepsake import messages
from keepsake.exceptions import ObjectNotFound, ReadError, StorageError, StorageUnavailable
from keepsake.repository import annotations as said
from keepsake.repository import history, layout
from keepsake.repository.merging import merge
from keepsake.repository.records import ExperimentRecord
from keepsake.storage import OverlayStorage
from keepsake.storage.base import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from _typeshed import WriteableBuffer

    from keepsake.repository.archive import PassingCheck
    from keepsake.repository.records import ArchiveInfo
    from keepsake.repository.repository import Repository
    from keepsake.storage import ObjectInfo, Storage

COPIERS = 8
"""How many experiments are copied at once: most of the time goes by on the way to a store."""

LARGE_BYTES = 8 << 20
"""Of archives of more than this one is copied at a time: stores hold several parts of each in memory."""


def copy_experiments(
    source: Repository,
    target: Repository,
    records: Sequence[ExperimentRecord],
    *,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Copy experiments with everything that belongs to them; return of how many anything was missing in the target.

    Files that the source itself is still waiting for stay announced as such. What others have added in the target stays there.

    Args:
        source: Where from.
        target: Where to; prepared for writing.
        records: The experiments.
        on_progress: Called with how many more bytes of files have been copied.

    Raises:
        StorageError: Either store failed, or what was read is not what its record announces. Each experiment that is in the target then
            is whole, and the rest is copied the next time.
    """
    copying = _Copying(source, target, on_progress)
    with ThreadPoolExecutor(COPIERS, "keepsake-copy") as pool:
        try:
            return sum(pool.map(copying.copy, records))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def size_bytes(record: ExperimentRecord) -> int:
    """Return how much the archives of an experiment hold that its record announces."""
    return sum(announced.size_bytes for _, announced in _archives(record) if announced is not None)


def _archives(record: ExperimentRecord) -> Iterator[tuple[str, ArchiveInfo | None]]:
    if record.path is not None and not record.archive_pending:
        yield layout.experiment_archive_key(record.id), record.archive
    for checkpoint in record.checkpoints:
        if checkpoint.has_files and not checkpoint.archive_pending:
            yield layout.checkpoint_archive_key(checkpoint.id), checkpoint.archive


class _Copying:
    """Copies experiments, each by one thread.

    Args:
        source: Where from.
        target: Where to.
        on_progress: Called with how many more bytes of files have been copied, by one thread at a time.
    """

    def __init__(self, source: Repository, target: Repository, on_progress: Callable[[int], None] | None) -> None:
        self._source = source
        self._target = target
        self._on_progress = on_progress
        self._aliases = said.aliases(source)
        self._aliases_there = said.aliases(target)
        self._progress_turn = threading.Lock()
        self._large_turn = threading.Lock()

    def copy(self, record: ExperimentRecord) -> bool:
        """Copy an experiment; tell whether anything was missing."""
        has_copied = False
        for key, announced in _archives(record):
            with self._large_turn if announced is None or announced.size_bytes > LARGE_BYTES else nullcontext():
                has_copied |= self._copy_archive(key, announced)
        has_copied |= self._copy_history(record.id)
        has_copied |= self._copy_record(record)
        has_copied |= self._copy_annotation(record.id)
        return self._copy_aliases(record) or has_copied

    def _copy_archive(self, key: str, announced: ArchiveInfo | None) -> bool:
        source, target = self._source, self._target
        there = _find(target.storage, key)
        here = _find(source.storage, key)
        if here is None:
            raise ReadError(
                f"{key} is not in {source.label}", url=source.storage.url, key=key, hint=f"keepsake fsck -R {source.label}"
            )
        if announced is not None and here.size_bytes != announced.size_bytes:
            raise _damaged(source, key, f"has {here.size_bytes:,} bytes, not {announced.size_bytes:,}")
        if there is not None and there.size_bytes == here.size_bytes:
            self._advance(here.size_bytes)
            return False
        if self._copied_by_the_store(key):
            self._advance(here.size_bytes)
            return True
        try:
            check = source.archives.passing_check(key, announced)
            with source.storage.open(key) as stream:
                verified = _Verified(stream, check, self._advance)
                target.storage.write(key, cast("BinaryIO", io.BufferedReader(verified, PIECE_BYTES)))
        except ReadError as err:
            raise _damaged(source, key, "is damaged", err.message) from err
        return True

    def _advance(self, size_bytes: int) -> None:
        if self._on_progress is not None:
            with self._progress_turn:
                self._on_progress(size_bytes)

    def _copied_by_the_store(self, key: str) -> bool:
        """Let one store that holds both copy without the bytes coming here; tell whether it could."""
        origin = _store_of(self._source.storage, key)
        if type(origin) is not type(self._target.storage) or not hasattr(origin, "copy_from"):
            return False
        try:
            cast("Any", self._target.storage).copy_from(origin, key, key)
        except (StorageUnavailable, ObjectNotFound):
            raise
        except StorageError as err:
            # Servers that stand in for Amazon's or Google's may not know how, nor may accounts read each other's buckets.
            messages.debug_exception(err)
            return False
        return True

    def _copy_history(self, experiment_id: str) -> bool:
        """Copy the segments of a history that are missing in the target, or longer here: they only ever grow."""
        prefix = layout.metrics_prefix(experiment_id)
        there = {info.key: info.size_bytes for info in self._target.storage.list(prefix)}
        longer = [info.key for info in self._source.storage.list(prefix) if info.size_bytes > there.get(info.key, -1)]
        for key in longer:
            self._target.storage.write(key, history.whole_lines(self._source.storage.read(key)))
        return bool(longer)

    def _copy_record(self, record: ExperimentRecord) -> bool:
        target, key = self._target, layout.record_key(record.id)
        if target.record_etag(record.id) is not None:
            present = target.storage.read(key)
            united = copy.copy(record)
            united.checkpoints = [copy.copy(one) for one in record.checkpoints]
            merge(united, ExperimentRecord.from_bytes(present, key=key))
            record = united
            if present == record.to_bytes():
                return False
        target.storage.write(key, record.to_bytes())
        return True

    def _copy_annotation(self, experiment_id: str) -> bool:
        """Copy what people say of an experiment; what is said of it in the target stays."""
        here = said.read(self._source, experiment_id)
        if here == said.Annotation():
            return False
        there = said.read(self._target, experiment_id)
        return said.change(self._target, experiment_id, lambda present: present.or_else(here)) != there

    def _copy_aliases(self, record: ExperimentRecord) -> bool:
        """Copy the aliases of an experiment's checkpoints; one that stands for something in the target goes on to do so."""
        ids = {checkpoint.id for checkpoint in record.checkpoints}
        missing = {
            name: said.Alias(alias.checkpoint, record.id)
            for name, alias in self._aliases.items()
            if alias.checkpoint in ids and name not in self._aliases_there
        }
        for name, alias in missing.items():
            said.set_alias(self._target, name, alias)
        return bool(missing)


def _find(storage: Storage, key: str) -> ObjectInfo | None:
    return next((info for info in storage.list(key) if info.key == key), None)


def _store_of(storage: Storage, key: str) -> Storage:
    """Return the one of two stores in front of each other in which an object lies."""
    if not isinstance(storage, OverlayStorage):
        return storage
    return storage.back if _find(storage.front, key) is None else storage.front


class _Verified(io.RawIOBase):
    """Reads through to a stream, and fails where it is not what its record announces: then nothing is written.

    Args:
        stream: An archive in the source.
        check: Checks what passes.
        on_progress: Called with how many more bytes have been read.
    """

    def __init__(self, stream: BinaryIO, check: PassingCheck, on_progress: Callable[[int], None]) -> None:
        super().__init__()
        self._stream = stream
        self._check = check
        self._on_progress = on_progress

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        view[: len(data)] = data
        if data:
            self._check.update(data)
        else:
            self._check.finish()
        self._on_progress(len(data))
        return len(data)


def _damaged(source: Repository, key: str, what: str, *facts: str) -> ReadError:
    return ReadError(
        f"{key} in {source.label} {what}, and is not copied",
        url=source.storage.url,
        key=key,
        facts=facts,
        hint=f"keepsake fsck -R {source.label}",
    )
