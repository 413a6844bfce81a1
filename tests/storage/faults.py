"""Stores that fail where a test plans it: one around any other store, through the same protocol, and one that is a disk store."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from keepsake.exceptions import ReadError, StorageError, WriteError
from keepsake.storage import Body, DiskStorage, ObjectInfo, Storage

T = TypeVar("T")
Verb = Literal["read", "open", "read_range", "write", "delete", "list", "any"]

PATIENCE_S = 60
"""How long a stalled call waits at most, so that a broken test ends."""


class Stall:
    """A place where a call stands still until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_until_reached(self) -> None:
        """Wait, in the test, until the call stands still."""
        assert self._reached.wait(PATIENCE_S), "the call that was to be stalled was not made"

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()

    def stand_still(self) -> None:
        self._reached.set()
        assert self._released.wait(PATIENCE_S), "a stalled call was not released"


@dataclass(frozen=True)
class Fault:
    """One failure. Without more, the call fails before it has any effect.

    Args:
        call: Which call of the verb fails, counted from 0.
        verb: Which verb; ``any`` counts all calls.
        after: Whether the call has its effect first, as when only the answer is lost.
        truncate_to: Instead of failing, cut what is read to so many bytes.
        stall: Instead of failing, stand still there: before the effect, or after it with ``after``.
    """

    call: int
    verb: Verb = "any"
    after: bool = False
    truncate_to: int | None = None
    stall: Stall | None = None

    def __post_init__(self) -> None:
        if self.truncate_to is not None and self.verb not in ("read", "open", "read_range"):
            raise ValueError(f"only what is read can be cut short, not {self.verb}")


@dataclass
class FaultPlan:
    """Makes calls, but for the faults that are planned.

    Args:
        url: The store, for the errors.
        plan: The faults; each happens once.

    Attributes:
        happened: The faults that have happened.
        calls: How often each verb has been called.
    """

    url: str
    plan: list[Fault] = field(default_factory=list)
    happened: list[Fault] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def call(self, verb: Verb, work: Callable[[], T], cut: Callable[[T, int], T] | None = None) -> T:
        fault = self._due(verb)
        if fault is None:
            return work()
        if fault.truncate_to is not None and cut is not None:
            return cut(work(), fault.truncate_to)
        if fault.stall is not None:
            if fault.after:
                result = work()
                fault.stall.stand_still()
                return result
            fault.stall.stand_still()
            return work()
        if fault.after:
            work()
        kind: type[StorageError] = WriteError if verb in ("write", "delete") else ReadError
        raise kind(f"planned fault of {verb}", url=self.url)

    def _due(self, verb: Verb) -> Fault | None:
        """Count a call, and take the fault that is planned for it from the plan."""
        with self._lock:
            numbers = {name: self.calls.get(name, 0) for name in (verb, "any")}
            self.calls.update({name: number + 1 for name, number in numbers.items()})
            for fault in self.plan:
                if numbers.get(fault.verb) == fault.call:
                    self.plan.remove(fault)
                    self.happened.append(fault)
                    return fault
            return None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class FaultyStorage:
    """Passes everything on to another store, but for the faults that are planned.

    Args:
        inner: The store.
        plan: The faults; each happens once.
    """

    def __init__(self, inner: Storage, plan: list[Fault] | None = None) -> None:
        self.inner = inner
        self.faults = FaultPlan(inner.url, plan or [])

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def happened(self) -> list[Fault]:
        return self.faults.happened

    @property
    def calls(self) -> dict[str, int]:
        return self.faults.calls

    def read(self, key: str) -> bytes:
        return self.faults.call("read", lambda: self.inner.read(key), _cut_bytes)

    def open(self, key: str) -> BinaryIO:
        return self.faults.call("open", lambda: self.inner.open(key), _cut_stream)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.faults.call("read_range", lambda: self.inner.read_range(key, start, length), _cut_bytes)

    def write(self, key: str, body: Body) -> None:
        self.faults.call("write", lambda: self.inner.write(key, body))

    def delete(self, keys: Iterable[str]) -> None:
        self.faults.call("delete", lambda: self.inner.delete(keys))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.faults.call("list", lambda: self.inner.list(prefix))


class FaultyDisk(DiskStorage):
    """A directory whose calls fail where it is planned.

    Args:
        root: The directory.
        plan: The faults; each happens once. Putting a file into its place counts as writing.
    """

    def __init__(self, root: Path, plan: list[Fault] | None = None) -> None:
        super().__init__(root)
        self.faults = FaultPlan(self.url, plan or [])
        self._inner = DiskStorage(root)

    def read(self, key: str) -> bytes:
        return self.faults.call("read", lambda: self._inner.read(key), _cut_bytes)

    def open(self, key: str) -> BinaryIO:
        return self.faults.call("open", lambda: self._inner.open(key), _cut_stream)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.faults.call("read_range", lambda: self._inner.read_range(key, start, length), _cut_bytes)

    def write(self, key: str, body: Body) -> None:
        self.faults.call("write", lambda: self._inner.write(key, body))

    def adopt(self, path: Path, key: str) -> None:
        self.faults.call("write", lambda: self._inner.adopt(path, key))

    def delete(self, keys: Iterable[str]) -> None:
        self.faults.call("delete", lambda: self._inner.delete(keys))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.faults.call("list", lambda: self._inner.list(prefix))


def _cut_bytes(content: bytes, limit: int) -> bytes:
    return content[:limit]


def _cut_stream(stream: BinaryIO, limit: int) -> BinaryIO:
    with stream:
        return io.BytesIO(stream.read(limit))
