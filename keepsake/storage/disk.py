"""Objects as files below a directory. What keys mean belongs to `keepsake.repository`."""

from __future__ import annotations

import errno
import io
import os
import zlib
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from stat import S_ISREG
from time import time
from typing import TYPE_CHECKING, BinaryIO

from keepsake.exceptions import AccessDenied, ObjectNotFound, ReadError, StorageError, WriteError
from keepsake.storage.base import PIECE_BYTES, Body, ObjectInfo, Storage, check_key, check_prefix, in_prefix, is_key, pieces
from keepsake.storage.locks import lock_descriptor, machine_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from _typeshed import WriteableBuffer

MAX_BUFFERS = 1024
"""Into how many buffers one call reads on Linux (``IOV_MAX`` in ``limits.h``)."""

TEMPORARY_DIRECTORY = ".tmp"
"""Where files lie while they are written: beside the keys and not among them, because keepsake 0.4.2 reads every file in
``metadata/experiments`` whatever its name."""

JOURNAL_DIRECTORY = ".journal"
"""Where `keepsake.repository.journal` keeps what is not stored yet."""

RESERVED = (TEMPORARY_DIRECTORY, JOURNAL_DIRECTORY)
"""What lies in the directory and is no object. Keys and prefixes that begin with one of these are refused."""

LEFT_BEHIND_S = 60.0
"""How long nobody has written a temporary file that may be taken for a leftover: more than it takes to lock a new one."""

LEFT_BEHIND_ELSEWHERE_S = 86_400.0
"""The same for a file of another machine, whose locks may not reach this one."""

USUAL_KEY_LENGTH = 200
"""Not too long for a key, nor for a segment of one."""

