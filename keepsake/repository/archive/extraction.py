"""Writing an archive's files below a directory, all of them or none."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from keepsake.exceptions import StorageError, WriteError
from keepsake.repository.archive.files import write_at
from keepsake.repository.archive.members import sliced
from keepsake.repository.archive.names import parents
from keepsake.repository.archive.threads import run_together, threads_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from io import BufferedWriter
    from pathlib import Path

    from keepsake.repository.archive.entries import ArchivedFile
    from keepsake.repository.archive.indexed import IndexedArchive, Part


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
        run_together(job.work, job.give_up, threads=threads_for(size_bytes, is_far=archive.is_far))

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
            raise WriteError(f"cannot write {path}: {err.strerror or err}", url=f"file://{self._target}") from err


class _OpenFile:
    """A file that is being written by several threads.

    Args:
        file: The open file.

    Attributes:
        digest: Of what has been written so far, in order.
        digested_bytes: How much that is.
    """

    def __init__(self, file: BufferedWriter) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.digested_bytes = 0


class _Job:
    """Extracts files: several threads read, unpack and write, each a batch of members at a time; digests follow in order.

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
        self._wanted: dict[int, list[tuple[ArchivedFile, Part]]] = {}
        for entry in files:
            for part in archive.parts(entry.path):
                self._wanted.setdefault(part.member, []).append((entry, part))
        self._left = sorted(self._wanted, reverse=True)
        self._open: dict[str, _OpenFile] = {}
        self._turn = threading.Condition()
        self._failed = False

    def give_up(self) -> None:
        """Make the other threads end soon, and close what is open."""
        with self._turn:
            self._failed = True
            for opened in self._open.values():
                opened.file.close()
            self._turn.notify_all()

    def work(self) -> None:
        """Extract batches until none is left."""
        while (batch := self._next()) is not None:
            written = []
            for number, held in self._archive.read(*batch):
                for entry, part in self._wanted.get(number, ()):
                    pieces = list(sliced(held, part.first, part.last))
                    self._write(entry, part, pieces)
                    written.append((entry, part, pieces))
            # After the writing of all: whoever waits for his turn here has nothing else to do.
            for entry, part, pieces in written:
                self._digest(entry, part, pieces)
                self._on_progress(part.last - part.first)

    def _next(self) -> tuple[int, int] | None:
        with self._turn:
            if self._failed or not self._left:
                return None
            first = last = self._left.pop()
            end = self._archive.batch_end(first, self._left[0] if self._left else first)
            while self._left and self._left[-1] <= end:
                last = self._left.pop()
            return first, last

    def _write(self, entry: ArchivedFile, part: Part, pieces: Sequence[memoryview]) -> None:
        with self._extraction.refused_writing(entry):
            with self._turn:
                opened = self._open.get(entry.path)
                if opened is None:
                    opened = self._open[entry.path] = _OpenFile(self._extraction.create(entry))
            write_at(opened.file.fileno(), pieces, part.start)

    def _digest(self, entry: ArchivedFile, part: Part, pieces: Sequence[memoryview]) -> None:
        opened = self._open[entry.path]
        with self._turn:
            self._turn.wait_for(lambda: self._failed or opened.digested_bytes == part.start)
            if self._failed:
                return
        for piece in pieces:
            opened.digest.update(piece)
        with self._turn:
            opened.digested_bytes += part.last - part.first
            is_whole = opened.digested_bytes == entry.size_bytes
            self._turn.notify_all()
            if is_whole:
                del self._open[entry.path]
        if is_whole:
            with self._extraction.refused_writing(entry):
                opened.file.close()
                self._archive.check_digest(entry.path, opened.digest.hexdigest())
                self._extraction.finish(entry)
