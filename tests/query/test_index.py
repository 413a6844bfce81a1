"""The index tells what the records would, after whatever has happened to them or to its file, and reads only what has changed."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.query.index import Index
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.repository.summary import Summary, parse
from keepsake.storage import DiskStorage, MemoryStorage


class CountingStorage(DiskStorage):
    """Says which objects were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read_keys: list[str] = []

    def read(self, key: str) -> bytes:
        self.read_keys.append(key)
        return super().read(key)


def a_record(**fields: Any) -> ExperimentRecord:
    return ExperimentRecord(layout.new_id(), utc_now(), **fields)


def a_checkpoint(step: int, **metrics: Any) -> CheckpointRecord:
    return CheckpointRecord(layout.new_id(), utc_now(), step, metrics=metrics, primary_metric=PrimaryMetric("loss", "minimize"))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(CountingStorage(tmp_path / "repository"))
    repository.prepare()
    for number in range(5):
        record = a_record(params={"number": number}, outcome="finished", python_packages={"torch": f"2.{number}"})
        record.checkpoints = [a_checkpoint(step, loss=1 / (number + step + 1)) for step in range(3)]
        repository.save(record)
    return repository


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "index.sqlite"


def listed(index: Index) -> list[tuple[str, dict[str, Any], int, str | None, dict[str, str]]]:
    return [
        (one.id, one.params, one.num_checkpoints, best.id if (best := one.best()) else None, dict(one.python_packages))
        for one in index.summaries()
    ]


def truth(repository: Repository) -> list[tuple[str, dict[str, Any], int, str | None, dict[str, str]]]:
    return [
        (one.id, one.params, len(one.checkpoints), best.id if (best := one.best()) else None, one.python_packages)
        for one in repository.list_experiments()
    ]


def records_read(repository: Repository) -> list[str]:
    storage = repository.storage
    assert isinstance(storage, CountingStorage)
    read, storage.read_keys = storage.read_keys, []
    return [key for key in read if key.startswith(layout.RECORDS_PREFIX)]


def test_only_what_has_changed_is_read(repository: Repository, path: Path) -> None:
    assert listed(Index(repository, path)) == truth(repository)
    records_read(repository)
    assert len(listed(Index(repository, path))) == 5
    assert records_read(repository) == []

    changed, gone, *_ = repository.list_experiments()
    changed.checkpoints.append(a_checkpoint(9, loss=0.001))
    repository.save(changed)
    repository.delete_experiment(gone)
    new = a_record(params={"number": 9})
    repository.save(new)
    records_read(repository)
    found = listed(Index(repository, path))
    assert sorted(records_read(repository)) == sorted([layout.record_key(changed.id), layout.record_key(new.id)])
    assert found == truth(repository)


def test_one_object_sees_what_it_saw_until_it_is_told_to_look_anew(repository: Repository, path: Path) -> None:
    index = Index(repository, path)
    assert index.count() == 5
    repository.save(a_record())
    assert index.count() == 5
    index.forget()
    assert index.count() == 6


def test_the_newest_are_the_last(repository: Repository, path: Path) -> None:
    index = Index(repository, path)
    everything = [summary.id for summary in index.summaries()]
    assert [summary.id for summary in index.summaries(2)] == everything[-2:]
    assert [summary.id for summary in index.summaries(99)] == everything
    assert index.summaries(0) == []


def test_ids_are_found_by_their_beginning(repository: Repository, path: Path) -> None:
    index = Index(repository, path)
    for record in repository.list_experiments():
        assert index.owners(record.id[:12]) == [record.id]
        for checkpoint in record.checkpoints:
            assert index.owners(checkpoint.id[:12]) == [record.id]
            assert index.owners(checkpoint.id) == [record.id]
    assert index.owners("") == sorted(record.id for record in repository.list_experiments())
    taken = {id[:3] for record in repository.list_experiments() for id in (record.id, *(c.id for c in record.checkpoints))}
    free = next(f"{number:03x}" for number in range(4096) if f"{number:03x}" not in taken)
    assert index.owners(free) == []


