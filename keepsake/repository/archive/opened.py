"""An archive that is looked at more than once: listed, and then some of its files read, in as few reads as possible."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from keepsake.repository.archive.entries import Digests
from keepsake.repository.archive.index import SECTION_BYTES
from keepsake.repository.archive.reading import MEMORY_BYTES, indexed_archive, open_file
from keepsake.repository.archive.stream import CHUNK_BYTES, StreamReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keepsake.repository.archive.entries import ArchivedFile
    from keepsake.repository.archive.reading import Source


class OpenedArchive(Protocol):
    """What an archive holds, and how to read it."""

    def entries(self) -> list[ArchivedFile]:
        """Return what it holds, each file with its digest."""
        ...

    def contents(self, paths: Sequence[str]) -> Iterator[bytes]:
        """Yield the contents of files whole, in the order of the paths.

        Raises:
            ReadError: The archive is damaged.
        """
        ...

    def content(self, path: str) -> Iterator[bytes | memoryview]:
        """Yield the content of one file piece by piece.

        Raises:
            ReadError: The archive is damaged.
        """
        ...


@contextmanager
def opened(source: Source, *, where: str = "", with_contents: bool = True) -> Iterator[OpenedArchive]:
    """Open an archive: by its index where it has one; one without is read once, from its beginning to its end.

    Args:
        source: The archive.
        where: What to call it in errors.
        with_contents: False for whoever only wants the entries.

    Raises:
        ReadError: It is damaged or unsafe.
    """
    indexed, _ = indexed_archive(source, where)
    if indexed is not None:
        yield indexed
        return
    with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as copy:
        yield _ReadThrough(source, where or "the archive", copy if with_contents else None)


class _ReadThrough:
    """An archive without an index.

    Args:
        source: The archive.
        where: What to call it in errors.
        copy: Where to keep the contents; None keeps none.
    """

    def __init__(self, source: Source, where: str, copy: tempfile.SpooledTemporaryFile[bytes] | None) -> None:
        self._source = source
        self._where = where
        self._copy = copy
        self._entries: list[ArchivedFile] = []
        self._places: dict[str, tuple[int, int]] = {}
        with source.open() as stream, StreamReader(stream, where) as reader:
            for entry in reader.entries():
                self._entries.append(self._taken(entry, reader.content()))

    def _taken(self, entry: ArchivedFile, content: Iterator[memoryview]) -> ArchivedFile:
        if entry.kind != "file":
            return entry
        if self._copy is not None:
            self._places[entry.path] = (self._copy.tell(), entry.size_bytes)
            content = self._copied(content, self._copy)
        # By the sections that an index has, so that files of either kind of archive can be compared by their digests.
        digests = Digests.of_content(content, SECTION_BYTES)
        return replace(entry, sha256=digests.sha256[0] if digests.section_bytes is None else None, digests=digests)

    def _copied(self, content: Iterator[memoryview], copy: tempfile.SpooledTemporaryFile[bytes]) -> Iterator[memoryview]:
        for chunk in content:
            copy.write(chunk)
            yield chunk

    def entries(self) -> list[ArchivedFile]:
        """Return what it holds."""
        return self._entries

    def contents(self, paths: Sequence[str]) -> Iterator[bytes]:
        """Yield contents whole."""
        for path in paths:
            yield b"".join(self.content(path))

    def content(self, path: str) -> Iterator[bytes]:
        """Yield a content from the copy; without one the archive is read again."""
        if self._copy is None:
            with open_file(self._source, path, where=self._where) as file:
                yield from iter(lambda: file.read(CHUNK_BYTES), b"")
            return
        start, left = self._places[path]
        while left:
            self._copy.seek(start)
            chunk = self._copy.read(min(left, CHUNK_BYTES))
            start, left = start + len(chunk), left - len(chunk)
            yield chunk
