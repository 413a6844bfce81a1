"""Whatever is done to a store in whatever order, it holds what a dictionary would."""

from __future__ import annotations

import io
import pickle
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from keepsake.exceptions import ObjectNotFound
from keepsake.storage import DiskStorage, MemoryStorage, Storage
from keepsake.storage.base import in_prefix
from tests.storage.conformance import BreaksOff

SEGMENTS = st.sampled_from(["a", "b", "ab", "a.json", "é", "x y"])
# A name is either a directory or an object on disk, so directories get names of their own.
KEYS = st.builds(
    lambda directories, name: "/".join([*(f"{d}_" for d in directories), name]), st.lists(SEGMENTS, max_size=2), SEGMENTS
)


class StorageMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, bytes] = {}
        self.storage = self.make()

    def make(self) -> Storage:
        return MemoryStorage()

    @rule(key=KEYS, content=st.binary(max_size=50))
    def write(self, key: str, content: bytes) -> None:
        self.storage.write(key, content)
        self.model[key] = content

    @rule(key=KEYS, content=st.binary(max_size=50), skipped=st.integers(0, 10))
    def write_from_a_stream(self, key: str, content: bytes, skipped: int) -> None:
        body = io.BytesIO(content)
        body.seek(skipped)
        self.storage.write(key, body)
        self.model[key] = content[skipped:]

    @rule(key=KEYS, content=st.binary(max_size=50))
    def write_what_breaks_off(self, key: str, content: bytes) -> None:
        with pytest.raises(RuntimeError, match="broke off"):
            self.storage.write(key, io.BufferedReader(BreaksOff(len(content))))

    @rule(key=KEYS, other=KEYS)
    def copy(self, key: str, other: str) -> None:
        if key in self.model:
            with self.storage.open(key) as stream:
                self.storage.write(other, stream)
            self.model[other] = self.model[key]

    @rule()
    def go_on_with_a_pickled_copy(self) -> None:
        self.storage = pickle.loads(pickle.dumps(self.storage))

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        try:
            content: bytes | None = self.storage.read(key)
        except ObjectNotFound:
            content = None
        assert content == self.model.get(key)

    @rule(key=KEYS, start=st.integers(0, 60), length=st.integers(0, 60))
    def read_range(self, key: str, start: int, length: int) -> None:
        try:
            content: bytes | None = self.storage.read_range(key, start, length)
        except ObjectNotFound:
            content = None
        assert content == (self.model[key][start : start + length] if key in self.model else None)

    @rule(keys=st.lists(KEYS, max_size=3))
    def delete(self, keys: list[str]) -> None:
        self.storage.delete(keys)
        for key in keys:
            self.model.pop(key, None)

    @rule(prefix=st.one_of(KEYS, SEGMENTS.map(lambda segment: f"{segment}_")))
    def list_prefix(self, prefix: str) -> None:
        assert [info.key for info in self.storage.list(prefix)] == self.keys(prefix)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert {info.key: info.size_bytes for info in self.storage.list()} == {
            key: len(value) for key, value in self.model.items()
        }
        assert [info.key for info in self.storage.list()] == self.keys("")

    def keys(self, prefix: str) -> list[str]:
        return sorted((key for key in self.model if in_prefix(key, prefix)), key=str.encode)


class DiskMachine(StorageMachine):
    def make(self) -> Storage:
        self.directory = tempfile.TemporaryDirectory()
        return DiskStorage(self.directory.name)

    def teardown(self) -> None:
        self.directory.cleanup()


StorageMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
DiskMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=20)
TestMemory = StorageMachine.TestCase
TestDisk = DiskMachine.TestCase
