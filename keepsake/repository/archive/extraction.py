"""Writing an archive's files below a directory, all of them or none."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from keepsake.exceptions import StorageError, WriteError
from keepsake.repository.archive.names import parents
from keepsake.storage.disk import space_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedWriter
    from pathlib import Path

    from keepsake.repository.archive.entries import ArchivedFile


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
        # The deepest first: of two threads one may have noted a file before the other one has noted its directory.
        for path in sorted(self._made, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def write_empty(self, entry: ArchivedFile) -> None:
        """Write an entry without content: a directory, a link, an empty file."""
        path = self._target / entry.path
        with self.refused_writing(entry):
            if entry.kind == "file":
                self.create(entry).close()
            else:
                self._make_parents(entry)
                if entry.kind == "directory":
                    self._make_directory(path)
                else:
                    path.symlink_to(entry.link_target or "")
                    self._made.append(path)
            self.finish(entry)

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
