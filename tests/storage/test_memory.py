from __future__ import annotations

import pytest

from keepsake.storage import MemoryStorage
from tests.storage.conformance import StorageTests


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
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()

    @pytest.fixture
    def raw(self, storage: MemoryStorage) -> RawMemory:
        return RawMemory(storage)
