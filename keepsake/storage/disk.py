"""Objects as files below a directory. What keys mean belongs to `keepsake.repository`."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, BinaryIO

from keepsake.exceptions import AccessDenied, ObjectNotFound, ReadError, StorageError, WriteError
from keepsake.storage.base import Body, ObjectInfo, Storage, check_key, check_prefix, in_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEMPORARY_DIRECTORY = ".tmp"
"""Where files lie while they are written: beside the keys and not among them, because keepsake 0.4.2 reads every file in
``metadata/experiments`` whatever its name. No key may begin with it."""

CHUNK_BYTES = 1 << 20

_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""No file, a file where the key has a directory, a directory where the key has a file: no object in each case."""


class DiskStorage:
    """A directory.

    A write goes to a temporary name on the same file system, is synced, and renamed into place; then the directory is synced. The
    temporary name begins with the ID of the writing process, which tells whose it is when the process has died.

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
        """The directory as a file URL."""
        return f"file://{self.root}"

    def __repr__(self) -> str:
        return f"DiskStorage({str(self.root)!r})"

    def read(self, key: str) -> bytes:
        with self.open(key) as file, self._errors(ReadError, "read", key):
            return file.read()

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        with self._errors(ReadError, "read", key):
            return path.open("rb")

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        with self.open(key) as file, self._errors(ReadError, "read", key):
            file.seek(start)
            return file.read(length)

    def write(self, key: str, body: Body) -> None:
        path = self._path(key)
        temporary = self.root / TEMPORARY_DIRECTORY / f"{os.getpid()}-{os.urandom(8).hex()}"
        try:
            with self._errors(WriteError, "write", key):
                _make_directories(temporary.parent)
                file = temporary.open("xb")
            with file:
                for chunk in _chunks(body):
                    with self._errors(WriteError, "write", key):
                        file.write(chunk)
                with self._errors(WriteError, "write", key):
                    file.flush()
                    os.fsync(file.fileno())
            with self._errors(WriteError, "write", key):
                _make_directories(path.parent)
                temporary.replace(path)
                _sync_directory(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def delete(self, keys: Iterable[str]) -> None:
        for path, key in [(self._path(key), key) for key in keys]:
            try:
                with self._errors(WriteError, "delete", key):
                    path.unlink()
            except ObjectNotFound:
                continue

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        prefix = check_prefix(prefix)
        start = self.root / prefix if prefix else self.root
        now = time()
        found: list[ObjectInfo] = []
        with self._errors(ReadError, "list", prefix):
            if prefix and start.is_file():
                found += self._described(start, prefix, now)
            for parent, directories, names in os.walk(start, onerror=_raise_unless_gone):
                if Path(parent) == self.root:
                    directories[:] = [name for name in directories if name != TEMPORARY_DIRECTORY]
                for name in names:
                    path = Path(parent) / name
                    found += self._described(path, path.relative_to(self.root).as_posix(), now)
        yield from sorted(found, key=lambda info: info.key.encode())

    def _described(self, path: Path, key: str, now: float) -> Iterator[ObjectInfo]:
        try:
            check_key(key)
            status = path.stat()
        except (ValueError, FileNotFoundError):
            # A foreign file whose name cannot be a key, or one that has just been deleted.
            return
        etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
        yield ObjectInfo(key, status.st_size, etag, max(0.0, now - status.st_mtime))

    def _path(self, key: str) -> Path:
        if in_prefix(check_key(key), TEMPORARY_DIRECTORY):
            raise ValueError(f"bad storage key {key!r}: names below {TEMPORARY_DIRECTORY} are reserved")
        return self.root / key

    @contextmanager
    def _errors(self, kind: type[StorageError], verb: str, key: str) -> Iterator[None]:
        """Turn the operating system's errors into ours, all in this one place."""
        try:
            yield
        except OSError as err:
            if isinstance(err, StorageError):
                raise
            if verb in ("read", "delete") and err.errno in _NO_SUCH_FILE:
                raise ObjectNotFound(f"no object {key} in {self.url}", url=self.url, key=key) from err
            if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise AccessDenied(f"cannot {verb} {key} in {self.url}: {err.strerror}", url=self.url, key=key) from err
            if err.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.root if self.root.exists() else self.root.parent).free
                raise WriteError(
                    f"no space left on {self.root} ({free:,} bytes free); {key} is not written", url=self.url, key=key
                ) from err
            raise kind(f"cannot {verb} {key} in {self.url}: {err.strerror or err}", url=self.url, key=key) from err


def _chunks(body: Body) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield body
    elif isinstance(body, Path):
        with body.open("rb") as file:
            yield from _chunks(file)
    else:
        while chunk := body.read(CHUNK_BYTES):
            yield chunk


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
    finally:
        os.close(descriptor)


def _raise_unless_gone(err: OSError) -> None:
    if not isinstance(err, FileNotFoundError | NotADirectoryError):
        raise err


if TYPE_CHECKING:
    _: Storage = DiskStorage("")
