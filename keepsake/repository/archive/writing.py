"""Writing an archive in two steps: `stage` while the training waits, and `seal` in the background.

`stage` reads each file once and writes the members; it is all about speed, so it syncs nothing, and computes no digest that can be had
later from what it wrote. `seal` does the rest, and may be killed and begun again.
"""

from __future__ import annotations

import itertools
import os
import tarfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from keepsake.exceptions import ReadError
from keepsake.repository.archive import index
from keepsake.repository.archive.appending import Appender
from keepsake.repository.archive.digests import SectionDigests
from keepsake.repository.archive.files import WriteQueue, read_at, write_at
from keepsake.repository.archive.index import Index
from keepsake.repository.archive.members import (
    MEMBER_BYTES,
    TAIL_BYTES,
    checksum,
    compressed,
    decoded,
    encoded,
    read_stored,
    sliced,
    stored,
    stored_around,
    stored_members,
    stored_size,
    tail,
)
from keepsake.repository.archive.packing import LargeFile, Packer, Piece
from keepsake.repository.archive.spaces import Spaces
from keepsake.repository.archive.threads import run_side_by_side, run_together, threads_for
from keepsake.repository.records import ArchiveInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from keepsake.capture.files import FileEntry
    from keepsake.repository.archive.index import Part, Row

_LAYOUT_SUFFIX = ".layout"

PIECES_A_THREAD = 4
"""How many pieces are held for each thread: enough for it to go on while another one writes. With many more, what has been read is no
longer in the processor's cache when it is written."""


def layout_path(path: Path) -> Path:
    """Return where `stage` leaves what `seal` needs to know of a staged archive."""
    return path.with_name(path.name + _LAYOUT_SUFFIX)


# --- staging --------------------------------------------------------------------------------------------------------


