"""A repository stays consistent, whatever store it lies on and wherever a store fails."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from keepsake.capture.files import FileEntry
from keepsake.exceptions import CorruptedRecord, DoesNotExist, ReadError
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import Body, DiskStorage, MemoryStorage
from tests.archives import store_archive


@pytest.fixture(params=["memory", "disk"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    return Repository(MemoryStorage() if request.param == "memory" else DiskStorage(tmp_path / "repository"))


def new_experiment(**fields: object) -> ExperimentRecord:
    return ExperimentRecord(id=layout.new_id(), created=utc_now(), **fields)  # type: ignore[arg-type]


def keys(repository: Repository) -> list[str]:
    return [info.key for info in repository.storage.list()]


def test_an_empty_place_is_a_repository_without_experiments(repository: Repository) -> None:
    assert repository.list_experiments() == []
    assert not repository.exists()
    assert keys(repository) == []
    repository.prepare()
    assert repository.exists()
    assert repository.storage.read("repository.json") == b'{"version":1}'


def test_what_was_saved_is_loaded_and_listed_in_the_order_of_creation(repository: Repository) -> None:
    records = [new_experiment(params={"n": n}, outcome="finished") for n in range(5)]
    for record in reversed(records):
        repository.save(record)
    assert repository.list_experiments() == records
    assert repository.load(records[2].id) == records[2]
    with pytest.raises(DoesNotExist):
        repository.load(layout.new_id())


def test_foreign_files_beside_the_records_are_no_experiments(repository: Repository) -> None:
    repository.save(new_experiment(outcome="finished"))
    for name in ("notes.txt", "x.json", f"{layout.new_id()}.json.bak", "deep/x.json"):
        repository.storage.write(f"{layout.RECORDS_PREFIX}/{name}", b"{}")
    assert len(repository.list_experiments()) == 1


def test_loading_a_damaged_record_names_its_key(repository: Repository) -> None:
    id = layout.new_id()
    repository.storage.write(layout.record_key(id), b'{"id":')
    with pytest.raises(CorruptedRecord, match=layout.record_key(id)):
        repository.load(id)


def test_the_heartbeat_decides_while_there_is_no_outcome(repository: Repository) -> None:
    record = new_experiment(heartbeat_interval_s=10)
    repository.save(record)
    assert repository.load(record.id).status.reason == "unknown"
    repository.beat(record.id)
    assert repository.load(record.id).status.word == "running"
    assert repository.list_experiments()[0].status.word == "running"
    content = json.loads(repository.storage.read(layout.heartbeat_key(record.id)))
    assert content["experiment_id"] == record.id
    assert content["last_heartbeat"].endswith("Z")

    record.outcome = "finished"
    repository.save(record)
    assert repository.load(record.id).status.word == "stopped"  # even if its last beat is still there
    repository.end_beat(record.id)
    assert repository.heartbeat(record.id) is None


def test_a_writer_with_a_wrong_clock_is_running_all_the_same(repository: Repository) -> None:
    record = new_experiment(heartbeat_interval_s=10)
    repository.save(record)
    beat = {"experiment_id": record.id, "last_heartbeat": "1999-01-01T00:00:00Z"}
    repository.storage.write(layout.heartbeat_key(record.id), json.dumps(beat).encode())
    assert repository.load(record.id).status.word == "running"


def test_an_archive_is_stored_and_read_back(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"w" * 100_000)
    id = layout.new_id()
    key = layout.checkpoint_archive_key(id)
    info = store_archive(repository, key, [FileEntry("out/model.pth", tmp_path / "model.pth", "file")], id)
    assert info.files == 1
    assert info.size_bytes == len(repository.storage.read(key))
    assert [file.path for file in repository.archives.files(key)] == ["out/model.pth"]
    assert repository.archives.open_file(key, "out/model.pth").read() == b"w" * 100_000

    target = tmp_path / "target"
    target.mkdir()
    assert repository.archives.extract(key, target, announced=info) == ["out/model.pth"]
    assert (target / "out" / "model.pth").read_bytes() == b"w" * 100_000


def test_an_archive_that_is_missing_is_a_read_error(repository: Repository, tmp_path: Path) -> None:
    key = layout.checkpoint_archive_key(layout.new_id())
    for read in (
        lambda: repository.archives.open_file(key, "x"),
        lambda: repository.archives.files(key),
        lambda: repository.archives.extract(key, tmp_path),
    ):
        with pytest.raises(ReadError, match="not in the repository"):
            read()


class _LateWriter(MemoryStorage):
    """A store to which somebody who had looked before a deletion writes a record right after it, as often as he is asked to."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes
        self.late: bytes = b""

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        super().delete(wanted)
        for key in wanted:
            if key.startswith(layout.RECORDS_PREFIX) and self.writes:
                self._write_late(key)

    def write(self, key: str, body: Body) -> None:
        super().write(key, body)
        if key.startswith(layout.RECORDS_PREFIX) and self.late and self.writes:
            self._write_late(key)

    def _write_late(self, key: str) -> None:
        self.writes -= 1
        super().write(key, self.late)


def test_an_experiment_that_is_uploaded_while_it_is_deleted_is_deleted_again() -> None:
    repository = Repository(storage := _LateWriter(writes=0))
    record = new_experiment(outcome="finished")
    repository.save(record)
    storage.late, storage.writes = record.to_bytes(), 1
    repository.delete_experiment(record)
    assert keys(repository) == []


def test_a_checkpoint_that_is_uploaded_while_it_is_deleted_is_deleted_again() -> None:
    repository = Repository(storage := _LateWriter(writes=0))
    kept, deleted = (CheckpointRecord(layout.new_id(), utc_now(), step, metrics={}) for step in (1, 2))
    record = new_experiment(outcome="finished", checkpoints=[kept, deleted])
    repository.save(record)
    storage.late, storage.writes = record.to_bytes(), 1
    repository.delete_checkpoint(record.id, deleted.id)
    assert repository.load(record.id).checkpoints == [kept]
