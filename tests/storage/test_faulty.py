"""The wrapper is a store like any other, and each planned fault happens."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from keepsake.exceptions import ObjectNotFound, ReadError, WriteError
from keepsake.storage import MemoryStorage
from tests.storage import test_memory
from tests.storage.conformance import StorageTests
from tests.storage.faults import Fault, FaultyStorage, Stall


class TestFaultyStorage(StorageTests):
    rig = "faulty"

    @pytest.fixture
    def storage(self) -> FaultyStorage:
        return FaultyStorage(MemoryStorage())

    @pytest.fixture
    def raw(self, storage: FaultyStorage) -> test_memory.RawMemory:
        assert isinstance(storage.inner, MemoryStorage)
        return test_memory.RawMemory(storage.inner)

    test_what_another_process_writes_is_read = test_memory.TestMemoryStorage.test_what_another_process_writes_is_read


CALLS: list[tuple[Any, Any, type[Exception]]] = [
    ("read", lambda storage: storage.read("a"), ReadError),
    ("open", lambda storage: storage.open("a"), ReadError),
    ("read_range", lambda storage: storage.read_range("a", 0, 1), ReadError),
    ("list", lambda storage: storage.list(), ReadError),
    ("write", lambda storage: storage.write("a", b"new"), WriteError),
    ("delete", lambda storage: storage.delete(["a"]), WriteError),
]


@pytest.mark.parametrize(("verb", "call", "error"), CALLS, ids=[verb for verb, _, _ in CALLS])
def test_the_planned_call_fails_and_no_other(verb: Any, call: Any, error: type[Exception]) -> None:
    storage = FaultyStorage(MemoryStorage(), [Fault(1, verb)])
    storage.inner.write("a", b"old")
    call(storage)
    storage.inner.write("a", b"old")
    with pytest.raises(error, match=f"planned fault of {verb}"):
        call(storage)
    assert storage.inner.read("a") == b"old"
    call(storage)
    assert [fault.call for fault in storage.happened] == [1]


def test_a_lost_answer_comes_after_the_effect() -> None:
    storage = FaultyStorage(MemoryStorage(), [Fault(0, "write", after=True), Fault(0, "delete", after=True)])
    with pytest.raises(WriteError):
        storage.write("a", b"new")
    assert storage.inner.read("a") == b"new"
    with pytest.raises(WriteError):
        storage.delete(["a"])
    with pytest.raises(ObjectNotFound):
        storage.inner.read("a")


@pytest.mark.parametrize(
    ("verb", "read"),
    [
        ("read", lambda storage: storage.read("a")),
        ("open", lambda storage: storage.open("a").read()),
        ("read_range", lambda storage: storage.read_range("a", 0, 10)),
    ],
)
def test_what_is_read_can_be_cut_short(verb: Any, read: Any) -> None:
    storage = FaultyStorage(MemoryStorage(), [Fault(1, verb, truncate_to=2)])
    storage.write("a", b"0123456789")
    assert [read(storage) for _ in range(3)] == [b"0123456789", b"01", b"0123456789"]


@pytest.mark.parametrize("verb", ["write", "delete", "list", "any"])
def test_only_what_is_read_can_be_cut_short(verb: Any) -> None:
    with pytest.raises(ValueError, match="only what is read"):
        Fault(0, verb, truncate_to=2)


@pytest.mark.parametrize("after", [False, True])
def test_a_call_can_be_stalled_before_and_after_its_effect(after: bool) -> None:
    stall = Stall()
    storage = FaultyStorage(MemoryStorage(), [Fault(0, "write", after=after, stall=stall)])
    storage.inner.write("a", b"old")
    writer = threading.Thread(target=storage.write, args=("a", b"new"))
    writer.start()
    stall.wait_until_reached()
    assert storage.read("a") == (b"new" if after else b"old")  # other calls go on meanwhile
    assert writer.is_alive()
    stall.release()
    writer.join()
    assert storage.read("a") == b"new"


def test_several_faults_can_be_planned_and_any_verb_be_counted() -> None:
    storage = FaultyStorage(MemoryStorage(), [Fault(0, "read"), Fault(2)])
    storage.write("a", b"x")
    with pytest.raises(ReadError):
        storage.read("a")
    with pytest.raises(WriteError):
        storage.write("a", b"y")
    assert storage.read("a") == b"x"
    assert (storage.faults.plan, len(storage.happened)) == ([], 2)
    assert storage.calls == {"any": 4, "write": 2, "read": 2}


def test_each_fault_happens_once_whatever_the_number_of_threads() -> None:
    storage = FaultyStorage(MemoryStorage(), [Fault(number, "write") for number in range(0, 80, 2)])
    failed: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            try:
                storage.write("a", b"x")
            except WriteError:
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(failed), storage.faults.plan, storage.calls["write"]) == (40, [], 80)
