"""Writing a file from its beginning to its end: bytes, and what is in other files."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Protocol, Self

from keepsake.repository.archive.files import CALL_BYTES, MAX_BUFFERS, behind, write_at, write_some
from keepsake.repository.archive.preallocation import STEP_BYTES, WORTH_BYTES, preallocate
from keepsake.repository.archive.spaces import Spaces
from keepsake.repository.archive.splicing import Pipe, open_pipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Source(Protocol):
    """A file of which parts are appended to another one."""

    def fileno(self) -> int:
        """Return its descriptor."""

    def read(self, view: memoryview, start: int) -> None:
        """Fill a buffer with what it holds from a position on, or raise."""


class Appender:
    """Writes a file from its beginning to its end, in calls that end at multiples of `CALL_BYTES`.

    A call that ends within a page makes the next one begin there, and the system has smaller pieces of memory to find for what follows.

    It is a context, at whose end all is written, but after an error.

    Args:
        descriptor: The file, which is empty.
        expected_bytes: About how long it will be.

    Attributes:
        end: Up to where it is written.
    """

    def __init__(self, descriptor: int, expected_bytes: int) -> None:
        self._descriptor = descriptor
        self._expected_bytes = expected_bytes
        self._allocated_to = 0
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self._room = CALL_BYTES
        self._pipe: Pipe | None = None
        self._may_pipe = True
        self._spaces = Spaces()
        self._lent: list[memoryview] = []
        self.end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.flush()
                if self._allocated_to > self.end:
                    os.ftruncate(self._descriptor, self.end)
        finally:
            if self._pipe is not None:
                self._pipe.close()

    # --- bytes ------------------------------------------------------------------------------------------------------

    def append(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Write buffers, but for what is less than a call: that waits for more, and must not change until `end` says that it is written."""
        for buffer in buffers:
            if self._waiting_bytes + len(buffer) < self._room:
                self._wait(buffer)
            else:
                self._wait_and_write(memoryview(buffer))

    def _wait_and_write(self, buffer: memoryview) -> None:
        while self._waiting_bytes + len(buffer) >= self._room:
            count = self._room - self._waiting_bytes
            self._wait(buffer[:count])
            self.flush()
            buffer = buffer[count:]
        self._wait(buffer)

    def _wait(self, buffer: bytes | memoryview) -> None:
        self._waiting.append(buffer)
        self._waiting_bytes += len(buffer)

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting_bytes:
            return
        end = self._allocated(self._waiting_bytes)
        count = write_some(self._descriptor, self._waiting[:MAX_BUFFERS], self.end)
        if count < self._waiting_bytes:
            write_at(self._descriptor, behind(self._waiting, count), self.end + count)
        self._waiting, self._waiting_bytes = [], 0
        self._advance(end)
        while self._lent:
            self._spaces.give_back(self._lent.pop())

    def _allocated(self, size_bytes: int) -> int:
        """Return where the next so many bytes will end, which have their place on the disk by then."""
        end = self.end + size_bytes
        if end > self._allocated_to:
            start = max(self.end, self._allocated_to)
            step_bytes = min(STEP_BYTES, self._expected_bytes - start)
            if step_bytes >= WORTH_BYTES:
                preallocate(self._descriptor, start, step_bytes)
                self._allocated_to = start + step_bytes
        return end

    def _advance(self, end: int) -> None:
        self.end, self._room = end, CALL_BYTES - end % CALL_BYTES

    # --- other files ------------------------------------------------------------------------------------------------

    def append_from(self, source: Source, start: int, parts: Sequence[tuple[bytes, int]]) -> None:
        """Write what a file holds from a position on, in parts, and some bytes before each.

        Through a pipe of the system it is copied once and not twice. Where that cannot be, it is read.

        Args:
            source: The file.
            start: The position.
            parts: What comes before each part, some 4 kB in all, and how long the part is.
        """
        if (pipe := self._opened_pipe()) is not None:
            self.flush()
            begin = self.end
            try:
                self._pass(pipe, source.fileno(), start, parts)
            except OSError:
                # A file system that cannot do it, for example. If it is something else, reading and writing will say what.
                pipe.close()
                self._pipe = None
                self._advance(begin)
            else:
                return
        for before, length in parts:
            self.append([before])
            self._read(source, start, length)
            start += length

    def _opened_pipe(self) -> Pipe | None:
        if self._may_pipe:
            self._may_pipe = False
            self._pipe = open_pipe()
        return self._pipe

    def _pass(self, pipe: Pipe, source: int, start: int, parts: Sequence[tuple[bytes, int]]) -> None:
        pipe.put(b"".join(before for before, _ in parts))
        for before, length in parts:
            pipe.take_put(len(before))
            end = start + length
            while start < end:
                start += pipe.take(source, start, end - start)
            while pipe.held_bytes >= self._room:
                self._give(pipe, self._room)
        self._give(pipe, pipe.held_bytes)

    def _give(self, pipe: Pipe, size_bytes: int) -> None:
        position, end = self.end, self._allocated(size_bytes)
        while position < end:
            position += pipe.give(self._descriptor, position, end - position)
        self._advance(end)

    def _read(self, source: Source, start: int, length: int) -> None:
        end = start + length
        while start < end:
            count = min(end - start, self._room - self._waiting_bytes)
            # As far behind the beginning of a page as in the file, see `Spaces`.
            offset = start % mmap.PAGESIZE
            space = self._spaces.take(offset + count)
            self._lent.append(space)
            source.read(space[offset:], start)
            self._wait(space[offset:])
            if self._waiting_bytes == self._room:
                self.flush()
            start += count
