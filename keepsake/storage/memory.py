"""Objects in memory: for tests, and as the simplest reading of the contract."""

from __future__ import annotations

import io
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO

from keepsake.exceptions import ObjectNotFound
from keepsake.storage.base import Body, ObjectInfo, Storage, check_key, check_prefix, in_prefix, pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class MemoryStorage:
    """A dictionary of bytes; a pickled one keeps its content."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, int, float]] = {}
        self._writes = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """A name for messages; nothing can be opened by it."""
        return "memory://"

    def __repr__(self) -> str:
        return f"<MemoryStorage of {len(self._objects)} objects>"

    def read(self, key: str) -> bytes:
        try:
            return self._objects[check_key(key)][0]
        except KeyError as err:
            raise ObjectNotFound(f"no object {key} in {self.url}", url=self.url, key=key) from err

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.read(key))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        return self.read(key)[start : start + length]

    def write(self, key: str, body: Body) -> None:
        check_key(key)
        content = b"".join(pieces(body))
        with self._lock:
            self._writes += 1
            self._objects[key] = (content, self._writes, monotonic())

    def delete(self, keys: Iterable[str]) -> None:
        for key in [check_key(key) for key in keys]:
            self._objects.pop(key, None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        prefix = check_prefix(prefix)
        with self._lock:
            objects = self._objects.copy()
        now = monotonic()
        return iter(
            [
                ObjectInfo(key, len(content), str(write), max(0.0, now - written))
                for key, (content, write, written) in sorted(objects.items(), key=lambda item: item[0].encode())
                if in_prefix(key, prefix)
            ]
        )

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"_objects": self._objects.copy(), "_writes": self._writes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


if TYPE_CHECKING:
    _: Storage = MemoryStorage()
