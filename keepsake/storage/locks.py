"""Locks that a process holds until it lets go of them or ends, however it ends; and the name of the machine they hold on."""

from __future__ import annotations

import errno
import os
import platform
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""How file systems without locks, such as some network and FUSE ones, say so."""

_HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

POLL_INTERVAL_S = 0.005
"""Between two attempts to get a lock that somebody has: no system tells the waiting threads of one process from one another."""

_held: set[tuple[int, int]] = set()
"""The files locked by this process, by device and inode: one file may have several paths."""

# Reentrant, because a signal's handler may end an experiment while the same thread is in here.
_held_lock = threading.RLock()


def _forget_in_child() -> None:
    global _held_lock
    _held_lock = threading.RLock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


@cache
def machine_id() -> str:
    """Return what tells this machine, since it was started, from all others.

    Locks are kept by the kernel, so on Linux it is the kernel's own name for the time since it was started: containers on one
    machine share it although their host names differ. Elsewhere it is the host name.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


class ProcessLock:
    """An exclusive lock on a file.

    A record lock of POSIX, because a forked child does not inherit it: a data loader's worker that outlives its killed trainer must
    not make it look alive. Such a lock is lost when the process closes *any* descriptor of the file. So nothing may open the file but
    this class, which refuses a second lock on it in the same process, and anything worth reading stands in another file.

    Args:
        path: The file, in a directory that exists; made if it does not exist.

    Attributes:
        is_real: Whether others are really kept out; False where the file system knows no locks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     lock, other = ProcessLock(Path(directory) / "a"), ProcessLock(Path(directory) / "a")
        ...     print(lock.acquire(), other.acquire())
        ...     lock.release()
        True False
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._descriptor = -1
        self._locked = (0, 0)
        self.is_real = False

    def acquire(self, *, wait_s: float = 0.0) -> bool:
        """Take the lock, or return False if somebody has it.

        Args:
            wait_s: How long to wait for somebody who has it, in seconds.

        Raises:
            OSError: The file cannot be made or opened.
        """
        end = time.monotonic() + wait_s
        while not self._try():
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_INTERVAL_S)
        return True

    def _try(self) -> bool:
        with _held_lock:
            if self._identity() in _held:
                # Opening it would be enough to lose it.
                return False
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                self.is_real = lock_descriptor(descriptor)
                taken = self._is_still_there(descriptor)
            except OSError as err:
                os.close(descriptor)
                if err.errno in _HELD_BY_ANOTHER:
                    return False
                raise
            if not taken:
                os.close(descriptor)
                return False
            self._descriptor, self._locked = descriptor, _identity_of(os.fstat(descriptor))
            _held.add(self._locked)
            return True

    def _identity(self) -> tuple[int, int] | None:
        try:
            return _identity_of(self._path.stat())
        except FileNotFoundError:
            return None

    def _is_still_there(self, descriptor: int) -> bool:
        # Whoever held it may have removed the file meanwhile, and somebody else may have made and locked a new one.
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self, *, remove: bool = True) -> None:
        """Give the lock back, and remove its file.

        Args:
            remove: False leaves the file to others that use it at once, who would only have to make it again.
        """
        if self._descriptor < 0:
            return
        with _held_lock:
            if self._locked in _held:
                if remove:
                    # While it is held, so that nobody locks a file that is about to vanish.
                    with suppress(OSError):
                        self._path.unlink()
                _held.remove(self._locked)
            os.close(self._descriptor)
            self._descriptor = -1


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


if sys.platform == "win32":
    import msvcrt

    def lock_descriptor(descriptor: int) -> bool:
        """Lock an open file for this process; see below."""
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        return True

else:
    import fcntl

    def lock_descriptor(descriptor: int) -> bool:
        """Lock an open file for this process, until it closes any descriptor of it.

        Returns:
            Whether others are really kept out: False where the file system knows no locks.

        Raises:
            OSError: Another process has locked it, or the descriptor is not open for writing.
        """
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno in _UNSUPPORTED:
                return False
            raise
        return True
