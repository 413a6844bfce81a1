"""Archives: gzip-compressed tar files, written and read as streams, and never trusted when they are read.

What goes into an archive is chosen by `keepsake.capture.files`; where it lies is `keepsake.repository.repository`'s business.
The bytes are described in ``docs/format.md``.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import io
import os
import posixpath
import stat
import tarfile
import tempfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO, Literal, Self, TypeAlias, cast

from isal import igzip, isal_zlib

from keepsake import messages
from keepsake.exceptions import DoesNotExist, ReadError, StorageError, WriteError
from keepsake.repository.records import ArchiveInfo

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from _typeshed import WriteableBuffer

    from keepsake.capture.files import FileEntry

Kind: TypeAlias = Literal["file", "directory", "link"]

CHUNK_BYTES = 1 << 20
WHOLE_FILE_BYTES = 1 << 20
"""Files up to this size are read before their header is written, so that a change meanwhile cannot make the two differ."""

MEMORY_BYTES = 64 << 20
"""A single file that is opened is kept in memory up to this size, and in a temporary file beyond."""

GZIP_LEVEL = 1
"""isal's level 1: some 25 times as fast as the standard library's default, at the same size for weights."""

_GZIP_WRAPPER = 31
"""zlib's ``wbits`` for the largest window in a gzip wrapper, whose header then holds no time and no name (zlib manual)."""

MAX_LINKS = 40
"""How many links Linux follows before it gives up."""

MAX_HEADER_BYTES = 1 << 16
"""More than the longest path and link take in an extended header, and little enough to be read at once."""

MAX_TIME = 1 << 36
"""Seconds since 1970 that `datetime` and file systems can hold: some 2,000 years."""

# --- writing --------------------------------------------------------------------------------------------------------


class PackedStream(io.RawIOBase):
    """The bytes of an archive, made while they are read.

    Args:
        tar: What makes the uncompressed tar.
    """

    def __init__(self, tar: _Packer) -> None:
        super().__init__()
        self._tar = tar
        self._chunks = tar.chunks()
        self._compressor = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WRAPPER)
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._buffer = memoryview(b"")
        self._ended = False
        self._failed = False

    @property
    def info(self) -> ArchiveInfo:
        """What to announce of the archive; known once all of it has been read."""
        if not self._ended or self._buffer:
            raise ValueError("the archive has not been read to its end")
        return ArchiveInfo(self._size_bytes, self._digest.hexdigest(), self._tar.files)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer; only at the end with less than it takes."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view):
            if not self._buffer:
                if self._ended:
                    break
                self._buffer = memoryview(self._compressed_piece())
            count = min(len(view) - filled, len(self._buffer))
            view[filled : filled + count] = self._buffer[:count]
            self._buffer = self._buffer[count:]
            filled += count
        return filled

    def close(self) -> None:
        """Close the file that is just being read."""
        self._chunks.close()
        super().close()

    def _compressed_piece(self) -> bytes:
        if self._failed:
            # The generator is over after an error; going on would pass a part of the archive off as the whole.
            raise ReadError("the archive could not be packed")
        try:
            chunk = next(self._chunks, None)
        except BaseException:
            self._failed = True
            raise
        piece: bytes = self._compressor.flush() if chunk is None else self._compressor.compress(chunk)
        self._ended = chunk is None
        self._digest.update(piece)
        self._size_bytes += len(piece)
        return piece


def pack(entries: Sequence[FileEntry], prefix: str) -> PackedStream:
    """Return the archive of some files as a stream; nothing is read before the stream is.

    Paths are sorted and begin with ``prefix``. Modes and times are kept, owners are not, so equal trees give equal archives.
    What has vanished since it was listed, or is something else by now, is left out with a warning, unless nothing else is
    to be saved.

    Args:
        entries: What goes in.
        prefix: First component of every path: the ID.

    Raises:
        ReadError: While reading: a file shrank while it was saved, or the only one is not there any more.
        OSError: While reading: a file cannot be read.
    """
    return PackedStream(_Packer(sorted(entries, key=lambda entry: entry.name), prefix))


class _NotThere(Exception):
    """What was listed has vanished, or is something else by now."""


