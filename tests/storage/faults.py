"""A store that fails where a test plans it: around any other store, through the same protocol."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, TypeVar

from keepsake.exceptions import ReadError, StorageError, WriteError
from keepsake.storage import Body, ObjectInfo, Storage

T = TypeVar("T")
Verb = Literal["read", "open", "read_range", "write", "delete", "list", "any"]


@dataclass
class Fault:
    """One failure.

    Args:
        call: Which call of the verb fails, counted from 0.
        verb: Which verb; ``any`` counts all calls.
        after: Whether the call has its effect before it fails, as when only the answer is lost.
        truncate_to: Instead of failing, cut what is read to so many bytes.
    """

    call: int
    verb: Verb = "any"
    after: bool = False
    truncate_to: int | None = None


@dataclass
class FaultyStorage:
    """Passes everything on to another store, but for the faults that are planned.

    Args:
        inner: The store.
        plan: The faults; each happens once.

    Attributes:
        happened: The faults that have happened.
    """

    inner: Storage
    plan: list[Fault] = field(default_factory=list)
    happened: list[Fault] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.inner.url

    def read(self, key: str) -> bytes:
        return self._cut(self._call("read", lambda: self.inner.read(key)))

    def open(self, key: str) -> BinaryIO:
        stream = self._call("open", lambda: self.inner.open(key))
        return io.BytesIO(self._cut(stream.read())) if self._cutting is not None else stream

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._cut(self._call("read_range", lambda: self.inner.read_range(key, start, length)))

    def write(self, key: str, body: Body) -> None:
        self._call("write", lambda: self.inner.write(key, body))

    def delete(self, keys: Iterable[str]) -> None:
        self._call("delete", lambda: self.inner.delete(keys))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._call("list", lambda: list(self.inner.list(prefix))))

    _cutting: int | None = None

    def _cut(self, content: bytes) -> bytes:
        limit, self._cutting = self._cutting, None
        return content if limit is None else content[:limit]

    def _call(self, verb: Verb, work: Callable[[], T]) -> T:
        numbers = {name: self.calls.get(name, 0) for name in (verb, "any")}
        self.calls.update({name: number + 1 for name, number in numbers.items()})
        fault = next((one for one in self.plan if one.verb in numbers and one.call == numbers[one.verb]), None)
        if fault is None:
            return work()
        self.happened.append(fault)
        self.plan = [one for one in self.plan if one is not fault]
        if fault.truncate_to is not None:
            self._cutting = fault.truncate_to
            return work()
        if fault.after:
            work()
        kind: type[StorageError] = WriteError if verb in ("write", "delete") else ReadError
        raise kind(f"planned fault of {verb}", url=self.url)