_NO_OBJECT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""No file, a file where the key has a directory, a directory where the key has a file: no object in each case."""

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)
"""How file systems that cannot sync a directory, such as some network and FUSE ones, say so."""


class DiskStorage:
    """A directory.

    A write goes to a temporary name on the same file system, is synced, and renamed into place; then the directory is synced. The
    temporary file is locked while it is written, so that one of a process that was killed can be told and swept.

    Files are listed whoever wrote them, if their names can be keys; links to directories are read through but not listed through.
    Directories that have become empty stay: removing them would race with writers that have just found them.

    Args:
        root: The directory; made at the first write. Where it has gone after that, such as a file system that is not mounted any more,
            it is not made again: what came into a new one would be hidden when the old one is back.

    Example:
        >>> DiskStorage("/data/experiments").url
        'file:///data/experiments'
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self._was_there = False

    @property
    def url(self) -> str:
        """The directory as a file URL, spelled without percent-encoding as in keepsake.yaml."""
        return f"file://{self.root}"

    def __repr__(self) -> str:
        return f"DiskStorage({str(self.root)!r})"

    def read(self, key: str) -> bytes:
        self._check(key)
        try:
            # Neither a path object nor a context: a first listing reads ten thousand records.
            with io.FileIO(f"{self.root}/{key}") as file:
                return file.readall()
        except OSError as err:
            raise disk_error(err, ReadError, "read", key, self.root) from err

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)

        def errors() -> AbstractContextManager[None]:
            return self._errors(ReadError, "read", key)

        with errors():
            return io.BufferedReader(_File(path, errors))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        with self.open(key) as file:
            with self._errors(ReadError, "read", key):
                size_bytes = os.fstat(file.fileno()).st_size
            if start > size_bytes:
                # File systems refuse offsets from some size on.
                return b""
            file.seek(start)
            # Memory is taken for as much as is asked for. A file that says it is empty need not be: those of the kernel do.
            return file.read(min(length, max(size_bytes - start, PIECE_BYTES)))

    def read_into(self, key: str, start: int, buffers: Sequence[memoryview]) -> bool:
        """Fill buffers, one after the other, with what an object holds from an offset on.

        Args:
            key: The object's key.
            start: The offset in bytes, not negative.
            buffers: What to fill.

        Returns:
            False where the object ends before, or the system reads into one buffer at a time; nothing is said of what they hold then.

        Raises:
            ObjectNotFound: No object has that key.
            ReadError: It cannot be read.
        """
        if not hasattr(os, "preadv"):
            return False
        path = self._path(key)
        with self._errors(ReadError, "read", key), io.FileIO(path) as file:
            return os.preadv(file.fileno(), buffers[:MAX_BUFFERS], start) == sum(map(len, buffers))

    def write(self, key: str, body: Body) -> None:
        path = self._path(key)
        temporary = self.root / TEMPORARY_DIRECTORY / f"{_machine()}-{os.getpid()}-{os.urandom(8).hex()}"

        def errors() -> AbstractContextManager[None]:
            return self._errors(WriteError, "write", key, body=body, temporary=temporary)

        with errors():
            _make_directories(temporary.parent, below=self.root if self._was_there else None)
            self._was_there = True
            # Unbuffered: the pieces are large, and a buffer would be flushed by close(), where errors are easily lost.
            file = temporary.open("xb", buffering=0)
            with suppress(OSError):
                # Without a lock its age must do.
                lock_descriptor(file.fileno())
        with _discarded_on_failure(file, temporary):
            size_bytes = 0
            # Only our own part is under errors(): what the body raises while it is read is the caller's.
            for piece in pieces(body):
                with errors():
                    _write_all(file, piece)
                size_bytes += len(piece)
            with errors():
                os.fsync(file.fileno())
                _check_length(file, size_bytes)
                file.close()
                _make_directories(path.parent, below=self.root)
                temporary.replace(path)
                _sync_directory(path.parent)

    def adopt(self, path: Path, key: str) -> None:
        """Make a file an object by renaming it, as durable as one that was written; afterwards it is gone from its place.

        In constant time where it lies on the same file system, but for what has not reached the disk yet.

        Args:
            path: The file, which nobody writes any more.
            key: The object's key.

        Raises:
            WriteError: The store could not take it; the file is where it was.
            FileNotFoundError: There is no such file.
        """
        target = self._path(key)
        with path.open("rb+") as file, self._errors(WriteError, "write", key, body=path):
            os.fsync(file.fileno())
        try:
            with self._errors(WriteError, "write", key, body=path):
                _make_directories(target.parent, below=self.root)
                path.replace(target)
                _sync_directory(target.parent)
        except WriteError as err:
            if not (isinstance(err.__cause__, OSError) and err.__cause__.errno == errno.EXDEV):
                raise
            self.write(key, path)
            path.unlink()

    def left_behind(self) -> list[tuple[Path, int]]:
        """Return the temporary files of processes that were killed, with their sizes in bytes.

        Raises:
            StorageError: The directory cannot be read.
        """
        now = time()
        found = []
        with self._errors(ReadError, "read", TEMPORARY_DIRECTORY):
            for entry in _entries(str(self.root / TEMPORARY_DIRECTORY)):
                status = _status(entry)
                if status is not None and _is_left_behind(entry, now - status.st_mtime):
                    found.append((Path(entry.path), status.st_size))
        return found

    def sweep(self) -> None:
        """Remove the temporary files of processes that were killed; those that may still be written stay.

        Raises:
            StorageError: The directory cannot be read, or a file not be removed.
        """
        for path, _ in self.left_behind():
            with self._errors(WriteError, "sweep", TEMPORARY_DIRECTORY):
                path.unlink(missing_ok=True)

    def delete(self, keys: Iterable[str]) -> None:
        for path, key in [(self._path(key), key) for key in keys]:
            with suppress(ObjectNotFound), self._errors(WriteError, "delete", key):
                path.unlink()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        prefix = check_prefix(prefix)
        start = self._path(prefix) if prefix else self.root
        with self._errors(ReadError, "list", prefix):
            found = list(_objects(start, prefix, time()))
        # The order of Unicode characters is that of their UTF-8 bytes.
        return iter(sorted(found, key=itemgetter(0)))

    def _path(self, key: str) -> Path:
        self._check(key)
        return self.root / key

    def _check(self, key: str) -> None:
        # Reserved names begin with a dot, and hardly any key does.
        if check_key(key).startswith(".") and any(in_prefix(key, name) for name in RESERVED):
            raise ValueError(f"bad storage key {key!r}: names below {' and '.join(RESERVED)} are reserved")

    @contextmanager
    def _errors(
        self, kind: type[StorageError], verb: str, key: str, *, body: Body | None = None, temporary: Path | None = None
    ) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise disk_error(err, kind, verb, key, self.root, body=body, temporary=temporary) from err