@given(st.lists(st.text("0123456789abcdef", min_size=9, max_size=12), min_size=2, max_size=30, unique=True), st.integers(1, 29))
@settings(max_examples=50)
def test_short_ids_are_as_long_as_they_must_be(beginnings: list[str], at_first: int) -> None:
    repository = Repository(MemoryStorage())
    repository.prepare()
    ids = [beginning.ljust(64, "0") for beginning in beginnings]
    index = Index(repository, None)

    def add(id: str) -> None:
        repository.save(ExperimentRecord(id, utc_now()))

    for id in ids[:at_first]:
        add(id)
    index.short_length()
    for id in ids[at_first:]:
        add(id)
    index.forget()
    length = index.short_length()
    assert len({id[:length] for id in ids}) == len(set(ids))
    assert length == 7 or len({id[: length - 1] for id in ids}) < len(set(ids))


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(4000), bytes(20_000)])
def test_a_damaged_file_is_made_anew_and_nothing_is_said(
    repository: Repository, path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = listed(Index(repository, path))
    path.write_bytes(content)
    assert listed(Index(repository, path)) == expected
    records_read(repository)
    assert listed(Index(repository, path)) == expected
    assert records_read(repository) == []
    assert capsys.readouterr() == ("", "")


def test_pages_of_rubbish_are_noticed_when_they_are_read(repository: Repository, path: Path) -> None:
    for number in range(200):
        repository.save(a_record(params={"text": f"{number} " * 100}))
    expected = listed(Index(repository, path))
    whole = path.read_bytes()
    for page in range(1, len(whole) // 4096):
        damaged = bytearray(whole)
        damaged[page * 4096 : (page + 1) * 4096] = random.Random(page).randbytes(4096)
        path.write_bytes(damaged)
        assert listed(Index(repository, path)) == expected


def test_a_file_of_another_version_is_made_anew(repository: Repository, path: Path) -> None:
    expected = listed(Index(repository, path))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 999")
        database.execute("ALTER TABLE summaries RENAME TO something_else")
    database.close()
    assert listed(Index(repository, path)) == expected


def test_where_there_is_no_place_for_it_it_does_without(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert listed(Index(repository, tmp_path / "file" / "index.sqlite")) == truth(repository)


def test_while_another_process_writes_for_long_it_does_without(
    repository: Repository, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepsake.query.index_tables.PATIENCE_S", 0.0)
    Index(repository, path).summaries()
    repository.save(a_record())
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert listed(Index(repository, path)) == truth(repository)
        database.execute("ROLLBACK")
    database.close()
    assert path.exists()


def _list_again_and_again(root: Path, path: Path) -> None:
    for _ in range(15):
        repository = Repository(DiskStorage(root))
        record = a_record(params={"number": 1})
        repository.save(record)
        found = Index(repository, path).summaries()
        assert record.id in {summary.id for summary in found}
        repository.delete_experiment(record)


def test_many_processes_use_it_at_once(repository: Repository, path: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_list_again_and_again, args=(tmp_path / "repository", path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert listed(Index(repository, path)) == truth(repository)


def test_a_damaged_record_is_left_out_and_named(repository: Repository, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = repository.list_experiments()[2]
    repository.storage.write(layout.record_key(damaged.id), b'{"id": "no')
    for _ in range(2):
        assert damaged.id not in {summary.id for summary in Index(repository, path).summaries()}
        assert layout.record_key(damaged.id) in capsys.readouterr().err


NUMBERS = st.one_of(st.integers(-(2**60), 2**60), st.floats(), st.none(), st.text(max_size=3), st.booleans())
METRICS = st.dictionaries(st.sampled_from(["loss", "acc", "x/y"]), NUMBERS, max_size=3)


@given(
    st.lists(METRICS, max_size=6), st.sampled_from([None, "minimize", "maximize"]), st.dictionaries(st.text(max_size=3), METRICS)
)
def test_a_summary_says_what_its_record_says(metrics: list[dict[str, Any]], goal: Any, params: dict[str, Any]) -> None:
    record = a_record(params=params)
    record.checkpoints = [CheckpointRecord(layout.new_id(), utc_now(), step, metrics=row) for step, row in enumerate(metrics)]
    if record.checkpoints and goal is not None:
        record.checkpoints[-1].primary_metric = PrimaryMetric("loss", goal)
    parsed = parse(record.to_bytes(), key=layout.record_key(record.id))
    summary = Summary(parsed.row, {"details": parsed.details, "ranges": parsed.ranges})
    assert repr(summary.params) == repr(record.params)
    assert (summary.created, summary.num_checkpoints, summary.primary_metric) == (
        record.created,
        len(record.checkpoints),
        record.primary_metric,
    )
    for found, expected in ((summary.best(), record.best()), (summary.latest(), record.latest())):
        assert repr(found and found.to_json()) == repr(expected and expected.to_json())
    assert set(summary.metric_names) == {name for row in metrics for name in row}
