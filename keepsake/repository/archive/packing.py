"""What of the files goes into the tar: headers, contents, and what is done about files that change meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from keepsake import messages
from keepsake.capture.files import open_plain
from keepsake.exceptions import ReadError
from keepsake.repository.archive import members
from keepsake.repository.archive.files import read_at
from keepsake.repository.archive.index import Row
from keepsake.repository.archive.members import MEMBER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from keepsake.capture.files import FileEntry

SMALL_FILE_BYTES = MEMBER_BYTES
"""Files up to this size are read before their header is written, so that a change meanwhile cannot make the two differ."""

SAMPLE_PARTS = 4
"""How many parts of a section make the sample that says whether it is worth compressing."""

GROUP_ENTRIES = 256
"""How many small files share a member at most, so that many tiny ones keep several threads busy."""


class NotThere(Exception):
    """What was listed has vanished, or is something else by now."""


@dataclass(slots=True)
class Section:
    """A section of a large file, of which the pieces are digested in their order.

    Args:
        digested_to: Up to where in the file that is done.

    Attributes:
        digest: Of that; None from the first piece on that is stored, and may be read back cheaply.
    """

    digested_to: int
    digest: hashlib._Hash | None = field(default_factory=hashlib.sha256)


@dataclass(slots=True)
class LargeFile:
    """A file that is cut into several members.

    Args:
        file: The open file.
        source: Its path, for errors.
        size_bytes: Its length when it was opened, which is what is read of it.
        row: What the index will say of it.

    Attributes:
        sections: Its sections, which have digests of their own.
        left_bytes: How much has not been written yet.
    """

    file: BinaryIO
    source: Path
    size_bytes: int
    row: Row
    sections: list[Section] = field(init=False)
    left_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.sections = [Section(number * self.row.section_bytes) for number in range(len(self.row.digests))]
        self.left_bytes = self.size_bytes

    def fileno(self) -> int:
        """Return its descriptor."""
        return self.file.fileno()

    def read(self, view: memoryview, start: int) -> None:
        """Fill a buffer with what the file holds from a position on.

        Raises:
            ReadError: It ends before.
        """
        done = read_at(self.fileno(), view, start)
        if done < len(view):
            self._raise_shorter(min(start + done, os.fstat(self.fileno()).st_size))

    def note_written(self, length: int) -> None:
        """Note that so much more of it is written, and close it after the last.

        Raises:
            ReadError: It is shorter by now. Then what came last may have been written as zeros.
        """
        self.left_bytes -= length
        if self.left_bytes:
            return
        size_bytes = os.fstat(self.fileno()).st_size
        self.file.close()
        if size_bytes < self.size_bytes:
            self._raise_shorter(size_bytes)

    def _raise_shorter(self, size_bytes: int) -> NoReturn:
        left = self.size_bytes - size_bytes
        raise ReadError(f"{self.source} changed while it was being saved: {left:,} of {self.size_bytes:,} bytes are gone")

    def shrinks(self, start: int, end: int) -> bool:
        """Tell whether a part is worth compressing, by some samples that lie far from each other."""
        length = end - start
        sample = memoryview(bytearray(members.SAMPLE_BYTES))
        part_bytes = len(sample) // SAMPLE_PARTS
        for number in range(SAMPLE_PARTS):
            middle = start + (2 * number + 1) * length // (2 * SAMPLE_PARTS)
            read_at(self.fileno(), sample[number * part_bytes : (number + 1) * part_bytes], middle - part_bytes // 2)
        return members.shrinks(sample)


@dataclass(frozen=True, slots=True)
class Piece:
    """What becomes one member: bytes, a part of a large file, or some small files that are read when their turn comes.

    A part of a large file that is not worth compressing becomes several.

    Args:
        number: The place of the first among the members.
        content: The bytes.
        large: The large file.
        start: Where in the large file the part begins.
        length: How long the part is.
        zeros: How many zeros follow it in the tar.
        shrinks: Whether the part is worth compressing.
        entries: The small files.
    """

    number: int
    content: bytes = b""
    large: LargeFile | None = None
    start: int = 0
    length: int = 0
    zeros: int = 0
    shrinks: bool = False
    entries: Sequence[FileEntry] = ()


class Packer:
    """Cuts the tar of some files into pieces.

    Args:
        entries: What goes in, sorted.
        prefix: First component of every path: the ID.

    Attributes:
        size_bytes: How much there was to be read when it was listed.
        large_files: Those that have been opened, to be closed by the caller.
        rows: What the index will say, in no order.
    """

    def __init__(self, entries: Sequence[FileEntry], prefix: str) -> None:
        self._entries = entries
        self._sizes = [_size_bytes(entry) for entry in entries]
        self._prefix = prefix
        self._number = 0
        self.size_bytes = sum(self._sizes)
        self.large_files: list[LargeFile] = []
        self.rows: list[Row] = []

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces in their order. Not for several threads at once.

        Raises:
            ReadError: The only file is not there any more.
            OSError: A file cannot be opened.
        """
        group: list[FileEntry] = []
        group_bytes = 0
        for entry, size_bytes in zip(self._entries, self._sizes, strict=True):
            is_large = size_bytes > SMALL_FILE_BYTES
            if group and (is_large or group_bytes + size_bytes > MEMBER_BYTES or len(group) == GROUP_ENTRIES):
                yield self._next(entries=tuple(group))
                group, group_bytes = [], 0
            if is_large:
                yield from self._large_file(entry)
            else:
                group.append(entry)
                group_bytes += size_bytes + tarfile.BLOCKSIZE
        if group:
            yield self._next(entries=tuple(group))
        yield self._next(content=bytes(2 * tarfile.BLOCKSIZE))

    def _next(self, **fields: object) -> Piece:
        self._number += 1
        return Piece(self._number - 1, **fields)  # type: ignore[arg-type]

    def _large_file(self, entry: FileEntry) -> Iterator[Piece]:
        try:
            file, status = self._opened(entry)
        except NotThere as err:
            self._left_out(entry, err)
            return
        header = _header(self._name(entry), status)
        row = Row(entry.name, "file", header.size, header.mode, int(header.mtime), member=self._number + 1)
        self.rows.append(row)
        large = LargeFile(file, entry.source, header.size, row)
        self.large_files.append(large)
        yield self._next(content=_bytes_of(header))
        if not header.size:
            # It was emptied since it was listed.
            row.digests[0] = hashlib.sha256().hexdigest()
        for start in range(0, header.size, row.section_bytes):
            yield from self._section(large, start, min(start + row.section_bytes, header.size))

    def _section(self, large: LargeFile, start: int, end: int) -> Iterator[Piece]:
        """Yield a section of a large file: for several threads to compress, or as a whole."""
        shrinks = large.shrinks(start, end)
        step_bytes = MEMBER_BYTES if shrinks else end - start
        for first in range(start, end, step_bytes):
            last = min(first + step_bytes, end)
            zeros = -last % tarfile.BLOCKSIZE if last == large.size_bytes else 0
            piece = self._next(large=large, start=first, length=last - first, zeros=zeros, shrinks=shrinks)
            self._number = piece.number + len(members.stored_members(piece.length, zeros))
            yield piece

    def read_group(self, piece: Piece) -> bytearray:
        """Return the tar of small files. May be called by several threads at once.

        Raises:
            ReadError: The only file is not there any more.
            OSError: A file cannot be read.
        """
        content = bytearray()
        for entry in piece.entries:
            try:
                if entry.kind == "file":
                    self._add_small_file(entry, piece.number, content)
                else:
                    self._add_link_or_directory(entry, piece.number, content)
            except NotThere as err:
                self._left_out(entry, err)
        return content

    def _add_small_file(self, entry: FileEntry, member: int, content: bytearray) -> None:
        file, status = self._opened(entry)
        with file:
            # A file that grows meanwhile, such as a log, is cut.
            read = file.read(SMALL_FILE_BYTES)
        header = _header(self._name(entry), status)
        header.size = len(read)
        content += _bytes_of(header)
        row = Row(entry.name, "file", len(read), header.mode, int(header.mtime), member, len(content))
        row.digests[0] = hashlib.sha256(read).hexdigest()
        self.rows.append(row)
        content += read
        content += bytes(-len(read) % tarfile.BLOCKSIZE)

    def _add_link_or_directory(self, entry: FileEntry, member: int, content: bytearray) -> None:
        try:
            header = _header(self._name(entry), entry.source.lstat())
        except (FileNotFoundError, NotADirectoryError) as err:
            raise NotThere("vanished") from err
        header.size = 0
        if entry.kind == "link":
            header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link_target or "", 0o777
        else:
            header.type = tarfile.DIRTYPE
        content += _bytes_of(header)
        self.rows.append(Row(entry.name, entry.kind, 0, header.mode, int(header.mtime), member, len(content), entry.link_target))

    def _opened(self, entry: FileEntry) -> tuple[BinaryIO, os.stat_result]:
        try:
            file = open_plain(entry.source)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise NotThere("vanished") from err
        except OSError as err:
            if entry.source.is_file() and not entry.source.is_symlink():
                raise
            raise NotThere("was replaced by something that is no plain file") from err
        return file, os.fstat(file.fileno())

    def _left_out(self, entry: FileEntry, err: NotThere) -> None:
        if len(self._entries) == 1:
            raise ReadError(f"{entry.source} {err} before it was saved") from err
        messages.warning(f"{entry.source} {err} before it was saved; it is left out")

    def _name(self, entry: FileEntry) -> str:
        return f"{self._prefix}/{entry.name}"


def _size_bytes(entry: FileEntry) -> int:
    if entry.kind != "file":
        return 0
    try:
        return entry.source.lstat().st_size
    except OSError:
        # Found out when it is opened.
        return 0


def _header(name: str, status: os.stat_result) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = status.st_size
    header.mode = stat.S_IMODE(status.st_mode) & 0o777
    header.mtime = max(0, int(status.st_mtime))
    return header


def _bytes_of(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