def disk_error(
    err: OSError,
    kind: type[StorageError],
    verb: str,
    key: str,
    root: Path,
    *,
    body: Body | None = None,
    temporary: Path | None = None,
) -> StorageError:
    """Return the operating system's error as ours, all in this one place.

    Args:
        err: What the system said.
        kind: What it is if nothing more is known.
        verb: What was tried.
        key: What with, relative to the root.
        root: The directory.
        body: What was being written.
        temporary: The half-written file, whose room will be free again.
    """
    url = f"file://{root}"
    if verb in ("read", "delete") and err.errno in _NO_OBJECT:
        return ObjectNotFound(f"no object {key} in {url}", url=url, key=key)
    if err.errno in _FORBIDDEN:
        return AccessDenied(f"cannot {verb} {key} in {url}: {err.strerror}", url=url, key=key)
    if (lacking := space_error(err, root, need_bytes=_size_bytes(body), temporary=temporary)) is not None:
        lacking.key = key
        return lacking
    return kind(f"cannot {verb} {key} in {url}: {err.strerror or err}", url=url, key=key)


def space_error(err: OSError, place: Path, *, need_bytes: int | None = None, temporary: Path | None = None) -> WriteError | None:
    """Return the operating system's error as ours if it is about room on a disk; None if it is about something else.

    Args:
        err: What the system said.
        place: The directory that was written to.
        need_bytes: How much was to be written; None where nobody knows.
        temporary: The half-written file, whose room will be free again; None where it is gone.
    """
    if err.errno == errno.ENOSPC:
        return no_space(place, need_bytes, _free_bytes(place, temporary))
    if err.errno == errno.EDQUOT:
        return WriteError(f"disk quota exceeded on {place}", url=f"file://{place}")
    if err.errno == errno.EFBIG:
        size = f" ({size_text(need_bytes)})" if need_bytes is not None else ""
        return WriteError(f"file too large for {place}{size}", url=f"file://{place}")
    return None


def write_error(err: OSError, place: Path, *, facts: Sequence[str] = (), hint: str | None = None) -> WriteError:
    """Return the operating system's error about writing below a directory as ours.

    Args:
        err: What the system said.
        place: The directory.
        facts: Further lines that help to understand it.
        hint: A command that mends it.
    """
    error = space_error(err, place) or WriteError(f"cannot write to {place}: {err.strerror or err}", url=f"file://{place}")
    error.facts, error.hint = tuple(facts), hint
    return error


def no_space(place: Path, need_bytes: int | None, free_bytes: int | None) -> WriteError:
    """Return the error for a lack of room, with the figures that are known."""
    known = [f"need {size_text(need_bytes)}"] if need_bytes is not None else []
    known += [f"{size_text(free_bytes)} free"] if free_bytes is not None else []
    numbers = f" ({', '.join(known)})" if known else ""
    return WriteError(f"no space left on {place}{numbers}", url=f"file://{place}")


