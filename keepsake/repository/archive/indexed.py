"""Reading an archive by its index: only those members that are wanted, and each file checked against its digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keepsake.exceptions import ReadError
from keepsake.repository.archive.entries import ArchivedFile, modified_at
from keepsake.repository.archive.members import decoded, sliced
from keepsake.repository.archive.names import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keepsake.repository.archive.index import Index, Ranges

BATCH_BYTES = 8 << 20
"""How much is read at once, packed and unpacked: enough that the way to a store does not count, and little enough to hold several."""

MAX_MEMBER_BYTES = 64 << 20
"""Longest member that is read, and most that one may hold: ours hold 2 or 3 MiB at most. An archive must not take gigabytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where a part of a file lies.

    Args:
        member: The number of the member.
        first: Its first position in what the member holds.
        last: Its last one.
        start: Where in the file it belongs.
    """

    member: int
    first: int
    last: int
    start: int


class IndexedArchive:
    """An archive with an index, which is trusted no more than any other part of it.

    Args:
        source: The archive.
        index: Its index.
        where: What to call it in errors.

    Raises:
        ReadError: The index names what must not be written.
    """

    def __init__(self, source: Ranges, index: Index, where: str) -> None:
        self._source = source
        self._index = index
        self._where = where
        self._starts = index.starts()
        self._rows = {row.path: row for row in index.rows}
        self._check()

    def _check(self) -> None:
        tree = Tree(self._where)
        for row in self._index.rows:
            tree.check_name(row.path)
            if not row.path or row.path != "/".join(part for part in row.path.split("/") if part not in ("", ".")):
                raise tree.unsafe(row.path, "is no plain path")
            tree.take_place(row.path, row.kind, row.link_target)
        tree.check_links()
        if any(count > MAX_MEMBER_BYTES for count in (*self._index.member_bytes, *self._index.content_bytes)):
            raise ReadError(f"{self._where} is damaged: a member of more than {MAX_MEMBER_BYTES:,} bytes")

    @property
    def is_far(self) -> bool:
        """Whether most of the time goes by on the way to it."""
        return self._source.is_far

    def entries(self) -> list[ArchivedFile]:
        """Return what the archive holds, in the order of the paths."""
        return [
            ArchivedFile(
                row.path, row.size_bytes, row.mode & 0o777, modified_at(row.mtime), row.kind, row.link_target, row.sha256
            )
            for row in self._index.rows
        ]

    def parts(self, path: str) -> list[Part]:
        """Return where a file's content lies.

        Raises:
            ReadError: It does not lie in the archive.
        """
        row = self._rows[path]
        try:
            parts, start = [], 0
            for number, first, last in self._index.parts(row):
                parts.append(Part(number, first, last, start))
                start += last - first
        except ValueError as err:
            raise self.damaged(str(err)) from err
        return parts

    def read(self, first: int, last: int) -> Iterator[tuple[int, list[memoryview]]]:
        """Yield members with what they hold, read at once.

        Args:
            first: The number of the first member.
            last: The number of the last one.

        Raises:
            ReadError: They are damaged.
        """
        start, end = self._starts[first], self._starts[last + 1]
        data = memoryview(self._source.read_range(start, end - start))
        for number in range(first, last + 1):
            member = data[self._starts[number] - start : self._starts[number + 1] - start]
            try:
                yield number, decoded(member, self._index.content_bytes[number])
            except ValueError as err:
                raise self.damaged(str(err)) from err

    def batch_end(self, first: int, last: int) -> int:
        """Return the number of the last member to be read together with the first one."""
        left = BATCH_BYTES
        for number in range(first, last + 1):
            left -= self._index.member_bytes[number] + self._index.content_bytes[number]
            if left < 0:
                return max(first, number - 1)
        return last

    def content(self, path: str) -> Iterator[memoryview]:
        """Yield a file's content, and check it at the end.

        Raises:
            ReadError: It is damaged.
        """
        digest = hashlib.sha256()
        parts = {part.member: part for part in self.parts(path)}
        members = sorted(parts)
        while members:
            last = self.batch_end(members[0], members[-1])
            for number, held in self.read(members[0], last):
                for piece in sliced(held, parts[number].first, parts[number].last):
                    digest.update(piece)
                    yield piece
            members = [number for number in members if number > last]
        self.check_digest(path, digest.hexdigest())

    def check_digest(self, path: str, sha256: str) -> None:
        """Compare what was read of a file with what the index says.

        Raises:
            ReadError: They differ.
        """
        if self._rows[path].sha256 != sha256:
            raise ReadError(f"{self._where}: {path} does not match its sha256")

    def damaged(self, why: str) -> ReadError:
        """Return the error for an archive that is not what its index says."""
        return ReadError(f"{self._where} is damaged: {why}")
