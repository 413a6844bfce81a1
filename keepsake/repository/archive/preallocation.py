"""Having a file's place on the disk found before it is written: once for all, not block by block."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WORTH_BYTES = 16 << 20
"""Less is written before this has begun to pay."""

STEP_BYTES = 64 << 20
"""How much is allocated at once, and no earlier than some of it is written: a file may be shorter in the end than somebody has said."""

_KEEP_SIZE = 1
"""``FALLOC_FL_KEEP_SIZE`` of ``linux/falloc.h``: the file stays as long as it is."""


def preallocate(descriptor: int, start: int, size_bytes: int) -> None:
    """Let a part of a file that will be written have its place on the disk; where that cannot be, do nothing.

    On ext4 writing takes three quarters of the time then. What is not written in the end has to be cut off (``ftruncate``), also where the
    file is no longer than what was written.

    `os.posix_fallocate` will not do: where the file system cannot, the C library writes into each block instead.

    Args:
        descriptor: The file.
        start: Where the part begins.
        size_bytes: How long it is.
    """
    if fallocate := _fallocate():
        # No room, no such thing on this file system, beyond a limit: writing will say so, if it matters.
        fallocate(descriptor, _KEEP_SIZE, start, size_bytes)


@cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    try:
        # Here, since it takes as long to import as a small checkpoint to write.
        import ctypes

        function = ctypes.CDLL(None).fallocate
    except (ImportError, OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function
