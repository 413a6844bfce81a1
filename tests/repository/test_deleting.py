"""Many experiments and checkpoints go in a few calls of the store, records first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from keepsake.exceptions import WriteError
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import BATCH_KEYS, Repository
from keepsake.storage import MemoryStorage


class Counting(MemoryStorage):
    """Keeps what each call deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[list[str]] = []

    def delete(self, keys: Iterable[str]) -> None:
        self.deleted.append(list(keys))
        super().delete(self.deleted[-1])


def filled(experiments: int, checkpoints: int) -> tuple[Repository, Counting, list[ExperimentRecord]]:
    storage = Counting()
    repository = Repository(storage)
    repository.prepare()
    records = []
    for number in range(experiments):
        created = utc_now() + timedelta(seconds=number)
        record = ExperimentRecord(id=layout.new_id(), created=created, path=".", outcome="finished")
        record.checkpoints = [
            CheckpointRecord(id=layout.new_id(), created=created, step=step, path="w") for step in range(checkpoints)
        ]
        repository.save(record)
        for checkpoint in record.checkpoints:
            storage.write(layout.checkpoint_archive_key(checkpoint.id), b"weights")
        storage.write(layout.experiment_archive_key(record.id), b"code")
        storage.write(layout.annotations_key(record.id), b"{}")
        storage.write(layout.heartbeat_key(record.id), b"{}")
        storage.write(f"{layout.metrics_prefix(record.id)}/0.jsonl", b"")
        records.append(record)
    return repository, storage, records


def test_nothing_of_an_experiment_is_left() -> None:
    repository, storage, records = filled(3, 2)
    repository.delete_experiments(records[:2])
    assert [record.id for record in repository.list_experiments()] == [records[2].id]
    left = [info.key for info in storage.list()]
    assert not [key for key in left if any(record.id in key for record in records[:2])]
    assert len(left) == 1 + 1 + 1 + 2 + 1 + 1 + 1


@pytest.mark.parametrize(("experiments", "checkpoints", "calls"), [(1, 1000, 2), (20, 50, 4), (250, 0, 2), (0, 0, 0)])
def test_a_thousand_checkpoints_in_a_few_calls(experiments: int, checkpoints: int, calls: int) -> None:
    repository, storage, records = filled(experiments, checkpoints)
    repository.delete_experiments(records)
    assert len(storage.deleted) == calls
    assert max(map(len, storage.deleted), default=0) <= BATCH_KEYS + 4 + checkpoints
    assert [info.key for info in storage.list()] == [layout.SPEC_KEY]


def test_records_go_before_their_data() -> None:
    repository, storage, records = filled(40, 50)
    repository.delete_experiments(records)
    gone: set[str] = set()
    for keys in storage.deleted:
        gone |= {layout.id_of_json_key(key) or "" for key in keys if key.startswith(f"{layout.RECORDS_PREFIX}/")}
        for record in records:
            if any(checkpoint.id in key for checkpoint in record.checkpoints for key in keys):
                assert record.id in gone


def test_checkpoints_of_one_experiment_in_one_call() -> None:
    repository, storage, [record] = filled(1, 1000)
    kept = record.checkpoints[-1]
    repository.delete_checkpoints(record.id, [checkpoint.id for checkpoint in record.checkpoints[:-1]])
    assert [len(keys) for keys in storage.deleted] == [999]
    assert [checkpoint.id for checkpoint in repository.load(record.id).checkpoints] == [kept.id]
    assert [info.key for info in storage.list("checkpoints")] == [layout.checkpoint_archive_key(kept.id)]


def test_a_failing_store_leaves_the_record_or_nothing_of_it() -> None:
    repository, storage, records = filled(2, 3)
    calls = 0
    delete = storage.delete

    def failing(keys: Iterable[str]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise WriteError("no more")
        delete(keys)

    storage.delete = failing  # type: ignore[method-assign]
    with pytest.raises(WriteError):
        repository.delete_experiments(records)
    assert repository.list_experiments() == []
    assert len(list(storage.list("checkpoints"))) == 6
