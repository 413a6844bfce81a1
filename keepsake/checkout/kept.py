"""The local copy of a checkpoint's files, or of some of them, in the user's cache directory: what of it is whole, and who uses it."""

from __future__ import annotations

import atexit
import json
import os
import posixpath
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from keepsake.checkout.places import file_stamp, parents_of
from keepsake.checkout.staging import LEFT_BEHIND_S
from keepsake.storage.locks import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Stamps = Mapping[str, tuple[int, int] | None]

WHOLE = "."
"""The name under which all files of a checkpoint are asked for."""

IN_USE_S = 3600.0
"""How long a path stays after it was handed out, whatever became of the process that got it: it may have been passed on, as a shell's
``$(python …)`` does."""

_NOT_READABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class KeptFiles:
    """The copy of one checkpoint.

    Below its place lie ``files``, with what was saved; ``kept.json``, which says what of that is whole, and whose time is when somebody
    asked last; and ``users``, with a file for each process that was given a path. The directory ``users`` beside all places has a file of
    the same name, which the process has locked for as long as it lives: one for all that it uses, since files that it may open are few.

    A file is there for others once it stands in ``kept.json``, which is replaced whole, and as long as its length and time are those that
    stand there: whatever else lies around is as if it were not there.

    Args:
        place: Where it lies, absolute; need not exist.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._files = place / "files"
        self._said = place / "kept.json"
        self._users = place / "users"
        self._processes = place.parent.parent / "users"

    # --- what is there ----------------------------------------------------------------------------------------------

    def find(self, name: str) -> Path | None:
        """Return where a file or a directory of the checkpoint lies; None if it is not here, not whole, or was changed.

        Args:
            name: Its normal path as it was saved; `WHOLE` for all.
        """
        whole, stamps = self._read()
        inside = [one for one in stamps if _is_in(one, name)]
        if (
            not (inside or name == WHOLE)
            or not whole.intersection((name, *parents_of(name), WHOLE))
            or not self.holds(inside, stamps)
        ):
            return None
        return self._files if name == WHOLE else self._files / name

    def holds(self, names: Iterable[str], stamps: Stamps | None = None) -> bool:
        """Tell whether files, links and directories are here as they were saved.

        Args:
            names: Their paths.
            stamps: What they are to look like; what was written down of them if not given.
        """
        known = self._read()[1] if stamps is None else stamps
        return all(name in known and _is_still(self._files / name, known[name]) for name in names)

    def size_bytes(self) -> int:
        """Return how much its files hold."""
        return sum(stamp[0] for stamp in self._read()[1].values() if stamp is not None)

    def add(self, staged: Path, names: Iterable[str], wanted: str) -> None:
        """Take in what was fetched; only who has locked the checkpoint may.

        Args:
            staged: The directory that it lies in, on the same file system.
            names: What was fetched: files, links and directories.
            wanted: What is whole with that.

        Raises:
            OSError: It cannot be written.
        """
        whole, stamps = self._read()
        self._files.mkdir(parents=True, exist_ok=True)
        for name in names:
            source, target = staged / name, self._files / name
            mode = source.lstat().st_mode
            if stat.S_ISDIR(mode):
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                if stat.S_ISREG(mode) and os.name != "nt":
                    # Nobody is to edit the copy, taking it for a file of their own. It can still be removed, but on Windows.
                    source.chmod(stat.S_IMODE(mode) & ~0o222)
                source.replace(target)
            stamps[name] = file_stamp(target) if stat.S_ISREG(mode) else None
        whole.add(wanted)
        written = self._said.with_suffix(".new")
        written.write_text(json.dumps({"whole": sorted(whole), "files": stamps}), encoding="utf-8")
        # Not synced: after a power cut a file that lacks something has another length, and is fetched again.
        written.replace(self._said)

    def _read(self) -> tuple[set[str], dict[str, tuple[int, int] | None]]:
        try:
            said = json.loads(self._said.read_bytes())
            stamps = {
                name: (int(stamp[0]), int(stamp[1])) if stamp is not None else None for name, stamp in said["files"].items()
            }
            return set(said["whole"]), stamps
        except _NOT_READABLE:
            return set(), {}

    # --- who uses it ------------------------------------------------------------------------------------------------

    def use(self) -> None:
        """Say that this process uses it, until it ends; does nothing where the cache can only be read, since nobody can remove it then."""
        with suppress(OSError):
            os.utime(self._said)
        with suppress(OSError):
            mark = self._users / _own_name(self._processes)
            self._users.mkdir(parents=True, exist_ok=True)
            mark.touch()
            _own_marks.add(mark)

    def is_used(self) -> bool:
        """Tell whether somebody may still use a path that was handed out; forgets the processes that have ended."""
        if abs(time.time() - self.last_used()) < IN_USE_S:
            return True
        try:
            marks = list(self._users.iterdir())
        except OSError:
            return False
        # All of them: those of processes that have ended are removed on the way.
        alive = [mark for mark in marks if self._is_alive(mark)]
        return bool(alive)

    def _is_alive(self, mark: Path) -> bool:
        path = self._processes / mark.name
        with suppress(OSError):
            if path.exists():
                lock = ProcessLock(path)
                if not lock.acquire():
                    return True
                alive = not lock.is_real and time.time() - mark.stat().st_mtime < LEFT_BEHIND_S
                lock.release(remove=not alive)
                if alive:
                    return True
            mark.unlink()
        return False

    def last_used(self) -> float:
        """Return when somebody asked for it last, in seconds since the epoch; 0 where nothing is whole yet."""
        try:
            return self._said.stat().st_mtime
        except OSError:
            return 0.0


_own_locks: dict[Path, tuple[Path, ProcessLock]] = {}
"""What says that this process lives, by the directory that it says so in: the file, and the lock on it."""

_own_marks: set[Path] = set()
"""The files of this process among the users of what it uses; they would only be in the way of others when it has ended."""


def _own_name(directory: Path) -> str:
    """Return the name under which this process says in a directory that it lives."""
    path, lock = _own_locks.get(directory, (None, None))
    if path is None or not path.exists():
        if lock is not None:
            # Somebody has removed the cache.
            lock.release()
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{os.getpid()}-{os.urandom(8).hex()}"
        lock = ProcessLock(path)
        lock.acquire()
        _own_locks[directory] = path, lock
    return path.name


def _leave() -> None:
    for mark in _own_marks:
        with suppress(OSError):
            mark.unlink()
    for _, lock in _own_locks.values():
        lock.release()
    _forget()


def _forget() -> None:
    _own_marks.clear()
    _own_locks.clear()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    # They stay the parent's.
    os.register_at_fork(after_in_child=_forget)


def _is_in(name: str, directory: str) -> bool:
    return directory in (WHOLE, name) or name.startswith(f"{directory}/")


def _is_still(path: Path, stamp: tuple[int, int] | None) -> bool:
    try:
        return file_stamp(path) == stamp if stamp is not None else os.path.lexists(path)
    except OSError:
        return False


def normal_name(path: str | os.PathLike[str]) -> str:
    """Return a path as names in an archive are written.

    Example:
        >>> normal_name("out/../model.pt"), normal_name("")
        ('model.pt', '.')
    """
    return posixpath.normpath(os.fspath(path).replace(os.sep, "/"))
