"""Reading an archive: by its index where it has one, else from its beginning to its end."""

from __future__ import annotations

import hashlib
import io
import posixpath
import tempfile
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from keepsake.exceptions import DoesNotExist, ReadError
from keepsake.repository.archive import index
from keepsake.repository.archive.extraction import Extraction
from keepsake.repository.archive.files import portions
from keepsake.repository.archive.indexed import IndexedArchive
from keepsake.repository.archive.names import close_names
from keepsake.repository.archive.stream import StreamReader
from keepsake.repository.archive.unpacking import unpack_members, unpack_stream
from keepsake.repository.records import ArchiveInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from _typeshed import WriteableBuffer

    from keepsake.repository.archive.entries import ArchivedFile
    from keepsake.repository.archive.indexed import MemberChecksums

MEMORY_BYTES = 64 << 20
"""A single file that is opened is kept in memory up to this size, and in a temporary file beyond."""

_READ_BYTES = 1 << 20


class Source(index.Ranges, Protocol):
    """An archive where it lies."""

    def open(self) -> BinaryIO:
        """Return a stream over all of it, to be closed by the caller."""
        ...


def list_files(source: Source, *, only: str | None = None, where: str = "") -> list[ArchivedFile]:
    """Return what an archive holds, in its order.

    Args:
        source: The archive.
        only: The one file or directory that is wanted, by whole segments.
        where: What to call it in errors.

    Raises:
        DoesNotExist: ``only`` is not in the archive.
        ReadError: It is damaged or unsafe.
    """
    indexed, _ = indexed_archive(source, where)
    if indexed is not None:
        return _chosen(indexed.entries(), only, where)
    with source.open() as stream, StreamReader(stream, where or "the archive") as reader:
        return _chosen(list(reader.entries()), only, where)


def open_file(source: Source, path: str, *, where: str = "") -> BinaryIO:
    """Return a seekable stream over one file of an archive, in memory if it is small and in a temporary file otherwise.

    Args:
        source: The archive.
        path: The file's path without the ID in front.
        where: What to call the archive in errors.

    Raises:
        DoesNotExist: The archive has no such file.
        ReadError: The archive is damaged or unsafe.
    """
    indexed, _ = indexed_archive(source, where)
    if indexed is not None:
        entry = _wanted(path, indexed.entries(), where)
        return _copied(entry, indexed.content(entry.path, one_by_one=True))
    with source.open() as stream, StreamReader(stream, where or "the archive") as reader:
        wanted = posixpath.normpath(path)
        entries, copy = [], None
        for entry in reader.entries():
            entries.append(entry)
            if entry.path == wanted and entry.kind == "file":
                copy = _copied(entry, reader.content())
        if copy is None:
            _wanted(path, entries, where)
        return cast("BinaryIO", copy)


def _wanted(path: str, entries: Sequence[ArchivedFile], where: str) -> ArchivedFile:
    wanted = posixpath.normpath(path)
    for entry in entries:
        if entry.path == wanted and entry.kind == "link":
            inside = posixpath.normpath(posixpath.join(posixpath.dirname(wanted), entry.link_target or ""))
            raise DoesNotExist(f'"{path}" in {where or "the archive"} is a link', hint=f'open "{inside}"')
        if entry.path == wanted and entry.kind == "file":
            return entry
    raise _no_such_file(path, [entry.path for entry in entries], where)