class _Packer:
    """Makes the uncompressed tar, piece by piece.

    Attributes:
        files: How many files and links went in so far.
    """

    def __init__(self, entries: Sequence[FileEntry], prefix: str) -> None:
        self._entries = entries
        self._prefix = prefix
        self.files = 0

    def chunks(self) -> Generator[bytes]:
        for entry in self._entries:
            try:
                yield from self._entry(entry)
            except _NotThere as err:
                if len(self._entries) == 1:
                    raise ReadError(f"{entry.source} {err} before it was saved") from err
                messages.warning(f"{entry.source} {err} before it was saved; it is left out")
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _entry(self, entry: FileEntry) -> Iterator[bytes]:
        header = tarfile.TarInfo(f"{self._prefix}/{entry.name}")
        if entry.kind == "file":
            yield from self._file(header, entry.source)
            return
        try:
            status = entry.source.lstat()
        except (FileNotFoundError, NotADirectoryError) as err:
            raise _NotThere("vanished") from err
        header.mtime = max(0, int(status.st_mtime))
        if entry.kind == "link":
            header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link_target or "", 0o777
            self.files += 1
        else:
            header.type, header.mode = tarfile.DIRTYPE, stat.S_IMODE(status.st_mode) & 0o777
        yield _header_bytes(header)

    def _file(self, header: tarfile.TarInfo, source: Path) -> Iterator[bytes]:
        with _open_plain_file(source) as file:
            status = os.fstat(file.fileno())
            header.mode = stat.S_IMODE(status.st_mode) & 0o777
            header.mtime = max(0, int(status.st_mtime))
            header.size = status.st_size
            if header.size <= WHOLE_FILE_BYTES:
                # A file that grows meanwhile, such as a log, is cut as a longer one would be.
                content = file.read(WHOLE_FILE_BYTES)
                header.size = len(content)
                yield _header_bytes(header)
                yield content
            else:
                yield _header_bytes(header)
                yield from _exactly(file, header.size, source)
        self.files += 1
        yield bytes(-header.size % tarfile.BLOCKSIZE)


def _open_plain_file(source: Path) -> BinaryIO:
    """Open a file without following a link or waiting for a pipe that took its place."""
    try:
        file = open(source, "rb", opener=_open_as_it_is)  # noqa: SIM115 - the caller closes it
    except (FileNotFoundError, NotADirectoryError) as err:
        raise _NotThere("vanished") from err
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _NotThere("was replaced by something that is no plain file") from err
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _NotThere("was replaced by something that is no plain file")
    return file


