"""A repository: the meaning of the keys in a store. Bytes are the store's business, what a record says `records.py`'s."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from keepsake import messages
from keepsake.exceptions import (
    CorruptedRecord,
    CorruptedRepositorySpec,
    DoesNotExist,
    IncompatibleRepositoryVersion,
    ObjectNotFound,
    WriteError,
)
from keepsake.repository import layout
from keepsake.repository.json_values import format_time, utc_now
from keepsake.repository.status import Heartbeat
from keepsake.repository.stored_archives import StoredArchives
from keepsake.storage import DiskStorage, MemoryStorage, OverlayStorage, from_url
from keepsake.storage.base import Bucket
from keepsake.storage.disk import JOURNAL_DIRECTORY, TEMPORARY_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from keepsake.repository.history import Point
    from keepsake.repository.journal import JournalDirectory
    from keepsake.repository.records import ExperimentRecord
    from keepsake.storage import ObjectInfo, Storage
    from keepsake.storage.locks import ProcessLock

FORMAT_VERSION = 1
"""The format that this keepsake reads and writes: the original's, with additions that the original ignores."""

FETCHERS = 32
"""How many records are fetched from a store at once. More make nothing faster: the time of this process is the limit then."""

DELETIONS = 3
"""How often to delete what a machine that uploads it writes again, because it had looked before the deletion; with its next look it sees
that it is gone. Not every store can make a write depend on what it replaces."""

LOCK_PATIENCE_S = 30.0
"""How long to wait for somebody who is rewriting a record, which takes milliseconds unless the disk is in trouble."""


S = TypeVar("S")
T = TypeVar("T")

BATCH_KEYS = 1000
"""About how many objects are deleted together: as many as S3 takes in one request."""


class Listing(NamedTuple):
    """What one listing of a repository says of its experiments.

    Args:
        at_s: When it began, in seconds since the epoch, by this machine's clock.
        waiting: Keys of records that still lie in the outbox in front of the store.
        records: The records.
        heartbeats: The last signs of life, by experiment.
        others: What else lies beside the records: annotations and aliases.
    """

    at_s: float
    waiting: frozenset[str]
    records: list[ObjectInfo]
    heartbeats: dict[str, Heartbeat]
    others: list[ObjectInfo]


