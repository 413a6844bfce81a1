"""The wrapper is a store like any other, and each planned fault happens."""

from __future__ import annotations

from typing import Any

import pytest

from keepsake.exceptions import ObjectNotFound, ReadError, WriteError
from keepsake.storage import MemoryStorage
from tests.storage.conformance import StorageTests
from tests.storage.faults import Fault, FaultyStorage
from tests.storage.test_memory import RawMemory


class TestFaultyStorage(StorageTests):
    @pytest.fixture
    def storage(self) -> FaultyStorage:
        return FaultyStorage(MemoryStorage())

    @pytest.fixture
    def raw(self, storage: FaultyStorage) -> RawMemory:
        assert isinstance(storage.inner, MemoryStorage)
        return RawMemory(storage.inner)


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


def test_what_is_read_can_be_cut_short() -> None:
    storage = FaultyStorage(MemoryStorage(), [Fault(0, "read", truncate_to=2), Fault(0, "open", truncate_to=3)])
    storage.write("a", b"0123456789")
    assert storage.read("a") == b"01"
    assert storage.open("a").read() == b"012"
    assert storage.read("a") == b"0123456789"


def test_a_suite_test_cannot_be_replaced_in_silence() -> None:
    with pytest.raises(TypeError, match="say why with @overrides_suite"):

        class Quiet(StorageTests):
            def test_a_directory_is_no_object(self) -> None: ...  # type: ignore[override]
