"""Wherever a store fails, once, the repository reads back whole: no record of nothing, no checkpoint lost that was accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake.capture.files import FileEntry
from keepsake.exceptions import KeepsakeError, ReadError, StorageError
from keepsake.recording.recorder import Recorder
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import DiskStorage
from tests.storage.faults import Fault, FaultyDisk

CALLS = range(80)
"""More calls than any of the jobs makes: the last positions fail nothing."""


def assert_consistent(storage: DiskStorage) -> list[ExperimentRecord]:
    """Every record parses, everything that it announces is there with its digest, and nothing waits in a journal."""
    repository = Repository(storage)
    records = repository.list_experiments()
    assert len(records) == len(list(storage.list(layout.RECORDS_PREFIX)))
    for record in records:
        announced = [(layout.experiment_archive_key(record.id), record.archive)]
        announced += [(layout.checkpoint_archive_key(checkpoint.id), checkpoint.archive) for checkpoint in record.checkpoints]
        for key, archive in announced:
            if archive is not None:
                assert repository.archives.describe(key) == archive
                repository.archives.check(key, announced=archive)
        for checkpoint in record.checkpoints:
            assert (checkpoint.path is None) == (checkpoint.archive is None)
    beating = {layout.id_of_json_key(info.key) for info in storage.list(layout.HEARTBEATS_PREFIX)}
    assert beating <= {record.id for record in records}
    journals = storage.root / ".journal"
    assert not journals.exists() or list(journals.iterdir()) == []
    return records


def record_training(repository: Repository, directory: Path, accepted: list[str], *, beats: bool = False) -> None:
    """Start an experiment, make three checkpoints and end it, as a training does."""
    (directory / "weights").write_bytes(b"w" * 1000)
    record = ExperimentRecord(id=layout.new_id(), created=utc_now(), path=".")
    recorder = Recorder(repository, record, directory, quiet=True)
    repository.prepare()
    recorder.start([FileEntry("weights", directory / "weights", "file")], beats=beats)
    for step in range(3):
        recorder.checkpoint("weights", step, {"loss": step}, ("loss", "minimize"))
        recorder.flush()
    accepted += [checkpoint.id for checkpoint in recorder.record.checkpoints]
    recorder.finish("finished")


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("beats", [False, True], ids=["silent", "beating"])
def test_a_training_on_a_store_that_fails_once(beats: bool, call: int, after: bool, tmp_path: Path) -> None:
    inner = DiskStorage(tmp_path / "repository")
    storage = FaultyDisk(inner.root, [Fault(call, after=after)])
    accepted: list[str] = []
    try:
        record_training(Repository(storage), tmp_path, accepted, beats=beats)
    except StorageError:
        # Only the start may raise, where nothing is lost yet, and then nothing has begun.
        assert accepted == []
        assert Repository(inner).list_experiments() == []
        return
    [record] = assert_consistent(inner)
    assert [checkpoint.id for checkpoint in record.checkpoints] == accepted
    assert [checkpoint.archive is not None for checkpoint in record.checkpoints] == [True] * 3
    assert record.outcome == "finished"
    if not storage.faults.happened:
        assert list(inner.list(layout.HEARTBEATS_PREFIX)) == []


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
@pytest.mark.parametrize("call", range(8))
@pytest.mark.parametrize("what", ["experiment", "checkpoint"])
def test_a_deletion_on_a_store_that_fails_once(what: str, call: int, after: bool, tmp_path: Path) -> None:
    inner = DiskStorage(tmp_path / "repository")
    record_training(Repository(inner), tmp_path, [])
    [record] = Repository(inner).list_experiments()
    storage = FaultyDisk(inner.root, [Fault(call, after=after)])
    repository = Repository(storage)
    delete: Callable[[], None] = {
        "experiment": lambda: repository.delete_experiment(record),
        "checkpoint": lambda: repository.delete_checkpoint(record.id, record.checkpoints[1].id),
    }[what]
    try:
        delete()
    except StorageError:
        assert storage.faults.happened
    else:
        assert not storage.faults.happened
        assert len(Repository(inner).list_experiments()) == (0 if what == "experiment" else 1)
    assert_consistent(inner)


def content_of(storage: DiskStorage) -> dict[str, bytes]:
    return {info.key: storage.read(info.key) for info in storage.list()}


@pytest.mark.parametrize("length", [0, 1, 5, 12])
@pytest.mark.parametrize("call", [0, 1], ids=["the format", "the record"])
def test_a_record_that_is_read_in_part_is_not_written_back(call: int, length: int, tmp_path: Path) -> None:
    inner = DiskStorage(tmp_path / "repository")
    record_training(Repository(inner), tmp_path, [])
    [record] = Repository(inner).list_experiments()
    before = content_of(inner)
    storage = FaultyDisk(inner.root, [Fault(call, "read", truncate_to=length)])
    with pytest.raises(KeepsakeError):
        Repository(storage).delete_checkpoint(record.id, record.checkpoints[1].id)
    assert storage.faults.happened
    assert content_of(inner) == before


@pytest.mark.parametrize("length", [0, 1, 10, 40])
@pytest.mark.parametrize("call", [0, 1], ids=["the index", "the members"])
def test_an_archive_that_is_read_in_part_is_noticed(call: int, length: int, tmp_path: Path) -> None:
    inner = DiskStorage(tmp_path / "repository")
    record_training(Repository(inner), tmp_path, [])
    [record] = Repository(inner).list_experiments()
    key, archive = layout.checkpoint_archive_key(record.checkpoints[0].id), record.checkpoints[0].archive
    storage = FaultyDisk(inner.root, [Fault(call, "read_range", truncate_to=length)])
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(ReadError):
        Repository(storage).archives.extract(key, target, announced=archive)
    assert Repository(storage).archives.extract(key, target, announced=archive) == ["weights"]


def test_every_call_of_a_training_has_had_its_fault(tmp_path: Path) -> None:
    """The positions above reach beyond the last call; a training that comes to make more of them needs more."""
    storage = FaultyDisk(tmp_path / "repository")
    record_training(Repository(storage), tmp_path, [], beats=True)
    assert storage.faults.calls["any"] < len(CALLS)