class Repository:
    """Experiments in a store.

    The constructor does no input or output; the format is checked before the first access.

    Args:
        storage: Where the bytes lie.
        label: How the user wrote its address; the store's URL if that is not known.

    Attributes:
        archives: What the files of its experiments and checkpoints are in, by their keys.

    Example:
        >>> from keepsake.storage import MemoryStorage
        >>> Repository(MemoryStorage()).list_experiments()
        []
    """

    def __init__(self, storage: Storage, *, label: str = "") -> None:
        self.storage = storage
        self.label = label or storage.url
        self.archives = StoredArchives(storage, self.label, is_far=not self._authority_is_near)
        self._checked = False
        self._recovered = False

    @classmethod
    def at(cls, url: str, *, label: str = "") -> Repository:
        """Return the repository at a URL.

        Raises:
            RepositoryConfigurationError: The URL is malformed or of an unknown scheme.
        """
        return cls(from_url(url), label=label)

    @property
    def local(self) -> Repository | None:
        """The part of it that this machine writes journals for: itself on disk, else the outbox in front of a store, if there is one."""
        if isinstance(self.storage, DiskStorage):
            return self
        if isinstance(self.storage, OverlayStorage) and isinstance(self.storage.front, DiskStorage):
            return Repository(self.storage.front, label=self.label)
        return None

    @property
    def local_root(self) -> Path | None:
        """The directory of that part."""
        local = self.local
        return local.storage.root if local is not None and isinstance(local.storage, DiskStorage) else None

    @property
    def _authority(self) -> Storage:
        """The store that says of which format the repository is."""
        return self.storage.back if isinstance(self.storage, OverlayStorage) else self.storage

    # --- format -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Make sure that this keepsake understands the repository, and bring in what processes that died have left.

        Raises:
            IncompatibleRepositoryVersion: It was written by a newer keepsake.
            CorruptedRepositorySpec: Its ``repository.json`` cannot be understood.
        """
        self.check_format()
        if self._checked:
            # After it is known that the repository is of a format that may be written, and before anything is read.
            self._recover()

    def check_format(self) -> None:
        """Make sure that this keepsake understands the repository, and change nothing; one that is still empty is understood.

        Raises:
            IncompatibleRepositoryVersion: It was written by a newer keepsake.
            CorruptedRepositorySpec: Its ``repository.json`` cannot be understood.
        """
        if self._checked:
            return
        try:
            content = self._authority.read(layout.SPEC_KEY)
        except ObjectNotFound:
            return
        version = self._parse_spec(content)
        if version > FORMAT_VERSION:
            from keepsake import __version__

            raise IncompatibleRepositoryVersion(
                f"repository {self.label} is format {version}, this keepsake {__version__} reads format {FORMAT_VERSION}",
                hint="pip install -U keepsake",
            )
        self._checked = True

    def _recover(self) -> None:
        local = self.local
        if local is None or self._recovered:
            return
        self._recovered = True
        root = self.local_root
        if root is not None and any(map(_holds_something, (root / JOURNAL_DIRECTORY, root / TEMPORARY_DIRECTORY))):
            from keepsake.repository import recovery

            recovery.recover(local)

    def _parse_spec(self, content: bytes) -> int:
        try:
            version = json.loads(content)["version"]
        except (ValueError, KeyError, TypeError):
            version = None
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise CorruptedRepositorySpec(
                f"{layout.SPEC_KEY} in {self.label} is damaged",
                facts=[f'found: {content[:60].decode(errors="replace")!r}, expected something like {{"version":1}}'],
                hint=f"""put {{"version":{FORMAT_VERSION}}} there if its experiments were written by keepsake"""
                f" {FORMAT_VERSION}.x or older",
            )
        return version

    def lacks_bucket(self) -> bool:
        """Tell whether the bucket that it is to lie in has to be made first, as `create_bucket` does."""
        store = self._authority
        return isinstance(store, Bucket) and not store.exists()

    def create_bucket(self) -> None:
        """Make the bucket; only people who were asked do that, for a mistake in its name must not make another one."""
        store = self._authority
        if isinstance(store, Bucket):
            store.create()

    def exists(self) -> bool:
        """Tell whether a repository has been made here."""
        return any(True for _ in self._authority.list(layout.SPEC_KEY))

    def prepare(self) -> None:
        """Make the repository ready for writing: check its format, and say which one it is where it is new."""
        self.check()
        if not self._checked:
            self._authority.write(layout.SPEC_KEY, json.dumps({"version": FORMAT_VERSION}, separators=(",", ":")).encode())
            self._checked = True

    # --- experiments ------------------------------------------------------------------------------------------------

    def list_experiments(self) -> list[ExperimentRecord]:
        """Return all experiments, oldest first.

        A record that is deleted meanwhile is left out. One that is damaged is left out with a warning that names it.
        """
        self.check()
        records = list(self._readable_records())
        if any(record.outcome is None for record in records):
            heartbeats = self._heartbeats(layout.HEARTBEATS_PREFIX)
            for record in records:
                record.heartbeat = heartbeats.get(record.id)
        return sorted(records, key=lambda record: (record.created, record.id))

    def _readable_records(self) -> Iterator[ExperimentRecord]:
        from keepsake.repository.journal import journals, replay
        from keepsake.repository.records import ExperimentRecord

        # The entries first: they are dropped when the record holds them.
        places = journals(self.local_root) if self.local_root is not None else []
        entries = {place.experiment_id: place.entries() for place in places}
        waiting = set(self._waiting(layout.RECORDS_PREFIX))
        for key, content in self._record_contents():
            try:
                record = ExperimentRecord.from_bytes(content, key=key)
            except CorruptedRecord as err:
                messages.warning(f"{err.message}; it is left out")
                continue
            replay(record, entries.get(record.id, ()))
            record.is_uploaded = key not in waiting
            yield record

    def _record_contents(self) -> Iterator[tuple[str, bytes]]:
        infos = [info for info in self.storage.list(layout.RECORDS_PREFIX) if layout.id_of_json_key(info.key) is not None]
        return self.contents(infos, [info.key for info in infos])

    def contents(self, infos: Sequence[ObjectInfo], present: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield small objects by key, in the order given; those that are deleted meanwhile are left out.

        Args:
            infos: What is wanted, as it was listed.
            present: All keys of this kind that were listed; what the cache holds of others is forgotten.
        """
        if self._authority_is_near:
            yield from self.small_objects(infos)
            return
        from keepsake.repository.cache import RecordCache

        cache = RecordCache(self.storage.url)
        known = cache.known(infos)
        fetched = dict(self._fetched([info for info in infos if info.key not in known]))
        if fetched or len(known) < len(infos):
            cache.keep(fetched, present)
        for info in infos:
            if info.key in known:
                yield info.key, known[info.key]
            elif info.key in fetched:
                yield info.key, fetched[info.key][1]

    def listing(self) -> Listing:
        """Return what is known of all experiments by one listing, without reading any of them."""
        now = utc_now()
        found = Listing(now.timestamp(), frozenset(self._waiting(layout.RECORDS_PREFIX)), [], {}, [])
        for info in self.storage.list(layout.METADATA_PREFIX):
            if info.key.startswith(f"{layout.RECORDS_PREFIX}/"):
                if layout.id_of_json_key(info.key) is not None:
                    found.records.append(info)
            elif info.key.startswith(f"{layout.HEARTBEATS_PREFIX}/"):
                experiment_id = layout.id_of_json_key(info.key)
                if experiment_id is not None:
                    found.heartbeats[experiment_id] = _heartbeat(info, now)
            else:
                found.others.append(info)
        return found

    def small_objects(self, infos: Sequence[ObjectInfo]) -> Iterator[tuple[str, bytes]]:
        """Yield objects by key, in the order given; those that are deleted meanwhile are left out."""
        if not self._authority_is_near:
            yield from ((key, content) for key, (_, content) in self._fetched(infos))
            return
        for info in infos:
            with suppress(ObjectNotFound):
                yield info.key, self.storage.read(info.key)

    def live_ids(self) -> list[str]:
        """Return the experiments of which a journal on this machine may hold more than their records do."""
        root = self.local_root
        if root is None or not _holds_something(root / JOURNAL_DIRECTORY):
            return []
        from keepsake.repository.journal import journals

        return [place.experiment_id for place in journals(root)]

    def _waiting(self, prefix: str) -> Iterator[str]:
        """Yield what still lies in the outbox in front of the store, if there is one."""
        if isinstance(self.storage, OverlayStorage):
            yield from (info.key for info in self.storage.front.list(prefix))

    @property
    def _authority_is_near(self) -> bool:
        return isinstance(self._authority, DiskStorage | MemoryStorage)

    def _fetched(self, infos: Sequence[ObjectInfo]) -> Iterator[tuple[str, tuple[str, bytes]]]:
        """Yield etags and contents by key, fetched many at a time: most of the time goes by on the way."""

        def fetch(info: ObjectInfo) -> tuple[str, tuple[str, bytes]] | None:
            try:
                return info.key, (info.etag, self.storage.read(info.key))
            except ObjectNotFound:
                return None

        yield from (found for found in self._side_by_side(fetch, infos) if found is not None)

    def _side_by_side(self, ask: Callable[[S], T], things: Sequence[S]) -> Iterator[T]:
        """Yield the answers to many questions, in their order: most of the time goes by on the way to a store."""
        if len(things) <= 1 or self._authority_is_near:
            yield from map(ask, things)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(FETCHERS, len(things)), "keepsake-fetch") as pool:
            yield from pool.map(ask, things)

    def load_all(self, experiment_ids: Sequence[str]) -> list[ExperimentRecord]:
        """Return experiments by their whole IDs, in this order; those that are deleted meanwhile are left out."""

        def load(experiment_id: str) -> ExperimentRecord | None:
            try:
                return self.load(experiment_id)
            except DoesNotExist:
                return None

        return [record for record in self._side_by_side(load, experiment_ids) if record is not None]

    def experiment_ids(self) -> list[str]:
        """Return the whole IDs of all experiments, in no order that means something."""
        ids = (layout.id_of_json_key(info.key) for info in self.storage.list(layout.RECORDS_PREFIX))
        return [experiment_id for experiment_id in ids if experiment_id is not None]

    def _read_record(self, experiment_id: str) -> ExperimentRecord:
        """Return a record with what its process has accepted since it was written."""
        # The entries first: they are dropped when the record holds them.
        journal = self._journal(experiment_id)
        entries = journal.entries() if journal is not None else []
        record = self._stored_record(experiment_id)
        if entries:
            from keepsake.repository.journal import replay

            replay(record, entries)
        return record

    def _journal(self, experiment_id: str) -> JournalDirectory | None:
        """Return where this machine keeps what it has accepted of an experiment and not yet stored."""
        if self.local_root is None:
            return None
        from keepsake.repository.journal import JournalDirectory

        return JournalDirectory(self.local_root, experiment_id)

    def _stored_record(self, experiment_id: str) -> ExperimentRecord:
        from keepsake.repository.records import ExperimentRecord  # which a table of summaries does not need

        key = layout.record_key(experiment_id)
        return ExperimentRecord.from_bytes(self.storage.read(key), key=key)

    def load(self, experiment_id: str) -> ExperimentRecord:
        """Return one experiment by its whole ID.

        Raises:
            DoesNotExist: No experiment has that ID.
            CorruptedRecord: Its record cannot be understood.
        """
        self.check()
        with self._missing_experiment(experiment_id):
            record = self._read_record(experiment_id)
        if record.outcome is None:
            record.heartbeat = self.heartbeat(experiment_id)
        record.is_uploaded = not any(self._waiting(layout.record_key(experiment_id)))
        return record

    def load_stored(self, experiment_id: str) -> ExperimentRecord:
        """Return an experiment's record as it is written, for whoever is about to rewrite it.

        Raises:
            DoesNotExist: No experiment has that ID.
            CorruptedRecord: Its record cannot be understood.
        """
        with self._missing_experiment(experiment_id):
            return self._stored_record(experiment_id)

    @contextmanager
    def _missing_experiment(self, experiment_id: str) -> Iterator[None]:
        try:
            yield
        except ObjectNotFound as err:
            raise DoesNotExist(f'no experiment "{layout.short_id(experiment_id)}" in {self.label}', hint="keepsake ls") from err

    def save(self, record: ExperimentRecord, fragments: MutableMapping[str, str] | None = None) -> None:
        """Write an experiment's record, whole or not at all.

        Args:
            record: The record.
            fragments: See `ExperimentRecord.to_bytes`.
        """
        self.storage.write(layout.record_key(record.id), record.to_bytes(fragments))

    @contextmanager
    def rewriting(self, experiment_id: str) -> Iterator[None]:
        """Keep others from rewriting a record between our reading and our writing it, in a repository on disk.

        Raises:
            WriteError: Somebody else did not finish with it.
        """
        lock = self._record_lock(experiment_id)
        if lock is None:
            yield
            return
        if not lock.acquire(wait_s=LOCK_PATIENCE_S):
            raise WriteError(
                f"another process has been rewriting the record of experiment {layout.short_id(experiment_id)} for"
                f" {LOCK_PATIENCE_S:.0f} seconds",
                url=self.storage.url,
            )
        try:
            yield
        finally:
            lock.release()

    def _record_lock(self, experiment_id: str) -> ProcessLock | None:
        journal = self._journal(experiment_id)
        if journal is None:
            return None
        try:
            journal.path.parent.mkdir(exist_ok=True)
            return journal.record_lock
        except OSError:
            # Not writable, or not there: the writing itself says it better.
            return None

    def record_etag(self, experiment_id: str) -> str | None:
        """Return what changes whenever the record is rewritten, by whomever; None if there is no record."""
        return next((info.etag for info in self.storage.list(layout.record_key(experiment_id))), None)

    def is_deleted(self, experiment_id: str) -> bool:
        """Tell whether an experiment has no record in a repository that is there.

        A file system may come back while this looks, for example one that was mounted anew; what it holds is not deleted.
        """
        return self.record_etag(experiment_id) is None and self.exists() and self.record_etag(experiment_id) is None

    def update(self, experiment_id: str, change: Callable[[ExperimentRecord], None]) -> ExperimentRecord:
        """Load an experiment, change it and save it.

        Raises:
            DoesNotExist: It was deleted.
        """
        self.check()
        with self.rewriting(experiment_id):
            record = self.load_stored(experiment_id)
            change(record)
            self.save(record)
        return record

    def delete_experiment(self, record: ExperimentRecord) -> None:
        """Delete an experiment with everything that belongs to it; see `delete_experiments`."""
        self.delete_experiments([record])

    def delete_experiments(self, records: Sequence[ExperimentRecord]) -> None:
        """Delete experiments with everything that belongs to them, many in one call of the store.

        Records go first: a crash in between leaves data without a record, never a record without data; no more than one batch of it.
        """
        for batch in _batches(records):
            remaining = batch
            for _ in range(DELETIONS):
                self._delete_batch(remaining)
                etags = self._side_by_side(self.record_etag, [record.id for record in remaining])
                remaining = [record for record, etag in zip(remaining, etags, strict=True) if etag is not None]
                if not remaining:
                    break

    def _delete_batch(self, batch: Sequence[ExperimentRecord]) -> None:
        self.storage.delete([layout.record_key(record.id) for record in batch])
        for record in batch:
            journal = self._journal(record.id)
            if journal is not None:
                journal.remove()
        from keepsake.repository.annotations import aliases_of

        ids = [id for record in batch for id in (record.id, *(checkpoint.id for checkpoint in record.checkpoints))]
        data = [key for keys in self._side_by_side(self._data_keys, batch) for key in keys]
        self.storage.delete([*aliases_of(self, ids), *data])

    def _data_keys(self, record: ExperimentRecord) -> list[str]:
        """Return where everything lies that belongs to an experiment, but for its record."""
        return [
            layout.heartbeat_key(record.id),
            layout.annotations_key(record.id),
            layout.experiment_archive_key(record.id),
            *(layout.checkpoint_archive_key(checkpoint.id) for checkpoint in record.checkpoints),
            *self.history_keys(record.id),
        ]

    def delete_checkpoint(self, experiment_id: str, checkpoint_id: str) -> None:
        """Take a checkpoint out of its experiment's record and delete its files; see `delete_checkpoints`."""
        self.delete_checkpoints(experiment_id, [checkpoint_id])

    def delete_checkpoints(self, experiment_id: str, checkpoint_ids: Sequence[str]) -> None:
        """Take checkpoints out of their experiment's record, which is written once, and then delete their files.

        Raises:
            DoesNotExist: The experiment was deleted.
            WriteError: One of them has just been made, and is not in the record yet; nothing was deleted then.
        """
        from keepsake.repository.annotations import aliases_of

        doomed = set(checkpoint_ids)

        def remove(record: ExperimentRecord) -> None:
            journal = self._journal(experiment_id)
            if journal is not None:
                fresh = next((id for id in checkpoint_ids if journal.mentions(id)), None)
                if fresh is not None:
                    raise WriteError(
                        f"checkpoint {layout.short_id(fresh)} is just being stored; try again in a few seconds",
                        url=self.storage.url,
                    )
            record.checkpoints = [checkpoint for checkpoint in record.checkpoints if checkpoint.id not in doomed]

        for _ in range(DELETIONS):
            record = self.update(experiment_id, remove)
            archives = [layout.checkpoint_archive_key(id) for id in checkpoint_ids]
            self.storage.delete([*aliases_of(self, checkpoint_ids), *archives])
            if self.local_root is None:
                record = self.load_stored(experiment_id)
            if all(checkpoint.id not in doomed for checkpoint in record.checkpoints):
                return

    def is_recorded_here(self, experiment_id: str) -> bool:
        """Tell whether a process of this machine records an experiment now."""
        local = self.local
        place = local._journal(experiment_id) if local is not None else None
        if local is None or place is None:
            return False
        from keepsake.repository import recovery

        return place.path.exists() and not recovery.is_left_behind(local, place)

    # --- history ----------------------------------------------------------------------------------------------------

    def history_keys(self, experiment_id: str) -> list[str]:
        """Return where an experiment's history lies, in the order in which it was logged."""
        from keepsake.repository.history import order_of

        return sorted((info.key for info in self.storage.list(layout.metrics_prefix(experiment_id))), key=order_of)

    def history(self, experiment_id: str) -> list[Point]:
        """Return the points that an experiment has logged between its checkpoints, in their order."""
        from keepsake.repository.history import points_of

        return [point for segment in self._segments(experiment_id) for point in points_of(segment)]

    def courses(self, record: ExperimentRecord) -> dict[str, list[Any]]:
        """Return the values of each metric of an experiment, oldest first: those that were logged, and those of the checkpoints."""
        from keepsake.repository.history import courses

        return courses(self._segments(record.id), record.checkpoints)

    def _segments(self, experiment_id: str) -> Iterator[bytes]:
        from keepsake.repository.history import order_of

        infos = sorted(self.storage.list(layout.metrics_prefix(experiment_id)), key=lambda info: order_of(info.key))
        return (segment for _, (_, segment) in self._fetched(infos))

    # --- heartbeats -------------------------------------------------------------------------------------------------

    def beat(self, experiment_id: str) -> None:
        """Say that an experiment's process is alive."""
        heartbeat = {"experiment_id": experiment_id, "last_heartbeat": format_time(utc_now())}
        self.storage.write(layout.heartbeat_key(experiment_id), json.dumps(heartbeat).encode())

    def end_beat(self, experiment_id: str) -> None:
        """Remove an experiment's heartbeat."""
        self.storage.delete([layout.heartbeat_key(experiment_id)])

    def heartbeat(self, experiment_id: str) -> Heartbeat | None:
        """Return the last sign of life of an experiment, or None if there is none."""
        return self._heartbeats(layout.heartbeat_key(experiment_id)).get(experiment_id)

    def _heartbeats(self, prefix: str) -> dict[str, Heartbeat]:
        now = utc_now()
        found: dict[str, Heartbeat] = {}
        for info in self.storage.list(prefix):
            experiment_id = layout.id_of_json_key(info.key)
            if experiment_id is not None:
                found[experiment_id] = _heartbeat(info, now)
        return found


def _heartbeat(info: ObjectInfo, now: datetime) -> Heartbeat:
    # The listing's ages are by the store's clock. What the heartbeats themselves say is by their writers' clocks, which may be wrong,
    # so they are not even read.
    return Heartbeat(age_s=info.age_s, at=now - timedelta(seconds=info.age_s))


def _holds_something(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(True for _ in entries)
    except OSError:
        return False


def _batches(records: Sequence[ExperimentRecord]) -> Iterator[list[ExperimentRecord]]:
    """Yield experiments together whose objects are about as many as one call of a store deletes."""
    batch: list[ExperimentRecord] = []
    objects = 0
    for record in records:
        batch.append(record)
        objects += len(record.checkpoints) + OBJECTS_BESIDE
        if objects >= BATCH_KEYS:
            yield batch
            batch, objects = [], 0
    if batch:
        yield batch


OBJECTS_BESIDE = 4
"""What an experiment has beside its checkpoints: heartbeat, annotations, code, and at least one segment of its history."""