def stage(entries: Sequence[FileEntry], prefix: str, path: Path) -> None:
    """Write the members of an archive, and beside it its layout; when it returns, later changes of the files do not matter.

    Paths are sorted and begin with ``prefix``. Modes and times are kept, owners are not, so equal trees give equal archives.
    What has vanished since it was listed, or is something else by now, is left out with a warning, unless nothing else is
    to be saved. After an error nothing is left.

    Args:
        entries: What goes in.
        prefix: First component of every path: the ID.
        path: Where to; must not exist.

    Raises:
        ReadError: A file shrank while it was saved, or the only one is not there any more.
        OSError: A file cannot be read, or the archive not be written.
    """
    packer = Packer(sorted(entries, key=lambda entry: entry.name), prefix)
    try:
        with path.open("xb", buffering=0) as file:
            writer = _MemberWriter(packer, file)
            writer.run()
        rows = sorted(packer.rows, key=lambda row: row.path)
        layout = Index(writer.member_bytes, writer.content_bytes, rows, writer.checksums).to_json()
        _replace(layout_path(path), layout)
    except FileExistsError:
        raise
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _replace(path: Path, content: bytes) -> None:
    # Whole or not at all, since it says that the archive beside it is whole.
    temporary = path.with_name(path.name + "~")
    temporary.write_bytes(content)
    temporary.replace(path)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member that is to be written.

    Args:
        piece: What it is made of.
        buffers: Its bytes; None where the piece is a part of a file that becomes members as it is.
        content_bytes: How much of the tar it holds.
        checksum: Its CRC-32.
    """

    piece: Piece
    buffers: Sequence[bytes | memoryview] | None = None
    content_bytes: int = 0
    checksum: int | None = None


class _MemberWriter:
    """Makes members of pieces, and writes them in their order.

    One thread does it alone as long as the pieces are only stored: that is as fast as the disk's cache takes it, and two would wait for
    each other. Others join it for what has to be compressed, and for small files.

    Args:
        packer: What the pieces come from.
        file: The archive.

    Attributes:
        member_bytes: The length of each member.
        content_bytes: How much of the tar each holds.
        checksums: The CRC-32 of each, as far as it is known.
    """

    def __init__(self, packer: Packer, file: BinaryIO) -> None:
        self._packer = packer
        self._file = file
        self._pieces = packer.pieces()
        self._threads = threads_for(packer.size_bytes)
        self._turn = threading.Condition()
        self._room = PIECES_A_THREAD * self._threads
        self._spaces = Spaces()
        self._queue = WriteQueue(self._write, self._room)
        self._ready: dict[int, _Member] = {}
        self._appender = Appender(file.fileno(), packer.size_bytes)
        self._first = threading.get_ident()
        self._may_join = threading.Event()
        self._failed = False
        self.member_bytes: list[int] = []
        self.content_bytes: list[int] = []
        self.checksums: list[int | None] = []

    def run(self) -> None:
        """Write all members."""
        try:
            with self._appender:
                run_together(self._work, self._give_up, threads=self._threads)
        finally:
            for large in self._packer.large_files:
                large.file.close()

    def _give_up(self) -> None:
        with self._turn:
            self._failed = True
            self._turn.notify_all()
        self._may_join.set()
        self._queue.give_up()

    def _work(self) -> None:
        if threading.get_ident() != self._first:
            self._may_join.wait()
        while (piece := self._next()) is not None:
            self._queue.put(self._member(piece))

    def _next(self) -> Piece | None:
        """Return the next piece once there is room for it: so the first of those that are not written yet never has to wait for any."""
        with self._turn:
            self._turn.wait_for(lambda: self._failed or self._room)
            piece = None if self._failed else next(self._pieces, None)
            self._room -= piece is not None
        if piece is None or piece.entries or piece.shrinks:
            self._may_join.set()
        return piece

    def _member(self, piece: Piece) -> _Member:
        large = piece.large
        if large is None:
            content = memoryview(piece.content or self._packer.read_group(piece))
            buffers = encoded(content)
            return _Member(piece, buffers, len(content), checksum(buffers))
        if packed := self._compressed(piece, large) if piece.shrinks else None:
            return _Member(piece, packed, piece.length + piece.zeros, checksum(packed))
        self._digest(large, piece.start, None)
        return _Member(piece)

    def _compressed(self, piece: Piece, large: LargeFile) -> Sequence[bytes] | None:
        content = self._spaces.take(MEMBER_BYTES + tarfile.BLOCKSIZE)[: piece.length + piece.zeros]
        large.read(content[: piece.length], piece.start)
        content[piece.length :] = bytes(piece.zeros)
        if buffers := compressed(content):
            self._digest(large, piece.start, content[: piece.length])
        self._spaces.give_back(content)
        return buffers

    def _digest(self, large: LargeFile, start: int, content: memoryview | None) -> None:
        """Digest a section in its order as long as all of it is compressed: to read that back later would cost more.

        Args:
            large: The file.
            start: Where in it the content lies.
            content: What comes next, if it is compressed.
        """
        number = start // large.row.section_bytes
        section = large.sections[number]
        with self._turn:
            self._turn.wait_for(lambda: self._failed or section.digest is None or section.digested_to == start)
            if self._failed or section.digest is None:
                return
            if content is None:
                section.digest = None
                self._turn.notify_all()
                return
        section.digest.update(content)
        with self._turn:
            section.digested_to += len(content)
            if section.digested_to in (large.size_bytes, (number + 1) * large.row.section_bytes):
                large.row.digests[number] = section.digest.hexdigest()
            self._turn.notify_all()

    def _write(self, members: Sequence[_Member]) -> None:
        """Write members, as far as all before them have come; in the hands of one thread at a time."""
        self._ready |= {member.piece.number: member for member in members}
        for member in self._following():
            self._append(member)

    def _following(self) -> Iterator[_Member]:
        while len(self.member_bytes) in self._ready:
            yield self._ready.pop(len(self.member_bytes))

    def _append(self, member: _Member) -> None:
        piece = member.piece
        if member.buffers is not None:
            self._appender.append(member.buffers)
            self._note(sum(map(len, member.buffers)), member.content_bytes, member.checksum)
        elif piece.large is not None:
            self._appender.append_from(piece.large, piece.start, stored_around(piece.length, piece.zeros))
            for content_bytes in stored_members(piece.length, piece.zeros):
                # It will be read back for its digest, and gets the checksum of what it holds then, too.
                self._note(stored_size(content_bytes), content_bytes, None)
        if piece.large is not None:
            piece.large.note_written(piece.length)
        with self._turn:
            self._room += 1
            self._turn.notify_all()

    def _note(self, member_bytes: int, content_bytes: int, checksum: int | None) -> None:
        self.member_bytes.append(member_bytes)
        self.content_bytes.append(content_bytes)
        self.checksums.append(checksum)


# --- sealing --------------------------------------------------------------------------------------------------------


def seal(path: Path) -> ArchiveInfo:
    """Finish a staged archive, durably: compute the digests, append the index, and sync it.

    It may be killed at any moment and be called again, by another process too.

    Args:
        path: The archive; its layout lies beside it and stays.

    Raises:
        ReadError: What is staged is damaged.
        OSError: It cannot be read or written.
    """
    try:
        layout = Index.from_json(layout_path(path).read_bytes())
    except ValueError as err:
        raise ReadError(f"the layout of {path} is damaged: {err}") from err
    with path.open("rb+", buffering=0) as file:
        end = sum(layout.member_bytes)
        if os.fstat(file.fileno()).st_size < end:
            raise ReadError(f"{path} is shorter than its layout says")
        file.truncate(end)
        try:
            run_side_by_side(lambda: os.fsync(file.fileno()), _Digesting(file, layout).run)
        except ValueError as err:
            raise ReadError(f"{path} is damaged: {err}") from err
        content, index_sha256 = index.packed(layout, end)
        write_at(file.fileno(), [content], end)
        os.fsync(file.fileno())
    return ArchiveInfo(end + len(content), layout.files, index_sha256)


class _Digesting:
    """Does for the large files that were stored as they are what packing left to do, in several threads: digests, and checksums of members.

    Args:
        file: The archive.
        layout: What lies in it; gets the digests.
    """

    def __init__(self, file: BinaryIO, layout: Index) -> None:
        self._file = file
        self._layout = layout
        self._starts = layout.starts()
        self._sections = self._undigested()
        self._turn = threading.Lock()
        self._failed = False

    def _undigested(self) -> Iterator[tuple[Row, list[Part]]]:
        for row in self._layout.rows:
            for number, parts in itertools.groupby(self._layout.parts(row), lambda part: part.start // row.section_bytes):  # noqa: B023 - used at once
                if row.digests[number] is None:
                    yield row, list(parts)

    def run(self) -> None:
        """Digest all of them."""
        size_bytes = sum(row.size_bytes for row in self._layout.rows if None in row.digests)
        run_together(self._work, self._give_up, threads=threads_for(size_bytes))

    def _give_up(self) -> None:
        self._failed = True

    def _next(self) -> tuple[Row, list[Part]] | None:
        with self._turn:
            return None if self._failed else next(self._sections, None)

    def _work(self) -> None:
        spaces = Spaces()
        while (section := self._next()) is not None:
            row, parts = section
            digests = SectionDigests(row.section_bytes)
            for part in parts:
                space = spaces.take(self._layout.member_bytes[part.member])
                digests.update_all(part.start, sliced(self._read(part.member, space), part.first, part.last))
                spaces.give_back(space)
            for number, sha256 in digests.found().items():
                row.digests[number] = sha256

    def _read(self, number: int, space: memoryview) -> list[memoryview]:
        """Read a member into a space, give it the checksum that it lacks, and return what it holds."""
        lacks_checksum = self._layout.checksums and self._layout.checksums[number] is None
        content_bytes = self._layout.content_bytes[number]
        content = space[:content_bytes]
        if stored_size(content_bytes) == len(space) and read_stored(content, partial(self._read_into, self._starts[number])):
            if lacks_checksum:
                self._give_checksum(number, stored(content))
            return [content]
        read_at(self._file.fileno(), space, self._starts[number])
        held = decoded(space, content_bytes)
        if lacks_checksum:
            self._give_checksum(number, [space[:-TAIL_BYTES], tail(held)])
        return held

    def _read_into(self, start: int, buffers: Sequence[memoryview]) -> bool:
        return hasattr(os, "preadv") and os.preadv(self._file.fileno(), buffers, start) == sum(map(len, buffers))

    def _give_checksum(self, number: int, buffers: Sequence[bytes | memoryview]) -> None:
        write_at(self._file.fileno(), [buffers[-1]], self._starts[number + 1] - TAIL_BYTES)
        self._layout.checksums[number] = checksum(buffers)
