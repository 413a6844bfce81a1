"""A child that looks what has changed while the tables are read: what comes of it, and what happens without it."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from pathlib import Path

import pytest

from keepsake.query import ahead
from keepsake.query.changes import Changes
from keepsake.query.index import Index
from keepsake.repository import layout
from keepsake.repository.annotations import Annotation
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Listing, Repository
from keepsake.storage.disk import DiskStorage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child looks on Linux only")

COUNT = 12

OTHER = "another thread"


class Place:
    """A repository, and what is known of it in a file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "index.sqlite"
        self.repository = Repository(DiskStorage(directory / "repository"))
        for number in range(COUNT):
            self.save(number)
        Index(self.repository, self.path).summaries()

    def save(self, number: int, *, checkpoints: int = 2) -> None:
        record = ExperimentRecord(f"{number:02x}" * 32, utc_now(), {"lr": number / 10})
        record.checkpoints = [CheckpointRecord(f"{number:02x}{step:02x}" * 16, utc_now(), step) for step in range(checkpoints)]
        self.repository.save(record)

    def index(self) -> Index:
        index = Index(self.repository, self.path)
        index.helpers = 2
        return index

    def listed(self, index: Index | None = None) -> list[tuple[object, ...]]:
        return [
            (one.id, one.created, one.num_checkpoints, one.name, one.status.word, one.latest_json)
            for one in (index or self.index()).summaries()
        ]

    def expected(self) -> list[tuple[object, ...]]:
        """Return the same without any table or child."""
        return self.listed(Index(self.repository, None))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(ahead, "MANY_BYTES", 1)
    # That of pytest-timeout is not one of the command line's.
    monkeypatch.setattr(threading, "active_count", lambda: len([one for one in threading.enumerate() if one.name == OTHER]) + 1)
    return Place(tmp_path)


@pytest.fixture
def only_a_child_lists(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here, listing = os.getpid(), place.repository.listing

    def guarded() -> Listing:
        assert os.getpid() != here, "this process has listed the repository itself"
        return listing()

    monkeypatch.setattr(place.repository, "listing", guarded)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the children that are made; the process of the tests may have others, of other tests."""
    made: list[int] = []
    fork = os.fork

    def noticed() -> int:
        child = fork()
        if child:
            made.append(child)
        return child

    monkeypatch.setattr(os, "fork", noticed)
    return made


def assert_none_is_left(children: list[int], made: int = 1) -> None:
    assert len(children) == made
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


@pytest.mark.usefixtures("only_a_child_lists")
def test_where_nothing_has_changed_the_child_alone_lists(place: Place, children: list[int]) -> None:
    assert [row[0] for row in place.listed()] == [f"{number:02x}" * 32 for number in range(COUNT)]
    assert_none_is_left(children)


def test_what_has_changed_is_found(place: Place) -> None:
    place.save(3, checkpoints=5)
    place.save(COUNT)
    place.repository.delete_experiment(place.repository.load("05" * 32))
    said = Annotation(name="best so far")
    place.repository.storage.write(layout.annotations_key("07" * 32), said.to_bytes())
    place.repository.storage.write(layout.heartbeat_key("08" * 32), b"{}")
    found = place.listed()
    assert found == place.expected()
    assert {row[0]: row[2:5] for row in found}.items() >= {
        "03" * 32: (5, "", "stopped"),
        f"{COUNT:02x}" * 32: (2, "", "stopped"),
        "07" * 32: (2, "best so far", "stopped"),
        "08" * 32: (2, "", "running"),
    }.items()
    assert "05" * 32 not in {row[0] for row in found}


@pytest.mark.usefixtures("only_a_child_lists")
def test_what_it_has_found_is_kept(place: Place) -> None:
    place.save(3, checkpoints=5)
    assert place.listed()[-1][:3:2] == ("03" * 32, 5)
    assert place.listed()[-1][:3:2] == ("03" * 32, 5)


def test_each_look_is_a_new_one(place: Place, children: list[int]) -> None:
    index = place.index()
    assert len(place.listed(index)) == COUNT
    place.save(COUNT)
    index.forget()
    assert len(place.listed(index)) == COUNT + 1
    assert_none_is_left(children, made=2)


def test_what_another_process_writes_after_this_one_has_read_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ahead.Look.changes

    def changes_of_a_slow_child(look: ahead.Look) -> Changes | None:
        found = changes(look)
        assert found is not None
        place.save(3, checkpoints=5)
        Index(place.repository, place.path).summaries()
        # It would have compared with that, and found nothing.
        return found

    monkeypatch.setattr(ahead.Look, "changes", changes_of_a_slow_child)
    assert place.listed()[-1][:3:2] == ("03" * 32, 5)


def test_whole_records_can_be_read_afterwards(place: Place) -> None:
    index = place.index()
    summaries = index.summaries()
    records = index.records()
    assert [records.load(summary).id for summary in summaries] == [summary.id for summary in summaries]
    assert len(list(records.raw([summary.id for summary in summaries]))) == COUNT


def test_details_can_be_read_afterwards(place: Place) -> None:
    assert [one.metric_names for one in place.index().summaries()] == [[]] * COUNT


@pytest.mark.parametrize("code", [0, 1])
def test_a_child_that_dies_costs_nothing(place: Place, children: list[int], monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    place.save(3, checkpoints=5)
    monkeypatch.setattr(ahead, "_look", lambda *arguments: os._exit(code))
    assert place.listed() == place.expected()
    assert_none_is_left(children)


def test_a_child_that_dies_in_the_middle_of_its_answer_costs_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = pickle.dumps
    monkeypatch.setattr(pickle, "dumps", lambda value: dumps(value)[:-3])
    assert place.listed() == place.expected()


def test_no_child_may_be_had(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", refused)
    assert place.listed() == place.expected()


def test_damaged_tables_are_made_anew(place: Place) -> None:
    content = bytearray(place.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    place.path.write_bytes(content)
    assert place.listed() == place.expected()
    assert place.listed() == place.expected()


def test_a_process_with_threads_looks_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a child was made"))
    done = threading.Event()
    other = threading.Thread(target=done.wait, name=OTHER)
    other.start()
    try:
        assert place.listed() == place.expected()
    finally:
        done.set()
        other.join()


def test_a_program_that_is_not_ours_gets_no_child(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a child was made"))
    assert place.listed(Index(place.repository, place.path)) == place.expected()
