"""Copying between repositories loses nothing on either side, whatever the stores can do by themselves."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from keepsake.capture.files import FileEntry
from keepsake.exceptions import AccessDenied, StorageError, StorageUnavailable, WriteError
from keepsake.repository import annotations as said
from keepsake.repository import layout, verify
from keepsake.repository.annotations import Alias, Annotation
from keepsake.repository.copying import copy_experiments
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import MemoryStorage
from tests.archives import store_archive


class CopyingStorage(MemoryStorage):
    """A store that copies by itself, or says why it cannot."""

    def __init__(self, refusal: StorageError | None = None) -> None:
        super().__init__()
        self.refusal = refusal
        self.copied: list[str] = []

    def copy_from(self, other: MemoryStorage, source_key: str, key: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.write(key, other.read(source_key))
        self.copied.append(key)


def new(storage: MemoryStorage) -> Repository:
    repository = Repository(storage)
    repository.prepare()
    return repository


def recorded(repository: Repository, place: Path, checkpoints: int = 2) -> ExperimentRecord:
    """Store an experiment with checkpoints that have files."""
    record = ExperimentRecord(layout.new_id(), utc_now(), outcome="finished")
    for step in range(checkpoints):
        record.checkpoints.append(stored(repository, place, step))
    repository.save(record)
    return record


def stored(repository: Repository, place: Path, step: int) -> CheckpointRecord:
    id = layout.new_id()
    (place / "weights").write_bytes(b"%d" % step * 1000)
    entry = FileEntry("weights", place / "weights", "file")
    archive = store_archive(repository, layout.checkpoint_archive_key(id), [entry], id)
    return CheckpointRecord(id, utc_now() + timedelta(seconds=step), step, path="weights", metrics={}, archive=archive)


def test_everything_is_copied_and_nothing_twice(tmp_path: Path) -> None:
    source, target = new(MemoryStorage()), new(MemoryStorage())
    records = [recorded(source, tmp_path) for _ in range(20)]
    done: list[int] = []
    assert copy_experiments(source, target, records, on_progress=done.append) == 20
    assert sum(done) == sum(one.archive.size_bytes for record in records for one in record.checkpoints if one.archive)
    assert verify.check(target).findings == []
    assert {info.key for info in target.storage.list()} == {info.key for info in source.storage.list()}
    assert copy_experiments(source, target, records) == 0


def test_what_was_added_in_the_target_stays(tmp_path: Path) -> None:
    source, target = new(MemoryStorage()), new(MemoryStorage())
    record = recorded(source, tmp_path)
    copy_experiments(source, target, [record])
    # Another machine goes on with it there, and this one does here.
    theirs = target.load_stored(record.id)
    theirs.checkpoints.append(stored(target, tmp_path, 7))
    theirs.resumed = [utc_now()]
    theirs.outcome = "failed"
    target.save(theirs)
    record.checkpoints.append(stored(source, tmp_path, 5))
    source.save(record)
    assert copy_experiments(source, target, [copy.deepcopy(record)]) == 1
    merged = target.load_stored(record.id)
    assert [one.step for one in merged.checkpoints] == [0, 1, 5, 7]
    assert (merged.outcome, merged.resumed) == ("failed", theirs.resumed)
    assert verify.check(target).findings == []
    assert [one.step for one in source.load_stored(record.id).checkpoints] == [0, 1, 5]
    assert copy_experiments(source, target, [record]) == 0


def test_what_people_say_of_it_comes_along_and_what_they_say_there_stays(tmp_path: Path) -> None:
    source, target = new(MemoryStorage()), new(MemoryStorage())
    record, other = recorded(source, tmp_path), recorded(source, tmp_path)
    said.change(source, record.id, lambda _: Annotation("baseline", ("prod",), "as in the paper"))
    for name, of in (("champion", record), ("shipped", record), ("challenger", other)):
        said.set_alias(source, name, Alias(of.checkpoints[0].id, of.id))
    assert copy_experiments(source, target, [record]) == 1
    assert said.read(target, record.id) == said.read(source, record.id)
    assert set(said.aliases(target)) == {"champion", "shipped"}
    assert copy_experiments(source, target, [record]) == 0

    said.change(target, record.id, lambda _: Annotation("ours", ("mine",), ""))
    said.set_alias(target, "champion", Alias(record.checkpoints[1].id, record.id))
    assert copy_experiments(source, target, [record]) == 1
    assert said.read(target, record.id) == Annotation("ours", ("mine", "prod"), "as in the paper")
    assert said.aliases(target)["champion"].checkpoint == record.checkpoints[1].id
    assert copy_experiments(source, target, [record]) == 0


def test_one_store_copies_by_itself(tmp_path: Path) -> None:
    source, target = new(CopyingStorage()), new(CopyingStorage())
    record = recorded(source, tmp_path)
    copy_experiments(source, target, [record])
    assert sorted(target.storage.copied) == sorted(layout.checkpoint_archive_key(one.id) for one in record.checkpoints)  # type: ignore[attr-defined]
    assert verify.check(target).findings == []


@pytest.mark.parametrize(
    "refusal", [WriteError("501 not implemented", url="x"), AccessDenied("the other account's bucket", url="x")]
)
def test_what_a_store_cannot_copy_by_itself_goes_through_here(tmp_path: Path, refusal: StorageError) -> None:
    source, target = new(CopyingStorage()), new(CopyingStorage(refusal))
    copy_experiments(source, target, [recorded(source, tmp_path)])
    assert verify.check(target).findings == []


def test_a_store_that_is_down_is_not_asked_in_another_way(tmp_path: Path) -> None:
    source, target = new(CopyingStorage()), new(CopyingStorage(StorageUnavailable("down", url="x")))
    with pytest.raises(StorageUnavailable):
        copy_experiments(source, target, [recorded(source, tmp_path)])
    assert [info.key for info in target.storage.list()] == [layout.SPEC_KEY]


@pytest.mark.parametrize("kind", [MemoryStorage, CopyingStorage])
def test_what_is_shorter_than_its_record_says_is_not_copied(tmp_path: Path, kind: type[MemoryStorage]) -> None:
    source, target = new(kind()), new(kind())
    record = recorded(source, tmp_path, checkpoints=1)
    key = layout.checkpoint_archive_key(record.checkpoints[0].id)
    source.storage.write(key, source.storage.read(key)[:-1])
    with pytest.raises(StorageError, match="is not copied"):
        copy_experiments(source, target, [record])
    assert [info.key for info in target.storage.list()] == [layout.SPEC_KEY]


def test_the_first_failure_ends_it_and_what_was_begun_is_whole(tmp_path: Path) -> None:
    source, target = new(MemoryStorage()), new(MemoryStorage())
    records = [recorded(source, tmp_path) for _ in range(50)]
    damaged = records[3].checkpoints[0]
    assert damaged.archive is not None
    records[3].checkpoints[0] = replace(damaged, archive=replace(damaged.archive, index_sha256="0" * 64))
    with pytest.raises(StorageError, match="is damaged, and is not copied"):
        copy_experiments(source, target, records)
    assert len(target.experiment_ids()) < 50
    assert verify.check(target).findings == []