class _File(io.FileIO):
    """A file that fails with our errors wherever it is read, long after it was opened."""

    def __init__(self, path: Path, errors: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(path)
        self._errors = errors

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with self._errors():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with self._errors():
            return super().readall()

    def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        with self._errors():
            return super().seek(position, whence)


# --- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def _discarded_on_failure(file: io.FileIO, path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # A failure of the clean-up must not take the place of what went wrong.
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            path.unlink()
        raise


def _write_all(file: io.FileIO, piece: bytes) -> None:
    # One call may take less than it is given, for example at a limit of the file's size.
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _check_length(file: io.FileIO, size_bytes: int) -> None:
    """Make sure that the file system holds what it was given; some that are reached by a network have failed to."""
    arrived = os.fstat(file.fileno()).st_size
    if arrived != size_bytes:
        raise OSError(errno.EIO, f"{arrived} of {size_bytes} bytes arrived")


def _make_directories(path: Path, *, below: Path | None = None) -> None:
    """Make a directory and its parents, each durable in its own parent.

    Args:
        path: The directory.
        below: One of its parents, which is not made.
    """
    if path.is_dir() or path == below:
        return
    _make_directories(path.parent, below=below)
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_dir():
            return
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    if os.name == "nt":
        # Windows cannot open directories, and syncs their entries itself.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as err:
        if err.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _machine() -> str:
    return f"{zlib.crc32(machine_id().encode()):08x}"


def _is_left_behind(entry: os.DirEntry[str], age_s: float) -> bool:
    """Tell whether nobody writes a temporary file any more.

    Its lock tells, and not whether the process lives: its ID may be one of another container. The lock says nothing while the
    file has just been made, nor in the process itself, which would lose its own lock by asking.
    """
    machine, _, rest = entry.name.partition("-")
    if (machine, rest.partition("-")[0]) == (_machine(), str(os.getpid())):
        return False
    if age_s < (LEFT_BEHIND_S if machine == _machine() else LEFT_BEHIND_ELSEWHERE_S):
        return False
    try:
        descriptor = os.open(entry.path, os.O_RDWR)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        return lock_descriptor(descriptor) or age_s >= LEFT_BEHIND_ELSEWHERE_S
    except OSError:
        return False
    finally:
        os.close(descriptor)


# --- listing ----------------------------------------------------------------------------------------------------------


def _objects(start: Path, prefix: str, now: float) -> Iterator[ObjectInfo]:
    """Yield the regular files at and below a path whose names can be keys, in any order; what vanishes meanwhile is left out."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = start.stat()
        if S_ISREG(status.st_mode):
            yield _described(prefix, status, now)
    pending = [(str(start), prefix)]
    while pending:
        directory, parent = pending.pop()
        above = f"{parent}/" if parent else ""
        for entry in _entries(directory):
            key = above + entry.name
            if entry.is_dir(follow_symlinks=False):
                if key not in RESERVED:
                    pending.append((entry.path, key))
            elif _is_key(key) and (found := _status(entry)) and S_ISREG(found.st_mode):
                # Nothing but a file is an object: opening a named pipe would wait for ever.
                yield _described(key, found, now)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError as err:
        # Deleted meanwhile, or a link that leads nowhere or in a circle.
        if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _is_key(name: str) -> bool:
    """Tell whether a file's name can be a key; foreign files may have any."""
    if len(name) <= USUAL_KEY_LENGTH and name.isascii() and name.isprintable() and "\\" not in name:
        # Nearly all of them: a name in a directory is never empty, nor one of those with a meaning of their own.
        return True
    return is_key(name)


def _described(key: str, status: os.stat_result, now: float) -> ObjectInfo:
    size_bytes = status.st_size
    # In decimal digits, which take half the time: there may be a hundred thousand.
    etag = f"{status.st_mtime_ns}-{size_bytes}-{status.st_ino}"
    age_s = now - status.st_mtime
    return ObjectInfo(key, size_bytes, etag, age_s if age_s > 0.0 else 0.0)


# --- a full disk ------------------------------------------------------------------------------------------------------


def _size_bytes(body: Body | None) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    if isinstance(body, Path):
        with suppress(OSError):
            return body.stat().st_size
    return None


def _free_bytes(root: Path, temporary: Path | None) -> int | None:
    """Return the room on a file system, with that of the half-written file, which is about to be removed."""
    held = 0
    if temporary is not None:
        with suppress(OSError):
            held = temporary.stat().st_size
    for directory in (root, *root.parents):
        with suppress(OSError):
            import shutil

            return shutil.disk_usage(directory).free + held
    return None


def size_text(size_bytes: float) -> str:
    """Return a size for people.

    Example:
        >>> [size_text(size) for size in (12, 12_300, 101_000_000, 4_040_000_000)]
        ['12 B', '12.3 kB', '101 MB', '4.04 GB']
    """
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size_bytes < 999.5:  # what would be rounded to 1000 belongs to the next unit
            break
        size_bytes, unit = size_bytes / 1000, larger
    return f"{size_bytes:.3g} {unit}"


if TYPE_CHECKING:
    _: Storage = DiskStorage("")
