from __future__ import annotations

import pytest

from keepsake.storage import MemoryStorage
from tests.storage.conformance import StorageTests, in_another_process, overrides_suite


class RawMemory:
    def __init__(self, storage: MemoryStorage) -> None:
        self._objects = storage._objects

    def get(self, key: str) -> bytes | None:
        return self._objects[key][0] if key in self._objects else None

    def set(self, key: str, content: bytes) -> None:
        self._objects[key] = (content, len(self._objects), 0.0)

    def keys(self) -> list[str]:
        return sorted(self._objects)


class TestMemoryStorage(StorageTests):
    rig = "memory"

    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()

    @pytest.fixture
    def raw(self, storage: MemoryStorage) -> RawMemory:
        return RawMemory(storage)

    @overrides_suite("memory is one process's own: a pickled copy carries the content along and lives on by itself")
    def test_what_another_process_writes_is_read(self, storage: MemoryStorage) -> None:
        storage.write("a", b"old")
        assert in_another_process(storage, "storage.write('a', b'new'); print(storage.read('a').decode())") == "new"
        assert storage.read("a") == b"old"

    def test_its_content_is_not_shown(self, storage: MemoryStorage) -> None:
        storage.write("a", b"content")
        assert repr(storage) == "<MemoryStorage of 1 objects>"
