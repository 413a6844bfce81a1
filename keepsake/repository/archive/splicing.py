"""Bringing parts of a file into another one without a copy of them in this process (``splice`` of Linux), as `shutil.copyfile` does."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

_ROOM_BYTES = 1 << 20
"""How much fits into the pipe if it comes in whole pages: what every user may have (``/proc/sys/fs/pipe-max-size``)."""


def open_pipe() -> Pipe | None:
    """Return a pipe; None where the system has none that will do, or this user has too many already."""
    if sys.platform != "linux":
        return None
    try:
        return Pipe()
    except OSError:
        return None


class Pipe:
    """A pipe of the system, which holds parts of files by reference, and bytes between them.

    Nothing ever waits for room in it, that is an error. After an error only `close` is left.

    Bytes come through a second pipe. To write into one that has held parts of files would be wrong: kernels 5.8 to 5.16 without the mend of
    CVE-2022-0847 may take the last page in it for their own, and so write into the file.

    Attributes:
        held_bytes: How much lies in it.

    Raises:
        OSError: There is no such pipe to be had.

    Example:
        >>> import tempfile
        >>> source, target = tempfile.TemporaryFile(buffering=0), tempfile.TemporaryFile(buffering=0)
        >>> _ = source.write(b"one, two, three")
        >>> pipe = Pipe()
        >>> pipe.put(b"second: ")
        >>> pipe.take_put(8)
        >>> pipe.take(source.fileno(), 5, 3)
        3
        >>> pipe.give(target.fileno(), 0, 11)
        11
        >>> target.read()
        b'second: two'
        >>> for opened in (pipe, source, target):
        ...     opened.close()
    """

    def __init__(self) -> None:
        # Only Unix has it.
        import fcntl

        with ExitStack() as opened:
            self._out, self._in = _pipe(opened)
            self._put_out, self._put_in = _pipe(opened)
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _ROOM_BYTES)
            os.set_blocking(self._put_in, False)
            self._opened = opened.pop_all()
        self.held_bytes = 0

    def put(self, content: bytes) -> None:
        """Put in bytes, for now beside it; at least 4 kB fit."""
        if os.write(self._put_in, content) < len(content):
            raise BlockingIOError

    def take_put(self, length: int) -> None:
        """Take the next bytes of those that were put in."""
        while length:
            count = os.splice(self._put_out, self._in, length, flags=os.SPLICE_F_NONBLOCK)
            self.held_bytes += count
            length -= count

    def take(self, descriptor: int, start: int, length: int) -> int:
        """Take what a file holds from a position on, or the first part of it; return how much."""
        count = os.splice(descriptor, self._in, length, offset_src=start, flags=os.SPLICE_F_NONBLOCK)
        if not count:
            raise OSError(f"the file ends before {start + length:,} bytes")
        self.held_bytes += count
        return count

    def give(self, descriptor: int, start: int, length: int) -> int:
        """Write what came first, or a part of it, to a file at a position; return how much."""
        count = os.splice(self._out, descriptor, length, offset_dst=start, flags=os.SPLICE_F_NONBLOCK)
        if not count:
            raise OSError(f"the pipe holds less than {length:,} bytes")
        self.held_bytes -= count
        return count

    def close(self) -> None:
        """Let go of all that is in it."""
        self._opened.close()


def _pipe(opened: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        opened.callback(os.close, end)
    return ends