def _open_as_it_is(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _exactly(file: BinaryIO, size: int, source: Path) -> Iterator[bytes]:
    left = size
    while left:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise ReadError(f"{source} changed while it was being saved: {left:,} of {size:,} bytes are gone")
        left -= len(chunk)
        yield chunk


def _header_bytes(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


# --- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One entry of an archive.

    Args:
        path: Its path without the ID in front.
        size_bytes: Its length; 0 for directories and links.
        mode: Permission bits.
        modified: When the file was last changed, in UTC.
        kind: What it is.
        link_target: Where a link points to.
    """

    path: str
    size_bytes: int
    mode: int
    modified: datetime
    kind: Kind
    link_target: str | None


def list_files(stream: BinaryIO, *, where: str = "") -> list[ArchivedFile]:
    """Return what an archive holds, in its order.

    Args:
        stream: The archive.
        where: What to call it in errors.

    Raises:
        ReadError: It is damaged or unsafe.
    """
    with _Reader(stream, where) as reader:
        return list(reader.entries())


def extract(stream: BinaryIO, target: Path, *, only: str | None = None, where: str = "") -> list[str]:
    """Write an archive's files below a directory, or one file or directory of them; return their names.

    The archive is read to its end, whatever is wanted of it. After an error nothing that was written is left.

    Args:
        stream: The archive.
        target: An existing directory in which nothing else of these names lies.
        only: The one file or directory that is wanted, by whole segments.
        where: What to call the archive in errors.

    Raises:
        DoesNotExist: ``only`` is not in the archive.
        ReadError: The archive is damaged, or holds what must not be written; nothing is ever written outside of ``target``.
        WriteError: A file could not be written.
    """
    wanted = posixpath.normpath(only) if only is not None else "."
    seen: list[str] = []
    written: list[str] = []
    with _Reader(stream, where) as reader, _Extraction(target) as extraction:
        for entry in reader.entries():
            seen.append(entry.path)
            if wanted == "." or entry.path == wanted or entry.path.startswith(f"{wanted}/"):
                extraction.write(entry, reader.content())
                written.append(entry.path)
    if only is not None and not written:
        raise _no_such_file(only, seen, where)
    return written


def open_file(stream: BinaryIO, path: str, *, where: str = "") -> BinaryIO:
    """Return a seekable stream over one file of an archive, in memory if it is small and in a temporary file otherwise.

    Args:
        stream: The archive.
        path: The file's path without the ID in front.
        where: What to call the archive in errors.

    Raises:
        DoesNotExist: The archive has no such file.
        ReadError: The archive is damaged or unsafe.
    """
    wanted = posixpath.normpath(path)
    seen: list[str] = []
    copy: BinaryIO | None = None
    try:
        with _Reader(stream, where) as reader:
            for entry in reader.entries():
                seen.append(entry.path)
                if entry.path == wanted and entry.kind == "link":
                    inside = posixpath.normpath(posixpath.join(posixpath.dirname(wanted), entry.link_target or ""))
                    raise DoesNotExist(f'"{path}" in {where or "the archive"} is a link', hint=f'open "{inside}"')
                if entry.path == wanted and entry.kind == "file":
                    small = entry.size_bytes <= MEMORY_BYTES
                    copy = io.BytesIO() if small else cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115
                    for chunk in reader.content():
                        copy.write(chunk)
    except BaseException:
        if copy is not None:
            copy.close()
        raise
    if copy is None:
        raise _no_such_file(path, seen, where)
    copy.seek(0)
    return copy


_DAMAGE: tuple[type[Exception], ...] = (
    *(tarfile.TarError, EOFError, zlib.error, cast("type[Exception]", isal_zlib.error), OSError),
    # What tarfile lets pass of headers that make no sense.
    *(ValueError, OverflowError, IndexError, RecursionError),
)
"""What reading damaged bytes may raise."""


class _Unzipped:
    """The uncompressed tar, from its beginning to its end and never back: as much of a file as `tarfile` needs."""

    def __init__(self, stream: BinaryIO) -> None:
        self._gzip = igzip.IGzipFile(fileobj=stream, mode="rb")  # type: ignore[no-untyped-call]
        self._position = 0
        self.last_read = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("an entry leads backwards")
        while self._position < position:
            if not self.read_content(min(CHUNK_BYTES, position - self._position)):
                raise EOFError("it ends inside a file")

    def read(self, size: int) -> bytes:
        """Read a header for `tarfile`, which would take one of any size."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.read_content(size)

    def read_content(self, size: int) -> bytes:
        self.last_read = self._gzip.read(size)
        self._position += len(self.last_read)
        return self.last_read

    def close(self) -> None:
        self._gzip.close()


class _Reader:
    """One pass through an archive, which checks that it is whole, and that each entry may be written.

    Args:
        stream: The archive.
        where: What to call it in errors.
    """

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._where = where or "the archive"
        self._unzipped = _Unzipped(stream)
        self._member = tarfile.TarInfo()
        self._left = 0
        self._root: str | None = None
        self._kinds: dict[str, Kind] = {}
        self._links: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unzipped.close()

    def entries(self) -> Iterator[ArchivedFile]:
        """Yield the entries; at the end, check the archive as a whole."""
        with self._damage():
            tar = tarfile.open(fileobj=cast("BinaryIO", self._unzipped), mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - there is nothing to close
        while True:
            with self._damage():
                member = tar.next()
                tar.members = []  # type: ignore[attr-defined]  # or it would keep them all
                if member is None:
                    self._check_end()
                    break
                if member.size < 0:
                    raise tarfile.ReadError("a file of negative size")
            self._member, self._left = member, member.size if member.isreg() else 0
            kind = self._kind()
            name = self._name()
            if name:
                self._take_place(name, kind)
                yield _entry(member, name, kind)
            elif kind != "directory":
                raise self._unsafe("has no directory in front")
        self._check_links()

    def content(self) -> Iterator[bytes]:
        """Yield the content of the entry that was yielded last."""
        while self._left:
            with self._damage():
                chunk = self._unzipped.read_content(min(CHUNK_BYTES, self._left))
                if not chunk:
                    raise EOFError("it ends inside a file")
            self._left -= len(chunk)
            yield chunk

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turn whatever reading damaged bytes leads to into one error."""
        try:
            yield
        except StorageError:
            raise
        except _DAMAGE as err:
            raise ReadError(f"{self._where} is damaged: {err}") from err

    def _check_end(self) -> None:
        # tarfile stops silently at a header that it does not understand, and where there is none.
        if not self._unzipped.last_read:
            raise EOFError("it ends too early")
        while True:
            if self._unzipped.last_read.strip(b"\0"):
                raise tarfile.ReadError("a header that makes no sense")
            if not self._unzipped.read_content(CHUNK_BYTES):
                return

    def _kind(self) -> Kind:
        if self._member.issparse() or not (self._member.isfile() or self._member.isdir() or self._member.issym()):
            raise self._unsafe("is neither a file nor a directory nor a symbolic link")
        return "directory" if self._member.isdir() else "link" if self._member.issym() else "file"

    def _name(self) -> str:
        """Return the name without the ID in front; empty for the directory of the ID itself."""
        parts = self._member.name.split("/")
        if self._member.name.startswith("/") or ".." in parts or "\0" in self._member.name:
            raise self._unsafe("leaves the directory")
        root, *inner = [part for part in parts if part not in ("", ".")] or [""]
        if self._root is None:
            self._root = root
        if root != self._root:
            raise self._unsafe(f"lies beside {self._root!r}")
        if any(PurePath(part).parts != (part,) for part in inner):
            # A backslash or a drive where the system knows them.
            raise self._unsafe("leaves the directory")
        return "/".join(inner)

    def _take_place(self, name: str, kind: Kind) -> None:
        """Refuse what is there twice, and what lies behind a link or below a file."""
        for parent in _parents(name):
            if self._kinds.setdefault(parent, "directory") != "directory":
                raise self._unsafe(f"lies behind the {self._kinds[parent]} {parent!r}")
        taken = self._kinds.get(name)
        if taken is not None and not taken == kind == "directory":
            raise self._unsafe("is there twice")
        self._kinds[name] = kind
        if kind == "link":
            self._links[name] = self._member.linkname
            if self._member.linkname.startswith("/") or "\0" in self._member.linkname:
                raise self._unsafe(f"is a link that leaves the directory (to {self._member.linkname!r})")

    def _check_links(self) -> None:
        """Follow each link as the system would, other links on its way included."""
        for name, target in self._links.items():
            if _leaves(name, self._links):
                raise self._unsafe(f"holds a link that leaves the directory ({name!r} to {target!r})", whole=True)

    def _unsafe(self, why: str, *, whole: bool = False) -> ReadError:
        what = why if whole else f"{self._member.name!r} {why}"
        return ReadError(f"{self._where} is not safe to open: {what}; nothing of it is used")


def _leaves(name: str, links: Mapping[str, str]) -> bool:
    """Tell whether a link leads out of the tree."""
    place: list[str] = []
    waiting = name.split("/")[::-1]
    followed = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            if not place:
                return True
            place.pop()
        elif part not in ("", "."):
            place.append(part)
        target = links.get("/".join(place))
        if target is not None and part not in ("", ".", ".."):
            followed += 1
            if followed > MAX_LINKS:
                return False
            place.pop()
            waiting += target.split("/")[::-1]
    return False


class _Extraction:
    """Writes entries below a directory, and takes all of it back after an error.

    Args:
        target: The directory.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def write(self, entry: ArchivedFile, content: Iterator[bytes]) -> None:
        """Write one entry."""
        path = self._target / entry.path
        with self._refused(path):
            for parent in reversed(_parents(entry.path)):
                self._make_directory(self._target / parent)
            if entry.kind == "directory":
                self._make_directory(path)
                path.chmod(entry.mode | stat.S_IRWXU)
            elif entry.kind == "link":
                path.symlink_to(entry.link_target or "")
                self._made.append(path)
            else:
                # Exclusive creation never follows a link and never opens what is there already.
                with path.open("xb") as file:
                    self._made.append(path)
                    for chunk in content:
                        file.write(chunk)
                path.chmod(entry.mode | stat.S_IRUSR | stat.S_IWUSR)
                os.utime(path, times=(entry.modified.timestamp(),) * 2)

    def _make_directory(self, path: Path) -> None:
        try:
            path.mkdir()
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise
        else:
            self._made.append(path)

    @contextmanager
    def _refused(self, path: Path) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as err:
            raise WriteError(f"cannot write {path}: {err.strerror or err}", url=f"file://{self._target}") from err


def _entry(member: tarfile.TarInfo, name: str, kind: Kind) -> ArchivedFile:
    # A time that no file system holds is none; this also leaves out "nan".
    modified = member.mtime if 0 <= member.mtime < MAX_TIME else 0
    return ArchivedFile(
        path=name,
        size_bytes=member.size if kind == "file" else 0,
        mode=member.mode & 0o777,
        modified=datetime.fromtimestamp(modified, UTC),
        kind=kind,
        link_target=member.linkname if kind == "link" else None,
    )


def _parents(name: str) -> list[str]:
    """Return the directories above a name, the nearest first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _no_such_file(path: str, names: Sequence[str], where: str) -> DoesNotExist:
    close = difflib.get_close_matches(path, names, n=3)
    facts = [f"close to it: {', '.join(close)}"] if close else [f"it holds: {', '.join(names[:10])}"] if names else []
    return DoesNotExist(f'no file "{path}" in {where or "the archive"}', facts=facts)
