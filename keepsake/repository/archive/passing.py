"""Checking an archive while its bytes pass by, from one store to another."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, cast

from isal import isal_zlib

from keepsake.exceptions import ReadError
from keepsake.repository.archive.members import sliced
from keepsake.repository.archive.reading import check_index, indexed_archive

if TYPE_CHECKING:
    from keepsake.repository.archive.digests import SectionDigests
    from keepsake.repository.archive.index import Part
    from keepsake.repository.archive.indexed import IndexedArchive
    from keepsake.repository.archive.reading import Source
    from keepsake.repository.records import ArchiveInfo

_GZIP = 31
"""zlib's ``wbits`` for gzip, whose checksum is compared, in the largest window."""


class PassingCheck:
    """Takes an archive from its beginning to its end, and says whether it is the one that was announced.

    Args:
        source: The archive, of which the index is read before.
        announced: What its record says of it; None checks nothing.
        where: What to call it in errors.

    Raises:
        ReadError: Its index is not the one that was announced.
    """

    def __init__(self, source: Source, announced: ArchiveInfo | None, *, where: str) -> None:
        self._expected = announced.sha256 if announced is not None else None
        self._whole = hashlib.sha256()
        self._members: _Members | None = None
        if announced is not None and announced.sha256 is None:
            archive, index_sha256 = indexed_archive(source, where)
            check_index(announced, index_sha256, where)
            self._members = _Members(archive, source) if archive is not None else None
        self._where = where

    def update(self, data: bytes) -> None:
        """Take what comes next.

        Raises:
            ReadError: It is damaged.
        """
        if self._members is not None:
            self._members.update(data)
        elif self._expected is not None:
            self._whole.update(data)

    def finish(self) -> None:
        """Say that this was all.

        Raises:
            ReadError: It is not what was announced.
        """
        if self._members is not None:
            self._members.finish()
        elif self._expected is not None and self._whole.hexdigest() != self._expected:
            raise ReadError(f"{self._where} does not match its sha256")


class _Members:
    """Holds the members of an archive against its index, one after the other.

    Args:
        archive: The archive by its index.
        source: The archive where it lies.
    """

    def __init__(self, archive: IndexedArchive, source: Source) -> None:
        self._archive = archive
        self._checksums = archive.checksums()
        self._lengths = iter(archive.member_lengths())
        self._length = next(self._lengths, None)
        self._held = bytearray()
        self._number = 0
        self._wanted: dict[int, list[tuple[str, Part]]] = {}
        self._digests: dict[str, SectionDigests] = {}
        for entry in archive.entries():
            if entry.kind == "file":
                self._digests[entry.path] = archive.digests(entry.path)
                for part in archive.parts(entry.path):
                    self._wanted.setdefault(part.member, []).append((entry.path, part))
        end = archive.members_end()
        self._index = source.read_range(end, source.size_bytes - end)

    def update(self, data: bytes) -> None:
        self._checksums.update(data)
        self._held += data
        while self._length is not None and len(self._held) >= self._length[0]:
            member_bytes, content_bytes = self._length
            self._check_member(bytes(self._held[:member_bytes]), content_bytes)
            del self._held[:member_bytes]
            self._number += 1
            self._length = next(self._lengths, None)

    def _check_member(self, member: bytes, content_bytes: int) -> None:
        gzip = isal_zlib.decompressobj(_GZIP)
        try:
            content = memoryview(gzip.decompress(member, content_bytes + 1))
        except (zlib.error, cast("type[Exception]", isal_zlib.error)) as err:
            raise self._archive.damaged(str(err)) from err
        if len(content) != content_bytes or not gzip.eof or gzip.unused_data:
            raise self._archive.damaged("a member of another length than the index says")
        for path, part in self._wanted.pop(self._number, ()):
            self._digests[path].update_all(part.start, sliced([content], part.first, part.last))

    def finish(self) -> None:
        if self._length is not None or self._held != self._index:
            raise self._archive.damaged("it changed while it was copied")
        for path, digests in self._digests.items():
            self._archive.check_digests(path, digests)
        self._checksums.finish()
