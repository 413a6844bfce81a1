"""Objects as files below a directory. What keys mean belongs to `keepsake.repository`."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, BinaryIO

from keepsake.exceptions import AccessDenied, ObjectNotFound, ReadError, StorageError, WriteError
from keepsake.storage.base import PIECE_BYTES, Body, ObjectInfo, Storage, check_key, check_prefix, in_prefix, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from _typeshed import WriteableBuffer

TEMPORARY_DIRECTORY = ".tmp"
"""Where files lie while they are written: beside the keys and not among them, because keepsake 0.4.2 reads every file in
``metadata/experiments`` whatever its name. Keys and prefixes that begin with it are refused."""

_NO_OBJECT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""No file, a file where the key has a directory, a directory where the key has a file: no object in each case."""

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)
"""How file systems that cannot sync a directory, such as some network and FUSE ones, say so."""


class DiskStorage:
    """A directory.

    A write goes to a temporary name on the same file system, is synced, and renamed into place; then the directory is synced. The
    temporary name begins with the ID of the writing process: if no such process lives on the machines that share the
    directory, the file is a leftover of one that was killed.

    Files are listed whoever wrote them, if their names can be keys; links to directories are read through but not listed through.
    Directories that have become empty stay: removing them would race with writers that have just found them.

    Args:
        root: The directory; made at the first write.

    Example:
        >>> DiskStorage("/data/experiments").url
        'file:///data/experiments'
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    @property
    def url(self) -> str:
        """The directory as a file URL, spelled without percent-encoding as in keepsake.yaml."""
        return f"file://{self.root}"

    def __repr__(self) -> str:
        return f"DiskStorage({str(self.root)!r})"

    def read(self, key: str) -> bytes:
        with self.open(key) as file:
            return file.read()

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

    def write(self, key: str, body: Body) -> None:
        path = self._path(key)
        temporary = self.root / TEMPORARY_DIRECTORY / f"{os.getpid()}-{os.urandom(8).hex()}"

        def errors() -> AbstractContextManager[None]:
            return self._errors(WriteError, "write", key, body=body, temporary=temporary)

        with errors():
            _make_directories(temporary.parent)
            # Unbuffered: the pieces are large, and a buffer would be flushed by close(), where errors are easily lost.
            file = temporary.open("xb", buffering=0)
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
                _make_directories(path.parent)
                temporary.replace(path)
                _sync_directory(path.parent)

    def delete(self, keys: Iterable[str]) -> None:
        for path, key in [(self._path(key), key) for key in keys]:
            with suppress(ObjectNotFound), self._errors(WriteError, "delete", key):
                path.unlink()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        prefix = check_prefix(prefix)
        start = self._path(prefix) if prefix else self.root
        now = time()
        with self._errors(ReadError, "list", prefix):
            found = [_described(key, status, now) for key, status in _files(start, prefix) if _is_key(key)]
        return iter(sorted(found, key=lambda info: info.key.encode()))

    def _path(self, key: str) -> Path:
        if in_prefix(check_key(key), TEMPORARY_DIRECTORY):
            raise ValueError(f"bad storage key {key!r}: names below {TEMPORARY_DIRECTORY} are reserved")
        return self.root / key

    @contextmanager
    def _errors(
        self, kind: type[StorageError], verb: str, key: str, *, body: Body | None = None, temporary: Path | None = None
    ) -> Iterator[None]:
        """Turn the operating system's errors into ours, all in this one place."""
        try:
            yield
        except OSError as err:
            if verb in ("read", "delete") and err.errno in _NO_OBJECT:
                raise ObjectNotFound(f"no object {key} in {self.url}", url=self.url, key=key) from err
            if err.errno in _FORBIDDEN:
                raise AccessDenied(f"cannot {verb} {key} in {self.url}: {err.strerror}", url=self.url, key=key) from err
            if err.errno == errno.ENOSPC:
                known = [f"need {_size_text(need)}" for need in (_size_bytes(body),) if need is not None]
                known += [f"{_size_text(free)} free" for free in (_free_bytes(self.root, temporary),) if free is not None]
                numbers = f" ({', '.join(known)})" if known else ""
                raise WriteError(f"no space left on {self.root}{numbers}", url=self.url, key=key) from err
            if err.errno == errno.EDQUOT:
                raise WriteError(f"disk quota exceeded on {self.root}", url=self.url, key=key) from err
            raise kind(f"cannot {verb} {key} in {self.url}: {err.strerror or err}", url=self.url, key=key) from err


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


def _make_directories(path: Path) -> None:
    """Make a directory and its parents, each durable in its own parent."""
    if path.is_dir():
        return
    _make_directories(path.parent)
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


# --- listing ----------------------------------------------------------------------------------------------------------


def _files(start: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files at and below a path with their keys, in any order; what vanishes meanwhile is left out."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = start.stat()
        if stat.S_ISREG(status.st_mode):
            yield prefix, status
    pending = [(str(start), prefix)]
    while pending:
        directory, parent = pending.pop()
        for entry in _entries(directory):
            key = f"{parent}/{entry.name}" if parent else entry.name
            if entry.is_dir(follow_symlinks=False):
                if key != TEMPORARY_DIRECTORY:
                    pending.append((entry.path, key))
            elif (status_or_none := _status(entry)) and stat.S_ISREG(status_or_none.st_mode):
                # Nothing but a file is an object: opening a named pipe would wait for ever.
                yield key, status_or_none


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
    try:
        return bool(check_key(name))
    except ValueError:
        return False


def _described(key: str, status: os.stat_result, now: float) -> ObjectInfo:
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return ObjectInfo(key, status.st_size, etag, max(0.0, now - status.st_mtime))


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
            return shutil.disk_usage(directory).free + held
    return None


def _size_text(size_bytes: float) -> str:
    """Return a size for people.

    Example:
        >>> [_size_text(size) for size in (12, 12_300, 101_000_000, 4_040_000_000)]
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
