"""Which thread reads, checks and writes what, while an archive's files are extracted."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

from keepsake.repository.archive.files import WriteQueue, portions, write_at
from keepsake.repository.archive.members import sliced
from keepsake.repository.archive.preallocation import STEP_BYTES, WORTH_BYTES, preallocate
from keepsake.repository.archive.threads import run_together, threads_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from io import BufferedWriter

    from keepsake.repository.archive.entries import ArchivedFile
    from keepsake.repository.archive.extraction import Extraction
    from keepsake.repository.archive.index import Part
    from keepsake.repository.archive.indexed import IndexedArchive

WAITING_WRITES = 2
"""How many parts of files may wait to be written: each keeps in memory what was read together with it."""

STREAM_THREADS = 2
"""One that reads and one that writes: nothing else of an archive without an index can be done at the same time."""

_Wanted: TypeAlias = "tuple[ArchivedFile, Part]"
"""A part of a file that is to be written."""


def unpack_members(
    extraction: Extraction,
    archive: IndexedArchive,
    entries: Sequence[ArchivedFile],
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write entries of an archive with an index, in several threads, and check each file's digest.

    Args:
        extraction: Where to.
        archive: What they are entries of.
        entries: Which.
        on_progress: Called with how many bytes have been written since the last call, by any thread.

    Raises:
        ReadError: A file is not what the index says.
        WriteError: A file could not be written.
    """
    for entry in entries:
        if not _has_content(entry):
            extraction.write_empty(entry)
    files = [entry for entry in entries if _has_content(entry)]
    writer = _PartWriter(extraction, on_progress)
    size_bytes = sum(entry.size_bytes for entry in files)
    _run(_MemberJob(writer, archive, files), writer, threads=threads_for(size_bytes, is_far=archive.is_far))


