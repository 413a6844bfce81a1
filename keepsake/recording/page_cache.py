"""How much of a file the system has not written to the disk yet."""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING

from keepsake.capture.files import open_plain

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

_CACHESTAT = 451
"""The system call's number, the same on all architectures but Alpha (Linux 6.5 and newer)."""

WRITTEN_AFTER_S = 60.0
"""Where the system cannot be asked, a file that was changed this long ago counts as written: Linux writes what is older than 30 s
(``vm.dirty_expire_centisecs``), and looks every 5 s."""


class _Range(ctypes.Structure):
    """``struct cachestat_range`` of ``linux/mman.h``; a length of 0 means up to the end."""

    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Pages(ctypes.Structure):
    """``struct cachestat`` of ``linux/mman.h``."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cached", "dirty", "in_writeback", "evicted", "recently_evicted"))


def unwritten_bytes(path: Path) -> int:
    """Return how much of a file is in memory only, or on its way to the disk; where nobody can tell, all of it if it is new.

    Raises:
        OSError: The file cannot be opened.
    """
    with open_plain(path) as file:
        pages = _cachestat(file)
        if pages is not None:
            return int(pages.dirty + pages.in_writeback) * os.sysconf("SC_PAGE_SIZE")
        status = os.fstat(file.fileno())
        return status.st_size if time.time() - status.st_mtime < WRITTEN_AFTER_S else 0


def _cachestat(file: BufferedReader) -> _Pages | None:
    libc = ctypes.CDLL(None, use_errno=True)
    pages = _Pages()
    everything = _Range(0, 0)
    result = libc.syscall(_CACHESTAT, file.fileno(), ctypes.byref(everything), ctypes.byref(pages), 0)
    return pages if result == 0 else None
