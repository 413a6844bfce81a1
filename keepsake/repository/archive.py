"""Archives: gzip-compressed tar files, written and read as streams, and never trusted when they are read.

What goes into an archive is chosen by `keepsake.capture.files`; where it lies is `keepsake.repository.repository`'s business.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from isal import igzip, isal_zlib

from keepsake import messages
from keepsake.exceptions import DoesNotExist, ReadError
from keepsake.repository.records import ArchiveInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from _typeshed import WriteableBuffer

    from keepsake.capture.files import FileEntry

CHUNK_BYTES = 1 << 20
WHOLE_FILE_BYTES = 1 << 20
"""Files up to this size are read before their header is written, so that a change meanwhile cannot make the two differ."""

MEMORY_BYTES = 64 << 20
"""A single file that is opened is kept in memory up to this size, and in a temporary file beyond."""

GZIP_LEVEL = 1
"""isal's level 1: some 25 times as fast as the standard library's default, at the same size for weights."""

_GZIP_WRAPPER = 31
"""zlib's ``wbits`` for the largest window in a gzip wrapper, whose header then holds no time and no name (zlib manual)."""


class PackedStream(io.RawIOBase):
    """The bytes of an archive, made while they are read.

    Args:
        chunks: The uncompressed tar, in pieces.
        files: How many files it holds.
    """

    def __init__(self, chunks: Iterator[bytes], files: int) -> None:
        super().__init__()
        self._chunks = chunks
        self._files = files
        self._compressor = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WRAPPER)
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._buffer = memoryview(b"")
        self._ended = False

    @property
    def info(self) -> ArchiveInfo:
        """What to announce of the archive; known once all of it has been read."""
        if not self._ended or self._buffer:
            raise ValueError("the archive has not been read to its end")
        return ArchiveInfo(self._size_bytes, self._digest.hexdigest(), self._files)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as the next piece goes; 0 at the end."""
        view = memoryview(buffer).cast("B")
        while not self._buffer and not self._ended:
            self._buffer = memoryview(self._compressed_piece())
        count = min(len(view), len(self._buffer))
        view[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count

    def _compressed_piece(self) -> bytes:
        chunk = next(self._chunks, None)
        if chunk is None:
            self._ended = True
            piece: bytes = self._compressor.flush()
        else:
            piece = self._compressor.compress(chunk)
        self._digest.update(piece)
        self._size_bytes += len(piece)
        return piece


def pack(entries: Sequence[FileEntry], prefix: str) -> PackedStream:
    """Return the archive of some files as a stream; nothing is read before the stream is.

    Paths are sorted and begin with ``prefix``. Modes and times are kept, owners are not, so equal trees give equal archives.

    Args:
        entries: What goes in.
        prefix: First component of every path: the ID.

    Raises:
        ReadError: While reading: a file changed its size while it was saved.
        OSError: While reading: a file cannot be read.
    """
    ordered = sorted(entries, key=lambda entry: entry.name)
    files = sum(entry.kind != "directory" for entry in ordered)
    return PackedStream(_tar(ordered, prefix), files)


def _tar(entries: Sequence[FileEntry], prefix: str) -> Iterator[bytes]:
    for entry in entries:
        header = tarfile.TarInfo(f"{prefix}/{entry.name}")
        if entry.kind == "file":
            yield from _tar_file(header, entry.source)
            continue
        status = entry.source.lstat()
        header.mtime = int(status.st_mtime)
        if entry.kind == "link":
            header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link_target or "", 0o777
        else:
            header.type, header.mode = tarfile.DIRTYPE, stat.S_IMODE(status.st_mode) & 0o777
        yield _header_bytes(header)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tar_file(header: tarfile.TarInfo, source: Path) -> Iterator[bytes]:
    try:
        file = source.open("rb")
    except FileNotFoundError:
        messages.warning(f"{source} vanished while it was being saved; it is left out")
        return
    with file:
        status = os.fstat(file.fileno())
        header.mode = stat.S_IMODE(status.st_mode) & 0o777
        header.mtime = int(status.st_mtime)
        header.size = status.st_size
        if header.size <= WHOLE_FILE_BYTES:
            content = file.read(WHOLE_FILE_BYTES + 1)[:WHOLE_FILE_BYTES]
            header.size = len(content)
            yield _header_bytes(header)
            yield content
        else:
            yield _header_bytes(header)
            yield from _exactly(file, header.size, source)
    yield bytes(-header.size % tarfile.BLOCKSIZE)


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


_DAMAGE = (
    tarfile.TarError,
    EOFError,
    UnicodeError,
    zlib.error,
    igzip.BadGzipFile,
    cast("type[Exception]", isal_zlib.error),
)
"""What the libraries raise for an archive that is cut short or altered."""

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
    kind: Literal["file", "directory", "link"]
    link_target: str | None


def list_files(stream: BinaryIO, *, where: str = "") -> list[ArchivedFile]:
    """Return what an archive holds, in its order.

    Args:
        stream: The archive.
        where: What to call it in errors.

    Raises:
        ReadError: It is damaged or unsafe.
    """
    with _open_tar(stream, where) as tar:
        return [_described(member, name) for member, name in _members(tar, where)]


def extract(stream: BinaryIO, target: Path, *, only: str | None = None, where: str = "") -> list[str]:
    """Write an archive's files below a directory, or one file or directory of them; return their names.

    Args:
        stream: The archive.
        target: An existing, empty directory. After an error it may hold a part of the archive.
        only: The one file or directory that is wanted, by whole segments.
        where: What to call the archive in errors.

    Raises:
        DoesNotExist: ``only`` is not in the archive.
        ReadError: The archive is damaged, or holds what must not be written; nothing is ever written outside of ``target``.
    """
    wanted = posixpath.normpath(only) if only is not None else None
    written: list[str] = []
    seen: list[str] = []
    with _open_tar(stream, where) as tar:
        for member, name in _members(tar, where):
            seen.append(name)
            if wanted in (None, ".") or name == wanted or name.startswith(f"{wanted}/"):
                _write(tar, member, target, name, where)
                written.append(name)
    if only is not None and not written:
        raise _not_there(only, seen, where)
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
    with _open_tar(stream, where) as tar:
        for member, name in _members(tar, where):
            seen.append(name)
            if name == wanted and member.issym():
                inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                raise DoesNotExist(f'"{path}" in {where} is a link', hint=f'open "{inside}"')
            if name == wanted and member.isfile():
                small = member.size <= MEMORY_BYTES
                copy = io.BytesIO() if small else cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115
                shutil.copyfileobj(cast("BinaryIO", tar.extractfile(member)), copy, CHUNK_BYTES)
    if copy is None:
        raise _not_there(path, seen, where)
    copy.seek(0)
    return copy


@contextmanager
def _open_tar(stream: BinaryIO, where: str) -> Iterator[tarfile.TarFile]:
    """Open an archive for one pass, and make sure at the end that it was whole to its last byte."""
    try:
        with igzip.IGzipFile(fileobj=stream, mode="rb") as unzipped:  # type: ignore[no-untyped-call]
            with tarfile.open(fileobj=unzipped, mode="r|", errorlevel=2) as tar:
                yield tar
            while unzipped.read(CHUNK_BYTES):
                pass
    except _DAMAGE as err:
        raise ReadError(f"{where or 'the archive'} is damaged: {err}") from err


def _members(tar: tarfile.TarFile, where: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield the members with their names below the ID, each of them safe to write."""
    links: set[str] = set()
    for member in tar:
        name = _safe_name(member, where)
        if name is None:
            continue
        parents = {parent for parent in _parents(name) if parent in links}
        if parents or name in links:
            raise _unsafe(member, "lies behind a link", where)
        if member.issym():
            _check_link(member, name, where)
            links.add(name)
        yield member, name