def unpack_stream(
    extraction: Extraction,
    entries: Iterable[tuple[ArchivedFile, Iterable[memoryview]]],
    release: Callable[[memoryview], None],
    size_bytes: int,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write entries of an archive that is read from its beginning to its end: one thread reads while another one writes.

    Args:
        extraction: Where to.
        entries: Which, each with its content, which is read before the next one.
        release: Takes back a part of a content that is written.
        size_bytes: About how much there is to be read.
        on_progress: Called with how many bytes have been written since the last call, by any thread.

    Raises:
        WriteError: A file could not be written.
    """
    writer = _PartWriter(extraction, on_progress)
    _run(_StreamJob(writer, _chunks(extraction, entries, release)), writer, threads=min(STREAM_THREADS, threads_for(size_bytes)))


def _has_content(entry: ArchivedFile) -> bool:
    return entry.kind == "file" and entry.size_bytes > 0


class _Job(Protocol):
    """What several threads do together."""

    def work(self) -> None:
        """Do parts of it until none is left."""


def _run(job: _Job, writer: _PartWriter, *, threads: int) -> None:
    try:
        run_together(job.work, writer.give_up, threads=threads)
    finally:
        writer.close()


@dataclass(frozen=True, slots=True)
class _Write:
    """A part of a file that has been read.

    Args:
        entry: The file.
        start: Where in the file.
        pieces: What, one piece after the other.
        size_bytes: How much that is.
        done: Called when it is written.
    """

    entry: ArchivedFile
    start: int
    pieces: Sequence[memoryview]
    size_bytes: int
    done: Callable[[], None] | None = None


@dataclass(slots=True)
class _OpenFile:
    """A file that is being written.

    Args:
        file: The open file.
        size_bytes: How long it will be.

    Attributes:
        left_bytes: How much of it has not been written yet.
    """

    file: BufferedWriter
    size_bytes: int
    left_bytes: int = field(init=False)
    _allocated: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.left_bytes = self.size_bytes

    def write(self, pieces: Sequence[memoryview], start: int) -> None:
        """Write pieces one after the other, from a position on."""
        self._allocate(start // STEP_BYTES)
        for piece in pieces:
            for portion in portions(piece):
                write_at(self.file.fileno(), [portion], start)
                start += len(portion)

    def _allocate(self, step: int) -> None:
        start = step * STEP_BYTES
        size_bytes = min(STEP_BYTES, self.size_bytes - start)
        if step not in self._allocated and size_bytes >= WORTH_BYTES:
            preallocate(self.file.fileno(), start, size_bytes)
        self._allocated.add(step)


class _PartWriter:
    """Writes parts of files that several threads have read, one of them at a time.

    Args:
        extraction: Where to.
        on_progress: Called with how many bytes have been written since the last call.
    """

    def __init__(self, extraction: Extraction, on_progress: Callable[[int], None] | None) -> None:
        self._extraction = extraction
        self._on_progress = on_progress
        self._open: dict[str, _OpenFile] = {}
        self._queue = WriteQueue(self._write_all, WAITING_WRITES)
        self.has_failed = False

    def put(self, write: _Write) -> None:
        """Write a part, or leave it to the thread that is writing."""
        self._queue.put(write)

    def give_up(self) -> None:
        """Make all threads end soon."""
        self.has_failed = True
        self._queue.give_up()

    def close(self) -> None:
        """Close what is open after an error."""
        for opened in self._open.values():
            opened.file.close()

    def _write_all(self, writes: Sequence[_Write]) -> None:
        for write in writes:
            self._write(write)

    def _write(self, write: _Write) -> None:
        """Write a part of a file, and close it when it is whole."""
        entry = write.entry
        with self._extraction.refused_writing(entry):
            opened = self._open.get(entry.path)
            if opened is None:
                opened = self._open[entry.path] = _OpenFile(self._extraction.create(entry), entry.size_bytes)
            opened.write(write.pieces, write.start)
            opened.left_bytes -= write.size_bytes
            if not opened.left_bytes:
                opened.file.close()
                del self._open[entry.path]
                self._extraction.finish(entry)
        if write.done is not None:
            write.done()
        if self._on_progress is not None:
            self._on_progress(write.size_bytes)


class _MemberJob:
    """Extracts files by the index: several threads read, unpack and check, each some sections at a time, and one of them writes.

    Args:
        writer: What writes.
        archive: What of.
        files: The files, none of them empty.
    """

    def __init__(self, writer: _PartWriter, archive: IndexedArchive, files: Sequence[ArchivedFile]) -> None:
        self._writer = writer
        self._archive = archive
        self._batches = _batches(archive, files)
        self._turn = threading.Lock()

    def work(self) -> None:
        """Extract batches until none is left."""
        while (batch := self._next()) is not None:
            digests = {entry.path: self._archive.digests(entry.path) for entry, _ in batch}
            wanted: dict[int, list[_Wanted]] = {}
            for entry, part in batch:
                wanted.setdefault(part.member, []).append((entry, part))
            for number, held in self._archive.read(min(wanted), max(wanted)):
                if self._writer.has_failed:
                    return
                parts = wanted.get(number, [])
                for entry, part in parts:
                    pieces = list(sliced(held, part.first, part.last))
                    digests[entry.path].update_all(part.start, pieces)
                    # Writes come in their order, so with the last one nobody needs the member any more.
                    done = partial(self._archive.release, held) if part is parts[-1][1] else None
                    self._writer.put(_Write(entry, part.start, pieces, part.last - part.first, done))
            for path, found in digests.items():
                self._archive.check_digests(path, found)

    def _next(self) -> Sequence[_Wanted] | None:
        with self._turn:
            return None if self._writer.has_failed else next(self._batches, None)


def _batches(archive: IndexedArchive, files: Sequence[ArchivedFile]) -> Iterator[list[_Wanted]]:
    """Yield what one thread extracts at a time: whole sections, and of small ones that lie side by side as many as are read at once."""
    sections: list[list[_Wanted]] = []
    for entry in files:
        number = None
        for part in archive.parts(entry.path):
            if number != (number := archive.section(entry.path, part)):
                sections.append([])
            sections[-1].append((entry, part))
    sections.sort(key=lambda section: section[0][1].member)
    batch: list[_Wanted] = []
    for section in sections:
        last = section[-1][1].member
        if batch and archive.batch_end(batch[0][1].member, last) < last:
            yield batch
            batch = []
        batch += section
    if batch:
        yield batch


class _StreamJob:
    """Extracts files as they come: who has the turn reads, and writes what it has read while the next one reads.

    Args:
        writer: What writes.
        chunks: What comes, part by part.
    """

    def __init__(self, writer: _PartWriter, chunks: Iterator[_Write]) -> None:
        self._writer = writer
        self._chunks = chunks
        self._turn = threading.Lock()

    def work(self) -> None:
        """Extract until nothing comes any more."""
        while (chunk := self._next()) is not None:
            self._writer.put(chunk)

    def _next(self) -> _Write | None:
        with self._turn:
            return None if self._writer.has_failed else next(self._chunks, None)


def _chunks(
    extraction: Extraction, entries: Iterable[tuple[ArchivedFile, Iterable[memoryview]]], release: Callable[[memoryview], None]
) -> Iterator[_Write]:
    """Yield what is to be written of files; what has no content is written at once."""
    for entry, content in entries:
        if not _has_content(entry):
            extraction.write_empty(entry)
            continue
        start = 0
        for chunk in content:
            yield _Write(entry, start, [chunk], len(chunk), partial(release, chunk))
            start += len(chunk)
