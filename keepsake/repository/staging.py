"""Staged files: taken from the training, and not yet in the repository.

A checkpoint's files stand here as the members of its archive, packed while the training waited, or as a snapshot, which is packed
later because taking it cost next to nothing. Both outlive the process; `Staging.seal` makes an archive of either, and may be killed and
begun again, by another process too.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

from keepsake.exceptions import ReadError
from keepsake.repository.layout import is_id
from keepsake.storage.disk import space_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from keepsake.capture.files import FileEntry
    from keepsake.repository.journal import JournalDirectory
    from keepsake.repository.records import ArchiveInfo
    from keepsake.repository.repository import Repository
    from keepsake.storage import DiskStorage

_ARCHIVE_SUFFIX = ".tar.gz"
_SNAPSHOT_SUFFIX = ".snapshot"
_DISCARDED_SUFFIX = ".discarded"
_ENTRIES_NAME = "entries.json"
_FILES_NAME = "files"


class Staging:
    """What is staged of one experiment.

    Args:
        place: Its journal's place.
    """

    def __init__(self, place: JournalDirectory) -> None:
        self.directory = place.path
        self._root = place.root

    def ids(self) -> set[str]:
        """Return the IDs of what is staged, whole or in part."""
        try:
            names = [path.name for path in self.directory.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return set()
        stems = (name.partition(".")[0] for name in names if not name.endswith(_DISCARDED_SUFFIX))
        return {stem for stem in stems if is_id(stem)}

    def archive(self, id: str) -> Path:
        """Return where an archive is staged."""
        return self.directory / f"{id}{_ARCHIVE_SUFFIX}"

    def size_bytes(self, id: str) -> int:
        """Return how much is staged, for people."""
        with suppress(OSError):
            return self.archive(id).stat().st_size
        # The worker may discard it meanwhile.
        return _sizes_bytes(path for path in self._snapshot(id).rglob("*") if path.is_file())

    # --- putting in -------------------------------------------------------------------------------------------------

    def pack(self, id: str, entries: Sequence[FileEntry]) -> None:
        """Read files into the members of an archive; when this returns, nothing that happens to them matters.

        Raises:
            ReadError: A file shrank while it was read, or the only one has gone.
            WriteError: There is no room.
            OSError: A file cannot be read.
        """
        from keepsake.repository import archive

        with self._room(entry.source for entry in entries if entry.kind == "file"):
            archive.stage(entries, id, self.archive(id))

    def announce_snapshot(self, id: str, entries: Sequence[FileEntry]) -> Path:
        """Write down what a snapshot will hold, and return where its files are to be put, which does not exist yet.

        Args:
            id: The checkpoint's ID.
            entries: The files; their sources are relative to the place that is returned.

        Raises:
            WriteError: There is no room.
            OSError: It cannot be written down.
        """
        directory = self._snapshot(id)
        rows = [{"name": e.name, "source": str(e.source), "kind": e.kind, "link_target": e.link_target} for e in entries]
        with self._room():
            directory.mkdir()
            # Names may hold bytes that are not Unicode; ASCII escapes carry them.
            (directory / _ENTRIES_NAME).write_text(json.dumps(rows), encoding="ascii")
        return directory / _FILES_NAME

    # --- taking out -------------------------------------------------------------------------------------------------

    def is_whole(self, id: str) -> bool:
        """Tell whether there is something that can be sealed."""
        from keepsake.repository import archive

        packed = self.archive(id)
        return os.path.lexists(self._snapshot(id) / _FILES_NAME) or (packed.exists() and archive.layout_path(packed).exists())

    def seal(self, id: str) -> ArchiveInfo:
        """Finish the archive, and return what to announce of it.

        Raises:
            ReadError: What is staged is damaged.
            WriteError: There is no room.
            OSError: What is staged is not there.
        """
        from keepsake.repository import archive

        if self._snapshot(id).exists():
            self._discard_archive(id)
            entries = self._snapshot_entries(id)
            with self._room(entry.source for entry in entries if entry.kind == "file"):
                archive.stage(entries, id, self.archive(id))
        with self._room():
            return archive.seal(self.archive(id))

    def store(self, id: str, repository: Repository, key: str) -> ArchiveInfo:
        """Finish the archive, put it into its place, and return what to announce of it.

        What lies in its place already is only announced: somebody died, or failed, between putting it there and saying so. A snapshot
        is only set aside, because the system takes long to remove what is large: `sweep` it when all is announced.

        Args:
            id: What to store.
            repository: Where to; it is on disk.
            key: The archive's key.

        Raises:
            ReadError: What is staged is damaged, or it is neither staged nor in its place.
            WriteError: The store could not take it, or there is no room.
            OSError: It cannot be read.
        """
        if not self.is_whole(id):
            return repository.archives.describe(key)
        info = self.seal(id)
        cast("DiskStorage", repository.storage).adopt(self.archive(id), key)
        self._set_aside(id)
        return info

    def discard(self, id: str) -> None:
        """Remove all that is staged of one ID."""
        self._set_aside(id)
        self.sweep(id)

    def _set_aside(self, id: str) -> None:
        # The snapshot goes first, for with it and without an archive it would be packed once more; and under another name, so that
        # one of which a part is gone already is never taken for whole.
        with suppress(OSError):
            self._snapshot(id).rename(self._discarded(id))
        self._discard_archive(id)

    def is_set_aside(self, id: str) -> bool:
        """Tell whether there is something to sweep."""
        return self._discarded(id).exists()

    def sweep(self, id: str) -> None:
        """Remove the snapshot that was set aside."""
        shutil.rmtree(self._discarded(id), ignore_errors=True)

    @contextmanager
    def _room(self, files: Iterable[Path] = ()) -> Iterator[None]:
        """Turn the system's words about a lack of room into our error.

        Args:
            files: What is to be written, as far as that is known.
        """
        try:
            yield
        except OSError as err:
            lacking = space_error(err, self._root, need_bytes=_sizes_bytes(files) or None)
            if lacking is None:
                raise
            raise lacking from err

    def _discard_archive(self, id: str) -> None:
        from keepsake.repository import archive

        for path in (archive.layout_path(self.archive(id)), self.archive(id)):
            with suppress(OSError):
                path.unlink()

    def _snapshot(self, id: str) -> Path:
        return self.directory / f"{id}{_SNAPSHOT_SUFFIX}"

    def _discarded(self, id: str) -> Path:
        return self.directory / f"{id}{_DISCARDED_SUFFIX}"

    def _snapshot_entries(self, id: str) -> list[FileEntry]:
        from keepsake.capture.files import FileEntry

        directory = self._snapshot(id)
        files = directory / _FILES_NAME
        try:
            rows = json.loads((directory / _ENTRIES_NAME).read_bytes())
            return [FileEntry(row["name"], files / row["source"], row["kind"], row["link_target"]) for row in rows]
        except (ValueError, KeyError, TypeError) as err:
            # Not all that was written reaches the disk where the machine goes down.
            raise ReadError(f"the list of files in {directory} is damaged: {err}") from err


def _sizes_bytes(files: Iterable[Path]) -> int:
    size_bytes = 0
    for file in files:
        # It may have gone meanwhile.
        with suppress(OSError):
            size_bytes += file.lstat().st_size
    return size_bytes
