"""Reading and writing files at a position, from several threads at once."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import ReadableBuffer

_seeking = threading.Lock()
"""Where the system cannot read and write at a position, as Windows cannot, one thread at a time moves there."""


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


def write_at(descriptor: int, buffers: Sequence[ReadableBuffer], start: int) -> None:
    """Write buffers one after the other, from a position on."""
    views = [view for buffer in buffers if (view := memoryview(buffer).cast("B"))]
    # One call may take less than it is given, for example at a limit of the file's size.
    while views:
        if hasattr(os, "pwritev"):
            count = os.pwritev(descriptor, views[:MAX_BUFFERS], start)
        else:
            with _seeking:
                os.lseek(descriptor, start, os.SEEK_SET)
                count = os.write(descriptor, views[0])
        start += count
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        if views:
            views[0] = views[0][count:]


MAX_BUFFERS = 1024
"""How many buffers one call takes on Linux (``IOV_MAX`` in ``limits.h``)."""
