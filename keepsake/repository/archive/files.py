"""Reading and writing files at a position, from several threads at once."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_seeking = threading.Lock()
"""Where the system cannot read and write at a position, as Windows cannot, one thread at a time moves there."""


CALL_BYTES = 256 << 10
"""How much is written at once. For more, the system looks for larger pieces of memory although it has smaller ones, and a virtual machine
has to ask its host for them: the same then took ten times as long. For less, the calls themselves take time."""

MAX_BUFFERS = 1024
"""How many buffers one call takes on Linux (``IOV_MAX`` in ``limits.h``)."""


def read_at(descriptor: int, view: memoryview, start: int) -> int:
    """Fill a buffer with what a file holds from a position on; return how much that was, less only where the file ends."""
    done = 0
    while done < len(view):
        if hasattr(os, "preadv"):
            count = os.preadv(descriptor, [view[done:]], start + done)
        else:
            with _seeking:
                os.lseek(descriptor, start + done, os.SEEK_SET)
                content = os.read(descriptor, len(view) - done)
            count = len(content)
            view[done : done + count] = content
        if not count:
            break
        done += count
    return done


def write_at(descriptor: int, buffers: Sequence[bytes | memoryview], start: int) -> None:
    """Write buffers one after the other, from a position on."""
    while buffers:
        count = write_some(descriptor, buffers[:MAX_BUFFERS], start)
        start += count
        # One call may take less than it is given, for example at a limit of the file's size.
        buffers = behind(buffers, count)


def portions(content: memoryview) -> Iterator[memoryview]:
    """Yield what is to be written to a new file, as much at a time as is best written at once."""
    for start in range(0, len(content), CALL_BYTES):
        yield content[start : start + CALL_BYTES]


def write_some(descriptor: int, buffers: Sequence[bytes | memoryview], start: int) -> int:
    """Write buffers, at most `MAX_BUFFERS`, from a position on, as far as one call goes; return how many bytes that were."""
    if hasattr(os, "pwritev"):
        return os.pwritev(descriptor, buffers, start)
    with _seeking:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.write(descriptor, buffers[0])


def behind(buffers: Sequence[bytes | memoryview], count: int) -> Sequence[bytes | memoryview]:
    """Return what of some buffers comes after so many bytes."""
    for number, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[number + 1 :]]
        count -= len(buffer)
    return ()


class WriteQueue(Generic[T]):
    """Lets one of several threads write, while the others go on with their work.

    File systems let one thread at a time write to a file. Who has to wait there sleeps, and is woken late: two threads were no faster than
    one. Here who finds another one writing leaves what it has to that one, and waits only where too much is waiting already.

    Args:
        write: Writes items, all that have come meanwhile; never called by two threads at once.
        room: How many items may wait.
    """

    def __init__(self, write: Callable[[Sequence[T]], None], room: int) -> None:
        self._write = write
        self._room = room
        self._turn = threading.Condition()
        self._waiting: list[T] = []
        self._is_writing = False
        self._has_failed = False

    def put(self, item: T) -> None:
        """Write an item, or leave it to the thread that is writing. When all have returned, all is written.

        Raises:
            Exception: What writing this item or another one raised; after that nothing is written any more.
        """
        with self._turn:
            self._turn.wait_for(lambda: self._has_failed or not self._is_writing or len(self._waiting) < self._room)
            if self._has_failed:
                return
            self._waiting.append(item)
            if self._is_writing:
                return
            self._is_writing = True
        try:
            while items := self._all_waiting():
                self._write(items)
        except BaseException:
            self.give_up()
            raise

    def _all_waiting(self) -> Sequence[T]:
        with self._turn:
            items: Sequence[T] = () if self._has_failed else self._waiting
            self._waiting = []
            self._is_writing = bool(items)
            self._turn.notify_all()
            return items

    def give_up(self) -> None:
        """Write nothing any more, and let nobody wait."""
        with self._turn:
            self._has_failed = True
            self._turn.notify_all()