def _copied(entry: ArchivedFile, content: Iterable[bytes | memoryview]) -> BinaryIO:
    small = entry.size_bytes <= MEMORY_BYTES
    copy: BinaryIO = io.BytesIO() if small else cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115
    try:
        for chunk in content:
            for portion in portions(memoryview(chunk)):
                copy.write(portion)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def extract(
    source: Source,
    target: Path,
    *,
    only: str | None = None,
    among: Collection[str] | None = None,
    where: str = "",
    announced: ArchiveInfo | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write an archive's files below a directory, or one file or directory of them; return their names.

    After an error nothing that was written is left.

    Args:
        source: The archive.
        target: An existing directory in which nothing else of these names lies.
        only: The one file or directory that is wanted, by whole segments.
        among: Names of those that are wanted of these; all if not given.
        where: What to call the archive in errors.
        announced: What the record says of the archive, which must be so.
        on_progress: Called with how many bytes of files have been written since the last call, by any thread.

    Raises:
        DoesNotExist: ``only`` is not in the archive.
        ReadError: The archive is damaged, is not the one that was announced, or holds what must not be written; nothing is ever
            written outside of ``target``.
        WriteError: A file could not be written.
    """
    indexed, index_sha256 = indexed_archive(source, where)
    check_index(announced, index_sha256, where)
    if indexed is not None and (announced is None or announced.index_sha256 is not None):
        # The record vouches for the index, and the index for each file.
        chosen = [entry for entry in _chosen(indexed.entries(), only, where) if among is None or entry.path in among]
        with Extraction(target) as extraction:
            unpack_members(extraction, indexed, chosen, on_progress)
        return [entry.path for entry in chosen]
    return _extract_stream(source, target, only, among, where, announced, on_progress)


def _extract_stream(
    source: Source,
    target: Path,
    only: str | None,
    among: Collection[str] | None,
    where: str,
    announced: ArchiveInfo | None,
    on_progress: Callable[[int], None] | None,
) -> list[str]:
    seen: list[str] = []
    written: list[str] = []

    def wanted(reader: StreamReader) -> Iterator[tuple[ArchivedFile, Iterator[memoryview]]]:
        for entry in reader.entries():
            seen.append(entry.path)
            if _is_wanted(entry.path, only) and (among is None or entry.path in among):
                written.append(entry.path)
                yield entry, reader.content()

    with source.open() as stream, Extraction(target) as extraction:
        watched = _Watched(stream, announced)
        with StreamReader(cast("BinaryIO", watched), where or "the archive") as reader:
            unpack_stream(extraction, wanted(reader), reader.release, source.size_bytes, on_progress)
        watched.check(where)
    if only is not None and not any(_is_wanted(path, only) for path in seen):
        raise _no_such_file(only, seen, where)
    return written


def describe(source: Source, *, where: str = "") -> ArchiveInfo:
    """Return what to announce of an archive, which is read to its end where it has no index.

    Args:
        source: The archive.
        where: What to call it in errors.

    Raises:
        ReadError: It is damaged or unsafe.
    """
    entries = list_files(source, where=where)
    files = sum(entry.kind != "directory" for entry in entries)
    _, index_sha256 = indexed_archive(source, where)
    if index_sha256 is not None:
        return ArchiveInfo(source.size_bytes, files, index_sha256)
    with source.open() as stream:
        return ArchiveInfo(
            source.size_bytes, files, sha256=hashlib.file_digest(cast("io.RawIOBase", stream), "sha256").hexdigest()
        )


def check(source: Source, *, where: str = "", announced: ArchiveInfo | None = None) -> None:
    """Read all of an archive, and compare its files with its index.

    Args:
        source: The archive.
        where: What to call it in errors.
        announced: What the record says of it, which must be so.

    Raises:
        ReadError: It is damaged or unsafe, or not the one that was announced.
    """
    where = where or "the archive"
    indexed, index_sha256 = indexed_archive(source, where)
    check_index(announced, index_sha256, where)
    known = {entry.path: entry for entry in indexed.entries()} if indexed is not None else {}
    with source.open() as stream:
        watched = _Watched(stream, announced, indexed.checksums() if indexed is not None else None)
        with StreamReader(cast("BinaryIO", watched), where) as reader:
            for entry in reader.entries():
                listed = known.pop(entry.path, None)
                if indexed is not None and (listed is None or (listed.kind, listed.size_bytes) != (entry.kind, entry.size_bytes)):
                    raise ReadError(f"{where} is damaged: {entry.path} is not what its index says")
                _check_content(entry, reader.content(), indexed)
        if known:
            raise ReadError(f"{where} is damaged: its index names {next(iter(known))}, which it does not hold")
        watched.check(where)


def check_index(announced: ArchiveInfo | None, index_sha256: str | None, where: str) -> None:
    """Raise `ReadError` where the index is not the one that a record announces."""
    if announced is not None and announced.index_sha256 not in (None, index_sha256):
        raise ReadError(f"{where or 'the archive'} does not match its record: the sha256 of its index is another")


def _check_content(entry: ArchivedFile, content: Iterable[memoryview], indexed: IndexedArchive | None) -> None:
    """Read a file to its end, and compare it with the index if there is one."""
    digests, start = indexed.digests(entry.path) if indexed is not None else None, 0
    for chunk in content:
        if digests is not None:
            digests.update(start, chunk)
            start += len(chunk)
    if indexed is not None and digests is not None:
        indexed.check_digests(entry.path, digests)


def indexed_archive(source: Source, where: str) -> tuple[IndexedArchive | None, str | None]:
    """Return an archive by its index and the index's digest; None for both if it has none.

    Raises:
        ReadError: It has one, which is damaged or unsafe.
    """
    found = index.read(source, where or "the archive")
    if found is None:
        return None, None
    return IndexedArchive(source, found[0], where or "the archive"), found[1]


def _chosen(entries: list[ArchivedFile], only: str | None, where: str) -> list[ArchivedFile]:
    chosen = [entry for entry in entries if _is_wanted(entry.path, only)]
    if only is not None and not chosen:
        raise _no_such_file(only, [entry.path for entry in entries], where)
    return chosen


def _is_wanted(path: str, only: str | None) -> bool:
    wanted = posixpath.normpath(only) if only is not None else "."
    return wanted == "." or path == wanted or path.startswith(f"{wanted}/")


class _Watched(io.RawIOBase):
    """Reads through to a stream, and holds all that is read against what is known of it.

    Args:
        stream: The stream.
        announced: What a record says of it.
        checksums: Those of its members.
    """

    def __init__(self, stream: BinaryIO, announced: ArchiveInfo | None, checksums: MemberChecksums | None = None) -> None:
        super().__init__()
        self._stream = cast("io.RawIOBase", stream)
        self._checksums = checksums
        self._expected = announced.sha256 if announced is not None else None
        # Of what nobody has announced, the digest would be half of the work, and for nothing.
        self._digest = hashlib.sha256() if self._expected is not None else None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer, or a part of it."""
        count = self._stream.readinto(buffer) or 0
        data = memoryview(buffer).cast("B")[:count]
        if self._digest is not None:
            self._digest.update(data)
        if self._checksums is not None:
            self._checksums.update(data)
        return count

    def check(self, where: str) -> None:
        """Read to the end, and raise `ReadError` where it has not the checksums of its index, or the digest that a record announces."""
        while self.read(_READ_BYTES):
            continue
        if self._checksums is not None:
            self._checksums.finish()
        if self._digest is not None and self._digest.hexdigest() != self._expected:
            raise ReadError(f"{where or 'the archive'} does not match its sha256")


def _no_such_file(path: str, names: Sequence[str], where: str) -> DoesNotExist:
    close = close_names(path, names)
    facts = [f"close to it: {', '.join(close)}"] if close else [f"it holds: {', '.join(names[:10])}"] if names else []
    return DoesNotExist(f'no file "{path}" in {where or "the archive"}', facts=facts)
