"""A store that fails where a test plans it: around any other store, through the same protocol."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypeVar

from keepsake.exceptions import ReadError, StorageError, WriteError
from keepsake.storage import Body, ObjectInfo, Storage

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
class FaultyStorage:
    """Passes everything on to another store, but for the faults that are planned.

    Args:
        inner: The store.
        plan: The faults; each happens once.

    Attributes:
        happened: The faults that have happened.
        calls: How often each verb has been called.
    """

    inner: Storage
    plan: list[Fault] = field(default_factory=list)
    happened: list[Fault] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self.inner.url

    def read(self, key: str) -> bytes:
        return self._call("read", lambda: self.inner.read(key), _cut_bytes)

    def open(self, key: str) -> BinaryIO:
        return self._call("open", lambda: self.inner.open(key), _cut_stream)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._call("read_range", lambda: self.inner.read_range(key, start, length), _cut_bytes)

    def write(self, key: str, body: Body) -> None:
        self._call("write", lambda: self.inner.write(key, body))

    def delete(self, keys: Iterable[str]) -> None:
        self._call("delete", lambda: self.inner.delete(keys))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._call("list", lambda: self.inner.list(prefix))

    def _call(self, verb: Verb, work: Callable[[], T], cut: Callable[[T, int], T] | None = None) -> T:
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


def _cut_bytes(content: bytes, limit: int) -> bytes:
    return content[:limit]


def _cut_stream(stream: BinaryIO, limit: int) -> BinaryIO:
    with stream:
        return io.BytesIO(stream.read(limit))
