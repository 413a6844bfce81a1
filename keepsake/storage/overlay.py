"""Two stores as one: what lies in the front one hides what lies in the back one. What that is good for belongs to others."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, BinaryIO

from keepsake.exceptions import ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keepsake.storage.base import Body, ObjectInfo, Storage


class OverlayStorage:
    """A store in front of another.

    Reading looks into the front store first. Writing changes an object where it lies, and makes a new one in the back store. Deleting
    deletes in both, in the back store first, so that an error leaves the whole as it was.

    Args:
        front: What is asked first.
        back: What the whole stands for; its address is the address of the whole.

    Example:
        >>> from keepsake.storage import MemoryStorage
        >>> front, back = MemoryStorage(), MemoryStorage()
        >>> back.write("a", b"old"), back.write("b", b"b"), front.write("a", b"new")
        (None, None, None)
        >>> [overlay.read(info.key) for overlay in [OverlayStorage(front, back)] for info in overlay.list()]
        [b'new', b'b']
    """

    def __init__(self, front: Storage, back: Storage) -> None:
        self.front = front
        self.back = back

    @property
    def url(self) -> str:
        """The address of the back store."""
        return self.back.url

    def __repr__(self) -> str:
        return f"OverlayStorage({self.front!r}, {self.back!r})"

    def read(self, key: str) -> bytes:
        try:
            return self.front.read(key)
        except ObjectNotFound:
            return self.back.read(key)

    def open(self, key: str) -> BinaryIO:
        try:
            return self.front.open(key)
        except ObjectNotFound:
            return self.back.open(key)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        try:
            return self.front.read_range(key, start, length)
        except ObjectNotFound:
            return self.back.read_range(key, start, length)

    def write(self, key: str, body: Body) -> None:
        is_in_front = any(info.key == key for info in self.front.list(key))
        (self.front if is_in_front else self.back).write(key, body)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        self.back.delete(wanted)
        self.front.delete(wanted)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # Each call checks the prefix itself, before the first step.
        return _merged(self.front.list(prefix), self.back.list(prefix))


def _merged(front: Iterator[ObjectInfo], back: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
    last = None
    # Of two with one key the merge yields that of the front store first.
    for info in heapq.merge(front, back, key=lambda info: info.key.encode()):
        if info.key != last:
            yield info
        last = info.key


if TYPE_CHECKING:
    from keepsake.storage.memory import MemoryStorage

    _: Storage = OverlayStorage(MemoryStorage(), MemoryStorage())
