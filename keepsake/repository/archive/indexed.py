"""Reading an archive by its index: only those members that are wanted, and each file checked against its digest."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from keepsake.exceptions import ReadError
from keepsake.repository.archive.digests import SectionDigests
from keepsake.repository.archive.entries import ArchivedFile, Digests, modified_at
from keepsake.repository.archive.members import checksum, decoded, read_stored, sliced, stored_size
from keepsake.repository.archive.names import Tree
from keepsake.repository.archive.spaces import Spaces

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from keepsake.repository.archive.index import Index, Part, Ranges, Row

FAR_BATCH_BYTES = 8 << 20
"""How much is read at once, packed and unpacked: enough that the way to a store does not count, and little enough to hold several."""

NEAR_BATCH_BYTES = 2 << 20
"""The same where the store is near: what stays in a processor's cache until it is checked and written."""

MAX_MEMBER_BYTES = 64 << 20
"""Longest member that is read, and most that one may hold: ours hold 2 or 3 MiB at most. An archive must not take gigabytes."""


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
        self._spaces = Spaces()
        self._check()

    def _check(self) -> None:
        tree = Tree(self._where)
        for row in self._index.rows:
            tree.check_name(row.path)
            if not row.path or row.path != "/".join(part for part in row.path.split("/") if part not in ("", ".")):
                raise tree.unsafe(row.path, "is no plain path")
            tree.take_place(row.path, row.kind, row.link_target)
        tree.check_links()
        if max((*self._index.member_bytes, *self._index.content_bytes), default=0) > MAX_MEMBER_BYTES:
            raise ReadError(f"{self._where} is damaged: a member of more than {MAX_MEMBER_BYTES:,} bytes")

    @property
    def is_far(self) -> bool:
        """Whether most of the time goes by on the way to it."""
        return self._source.is_far

    def entries(self) -> list[ArchivedFile]:
        """Return what the archive holds, in the order of the paths."""
        return [
            ArchivedFile(
                row.path,
                row.size_bytes,
                row.mode & 0o777,
                modified_at(row.mtime),
                row.kind,
                row.link_target,
                row.sha256,
                _digests(row),
            )
            for row in self._index.rows
        ]

    def member_lengths(self) -> list[tuple[int, int]]:
        """Return the length of each member, and of what it holds."""
        return list(zip(self._index.member_bytes, self._index.content_bytes, strict=True))

    def checksums(self) -> MemberChecksums:
        """Return what holds the bytes of the archive against the checksums of its members."""
        return MemberChecksums(self, zip(self._index.member_bytes, self._index.checksums, strict=False))

    def members_end(self) -> int:
        """Return where the members end and the index begins."""
        return self._starts[-1]

    def parts(self, path: str) -> list[Part]:
        """Return where a file's content lies.

        Raises:
            ReadError: It does not lie in the archive.
        """
        try:
            return list(self._index.parts(self._rows[path]))
        except ValueError as err:
            raise self.damaged(str(err)) from err

    def section(self, path: str, part: Part) -> int:
        """Return the number of the section of a file that a part of it lies in."""
        return part.start // self._rows[path].section_bytes

    def read(self, first: int, last: int) -> Iterator[tuple[int, list[memoryview]]]:
        """Yield members with what they hold, as many read at once as is worth it.

        Args:
            first: The number of the first member.
            last: The number of the last one.

        Raises:
            ReadError: They are damaged.
        """
        while first <= last:
            end = self.batch_end(first, last)
            content = self._stored(first) if first == end else None
            if content is not None:
                yield first, [content]
            else:
                yield from self._read_together(first, end)
            first = end + 1

    def _stored(self, number: int) -> memoryview | None:
        """Return what a member holds if it is stored as it is; None where it is not, or cannot be read so."""
        content_bytes = self._index.content_bytes[number]
        if self._index.member_bytes[number] != stored_size(content_bytes):
            return None
        content = self._spaces.take(content_bytes)
        is_read = read_stored(content, partial(self._source.read_into, self._starts[number]))
        return content if is_read else None

    def release(self, held: Sequence[memoryview]) -> None:
        """Take back what `read` has yielded, to be filled with another member."""
        for content in held:
            self._spaces.give_back(content)

    def _read_together(self, first: int, last: int) -> Iterator[tuple[int, list[memoryview]]]:
        start = self._starts[first]
        data = memoryview(self._source.read_range(start, self._starts[last + 1] - start))
        for number in range(first, last + 1):
            member = data[self._starts[number] - start : self._starts[number + 1] - start]
            try:
                yield number, decoded(member, self._index.content_bytes[number])
            except ValueError as err:
                raise self.damaged(str(err)) from err

    def batch_end(self, first: int, last: int) -> int:
        """Return the number of the last member to be read together with the first one."""
        left = FAR_BATCH_BYTES if self.is_far else NEAR_BATCH_BYTES
        for number in range(first, last + 1):
            left -= self._index.member_bytes[number] + self._index.content_bytes[number]
            if left < 0:
                return max(first, number - 1)
        return last

    def content(self, path: str, *, one_by_one: bool = False) -> Iterator[memoryview]:
        """Yield a file's content, and check it at the end.

        Args:
            path: The file's path.
            one_by_one: Whether no piece is needed any more when the next one is taken, so that its memory can be used again.

        Raises:
            ReadError: It is damaged.
        """
        digests = self.digests(path)
        parts = self.parts(path)
        wanted: dict[int, list[Part]] = {}
        for part in parts:
            wanted.setdefault(part.member, []).append(part)
        for number, held in self.read(parts[0].member, parts[-1].member) if parts else ():
            for part in wanted.get(number, ()):
                start = part.start
                for piece in sliced(held, part.first, part.last):
                    digests.update(start, piece)
                    start += len(piece)
                    yield piece
            if one_by_one:
                self.release(held)
        self.check_digests(path, digests)

    def contents(self, paths: Sequence[str]) -> Iterator[bytes]:
        """Yield files whole, in the order of the paths.

        What lies side by side is read at once; where the paths are sorted no member is read twice.

        Raises:
            ReadError: One is damaged.
        """
        wanted = {part.member for path in paths for part in self.parts(path)}
        held: dict[int, list[memoryview]] = {}
        for path in paths:
            content = bytearray()
            for part in self.parts(path):
                if part.member not in held:
                    held = dict(self.read(part.member, self._batch_of(part.member, wanted)))
                for piece in sliced(held[part.member], part.first, part.last):
                    content += piece
            digests = self.digests(path)
            digests.update(0, content)
            self.check_digests(path, digests)
            yield bytes(content)

    def _batch_of(self, first: int, wanted: Collection[int]) -> int:
        """Return the number of the last member to be read with the first one: all of them wanted."""
        last = first
        while last + 1 in wanted:
            last += 1
        return self.batch_end(first, last)

    def digests(self, path: str) -> SectionDigests:
        """Return what takes the digests of a file's sections."""
        return SectionDigests(self._rows[path].section_bytes)

    def check_digests(self, path: str, digests: SectionDigests) -> None:
        """Compare what was read of a file with what the index says.

        Raises:
            ReadError: They differ.
        """
        expected = self._rows[path].digests
        if any(expected[number] != sha256 for number, sha256 in digests.found().items()):
            raise ReadError(f"{self._where}: {path} does not match its sha256")

    def damaged(self, why: str) -> ReadError:
        """Return the error for an archive that is not what its index says."""
        return ReadError(f"{self._where} is damaged: {why}")


