"""Writing an archive's files below a directory, all of them or none."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

from keepsake.exceptions import StorageError, WriteError
from keepsake.repository.archive.files import WriteQueue, portions, write_at
from keepsake.repository.archive.members import sliced
from keepsake.repository.archive.names import parents
from keepsake.repository.archive.threads import run_together, threads_for
from keepsake.storage.disk import space_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from io import BufferedWriter
    from pathlib import Path

    from keepsake.repository.archive.entries import ArchivedFile
    from keepsake.repository.archive.index import Part
    from keepsake.repository.archive.indexed import IndexedArchive

WAITING_WRITES = 2
"""How many parts of files may wait to be written: each keeps in memory what was read together with it."""

_Wanted: TypeAlias = "tuple[ArchivedFile, Part]"
"""A part of a file that is to be written."""


class Extraction:
    """Writes entries below a directory, and takes all of it back after an error.

    Args:
        target: The directory.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def write(self, entry: ArchivedFile, content: Iterable[bytes]) -> None:
        """Write one entry."""
        path = self._target / entry.path
        with self.refused_writing(entry):
            if entry.kind == "file":
                with self.create(entry) as file:
                    for chunk in content:
                        file.write(chunk)
            else:
                self._make_parents(entry)
                if entry.kind == "directory":
                    self._make_directory(path)
                else:
                    path.symlink_to(entry.link_target or "")
                    self._made.append(path)
            self.finish(entry)

    def write_all(
        self, archive: IndexedArchive, entries: Sequence[ArchivedFile], on_progress: Callable[[int], None] | None = None
    ) -> None:
        """Write entries of an archive with an index, in several threads, and check each file's digest.

        Args:
            archive: What they are entries of.
            entries: Which.
            on_progress: Called with how many bytes have been written since the last call, by any thread.

        Raises:
            ReadError: A file is not what the index says.
            WriteError: A file could not be written.
        """
        for entry in entries:
            if entry.kind != "file" or not entry.size_bytes:
                self.write(entry, ())
        files = [entry for entry in entries if entry.kind == "file" and entry.size_bytes]
        job = _Job(self, archive, files, on_progress or (lambda size_bytes: None))
        size_bytes = sum(entry.size_bytes for entry in files)
        try:
            run_together(job.work, job.give_up, threads=threads_for(size_bytes, is_far=archive.is_far))
        finally:
            job.close()

    def create(self, entry: ArchivedFile) -> BufferedWriter:
        """Make a file that is not there yet, with its directories."""
        self._make_parents(entry)
        path = self._target / entry.path
        # Exclusive creation never follows a link and never opens what is there already.
        file = path.open("xb")
        self._made.append(path)
        return file

    def finish(self, entry: ArchivedFile) -> None:
        """Give an entry whose content is written its mode and time."""
        path = self._target / entry.path
        if entry.kind == "directory":
            path.chmod(entry.mode | stat.S_IRWXU)
        elif entry.kind == "file":
            path.chmod(entry.mode | stat.S_IRUSR | stat.S_IWUSR)
            os.utime(path, times=(entry.modified.timestamp(),) * 2)

    def _make_parents(self, entry: ArchivedFile) -> None:
        for parent in reversed(parents(entry.path)):
            self._make_directory(self._target / parent)

    def _make_directory(self, path: Path) -> None:
        try:
            path.mkdir()
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise
        else:
            self._made.append(path)

    @contextmanager
    def refused_writing(self, entry: ArchivedFile) -> Iterator[None]:
        """Turn what the system says to writing an entry into our error."""
        path = self._target / entry.path
        try:
            yield
        except StorageError:
            raise
        except OSError as err:
            raise space_error(err, self._target) or WriteError(
                f"cannot write {path}: {err.strerror or err}", url=f"file://{self._target}"
            ) from err


@dataclass(frozen=True, slots=True)
class _Write:
    """Something that is to be written.

    Args:
        entry: The file.
        start: Where in the file.
        pieces: What, one piece after the other.
        size_bytes: How much that is.
        done: What is not needed any more then.
    """

    entry: ArchivedFile
    start: int
    pieces: Sequence[memoryview]
    size_bytes: int
    done: Sequence[memoryview]


@dataclass(slots=True)
class _OpenFile:
    """A file that is being written.

    Args:
        file: The open file.
        left_bytes: How much of it has not been written yet.
    """

    file: BufferedWriter
    left_bytes: int


class _Job:
    """Extracts files: several threads read, unpack and check, each some sections at a time, and one of them writes.

    Args:
        extraction: Where to.
        archive: What of.
        files: The files, none of them empty.
        on_progress: Called with how many bytes have been written since the last call.
    """

    def __init__(
        self, extraction: Extraction, archive: IndexedArchive, files: Sequence[ArchivedFile], on_progress: Callable[[int], None]
    ) -> None:
        self._on_progress = on_progress
        self._extraction = extraction
        self._archive = archive
        self._batches = _batches(archive, files)
        self._open: dict[str, _OpenFile] = {}
        self._queue = WriteQueue(self._write_all, WAITING_WRITES)
        self._lock = threading.Lock()
        self._failed = False

    def give_up(self) -> None:
        """Make the other threads end soon."""
        self._failed = True
        self._queue.give_up()

    def close(self) -> None:
        """Close what is open after an error."""
        for opened in self._open.values():
            opened.file.close()

    def work(self) -> None:
        """Extract batches until none is left."""
        while (batch := self._next()) is not None:
            digests = {entry.path: self._archive.digests(entry.path) for entry, _ in batch}
            wanted: dict[int, list[_Wanted]] = {}
            for entry, part in batch:
                wanted.setdefault(part.member, []).append((entry, part))
            for number, held in self._archive.read(min(wanted), max(wanted)):
                if self._failed:
                    return
                parts = wanted.get(number, [])
                for entry, part in parts:
                    pieces = list(sliced(held, part.first, part.last))
                    digests[entry.path].update_all(part.start, pieces)
                    # Writes come in their order, so with the last one nobody needs the member any more.
                    done = held if part is parts[-1][1] else ()
                    self._queue.put(_Write(entry, part.start, pieces, part.last - part.first, done))
            for path, found in digests.items():
                self._archive.check_digests(path, found)

    def _next(self) -> Sequence[_Wanted] | None:
        with self._lock:
            return None if self._failed else next(self._batches, None)

    def _write_all(self, writes: Sequence[_Write]) -> None:
        """Write parts of files; in the hands of one thread at a time."""
        for write in writes:
            self._write(write)

    def _write(self, write: _Write) -> None:
        """Write a part of a file, and close it when it is whole."""
        entry = write.entry
        with self._extraction.refused_writing(entry):
            opened = self._open.get(entry.path)
            if opened is None:
                opened = self._open[entry.path] = _OpenFile(self._extraction.create(entry), entry.size_bytes)
            _write_in_portions(opened.file.fileno(), write.pieces, write.start)
            opened.left_bytes -= write.size_bytes
            if not opened.left_bytes:
                opened.file.close()
                del self._open[entry.path]
                self._extraction.finish(entry)
        self._archive.release(write.done)
        self._on_progress(write.size_bytes)


def _write_in_portions(descriptor: int, pieces: Sequence[memoryview], start: int) -> None:
    for piece in pieces:
        for portion in portions(piece):
            write_at(descriptor, [portion], start)
            start += len(portion)


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
