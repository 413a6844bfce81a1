"""An archive that is looked at more than once: listed, and then some of its files read, in as few reads as possible."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from keepsake.repository.archive.entries import Digests
from keepsake.repository.archive.reading import MEMORY_BYTES, indexed_archive
from keepsake.repository.archive.stream import StreamReader

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
        """Yield the contents of files, in the order of the paths.

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
    indexed = indexed_archive(source, where)
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
        self._copy = copy
        self._entries: list[ArchivedFile] = []
        self._places: dict[str, tuple[int, int]] = {}
        with source.open() as stream, StreamReader(stream, where) as reader:
            for entry in reader.entries():
                self._take(entry, reader.content())

    def _take(self, entry: ArchivedFile, content: Iterator[bytes]) -> None:
        digest = hashlib.sha256()
        if self._copy is not None:
            self._places[entry.path] = (self._copy.tell(), entry.size_bytes)
        for chunk in content:
            digest.update(chunk)
            if self._copy is not None:
                self._copy.write(chunk)
        sha256 = digest.hexdigest()
        self._entries.append(replace(entry, sha256=sha256, digests=Digests((sha256,))) if entry.kind == "file" else entry)

    def entries(self) -> list[ArchivedFile]:
        """Return what it holds."""
        return self._entries

    def contents(self, paths: Sequence[str]) -> Iterator[bytes]:
        """Yield contents from the copy."""
        for path in paths:
            start, length = self._places[path]
            if self._copy is not None:
                self._copy.seek(start)
                yield self._copy.read(length)