def _digests(row: Row) -> Digests | None:
    known = tuple(digest for digest in row.digests if digest is not None)
    if not known or len(known) < len(row.digests):
        return None
    return Digests(known, row.section_bytes if len(known) > 1 else None)


class MemberChecksums:
    """Takes the bytes of an archive from its beginning on, and compares each member with its checksum.

    So a bit is found that means nothing to those who read the content, such as the time in a gzip header.

    Args:
        archive: The archive.
        members: The length of each member and its checksum, None where nobody has kept it.
    """

    def __init__(self, archive: IndexedArchive, members: Iterable[tuple[int, int | None]]) -> None:
        self._archive = archive
        self._members = iter(members)
        self._found = 0
        self._is_damaged = False
        self._left, self._expected = next(self._members, (0, None))

    def update(self, data: bytes | memoryview) -> None:
        """Take what comes next."""
        view = memoryview(data)
        while self._left and view:
            piece = view[: self._left]
            self._found = checksum([piece], self._found)
            self._left -= len(piece)
            view = view[len(piece) :]
            if not self._left:
                self._is_damaged |= self._expected not in (None, self._found)
                self._found = 0
                self._left, self._expected = next(self._members, (0, None))

    def finish(self) -> None:
        """Say that this was all: so late that whoever reads the content can name the file that is damaged.

        Raises:
            ReadError: A member has another checksum, or is not there.
        """
        if self._is_damaged or self._left:
            raise self._archive.damaged("a member has another checksum than its index says")