def _safe_name(member: tarfile.TarInfo, where: str) -> str | None:
    """Return the name without the ID in front, or None for the directory of the ID itself."""
    if not (member.isfile() or member.isdir() or member.issym()):
        raise _unsafe(member, "is a device, a pipe or a hard link", where)
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\0" in member.name or "\\" in member.name:
        raise _unsafe(member, "leaves the directory", where)
    kept = [part for part in parts if part not in ("", ".")][1:]
    return "/".join(kept) if kept else None


def _check_link(member: tarfile.TarInfo, name: str, where: str) -> None:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
    if member.linkname.startswith("/") or target == ".." or target.startswith("../") or "\0" in member.linkname:
        raise _unsafe(member, f"is a link that leaves the directory (to {member.linkname})", where)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, name: str, where: str) -> None:
    path = target / name
    try:
        for parent in reversed(_parents(name)):
            _make_directory(target / parent)
        if member.isdir():
            _make_directory(path)
        elif member.issym():
            path.symlink_to(member.linkname)
        else:
            # Exclusive creation never follows a link and never opens what is there already.
            mode = (member.mode & 0o777) | stat.S_IRUSR | stat.S_IWUSR
            with path.open("xb") as file:
                shutil.copyfileobj(cast("BinaryIO", tar.extractfile(member)), file, CHUNK_BYTES)
                path.chmod(mode)
            os.utime(path, (member.mtime, member.mtime))
    except FileExistsError as err:
        raise _unsafe(member, "is there twice", where) from err
    except OSError as err:
        raise ReadError(f"cannot extract {name} of {where or 'the archive'}: {err}") from err


def _make_directory(path: Path) -> None:
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise


def _parents(name: str) -> list[str]:
    """Return the directories above a name, the nearest first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _described(member: tarfile.TarInfo, name: str) -> ArchivedFile:
    kind: Literal["file", "directory", "link"] = "directory" if member.isdir() else "link" if member.issym() else "file"
    return ArchivedFile(
        path=name,
        size_bytes=member.size if kind == "file" else 0,
        mode=member.mode & 0o777,
        modified=datetime.fromtimestamp(member.mtime, UTC),
        kind=kind,
        link_target=member.linkname if kind == "link" else None,
    )


def _unsafe(member: tarfile.TarInfo, why: str, where: str) -> ReadError:
    return ReadError(f"{where or 'the archive'} is not safe to open: {member.name!r} {why}; nothing of it is used")


def _not_there(path: str, names: Sequence[str], where: str) -> DoesNotExist:
    close = difflib.get_close_matches(path, names, n=3)
    facts = [f"close to it: {', '.join(close)}"] if close else [f"it holds: {', '.join(names[:10])}"] if names else []
    return DoesNotExist(f'no file "{path}" in {where or "the archive"}', facts=facts)
