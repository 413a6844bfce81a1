"""The archives of a repository, by their keys: what `keepsake.repository.archive` reads, where it lies, and what errors call it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from keepsake.exceptions import MissingFiles, ObjectNotFound, ReadError
from keepsake.repository import layout
from keepsake.storage import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from keepsake.repository.archive import ArchivedFile, OpenedArchive, PassingCheck
    from keepsake.repository.records import ArchiveInfo
    from keepsake.storage import Storage


class StoredArchives:
    """Archives in a store.

    What reads archives is loaded by the methods: a listing of experiments must not wait for gzip and tar.

    Args:
        storage: The store.
        label: What people call it.
        is_far: Whether most of the time goes by on the way to it.
    """

    def __init__(self, storage: Storage, label: str, *, is_far: bool) -> None:
        self._storage = storage
        self._label = label
        self._is_far = is_far

    def files(self, key: str, *, only: str | None = None) -> list[ArchivedFile]:
        """Return what an archive holds.

        Args:
            key: The archive's key.
            only: The one file or directory wanted.

        Raises:
            DoesNotExist: ``only`` is not in the archive.
            ReadError: The archive is missing, damaged or unsafe.
        """
        from keepsake.repository import archive

        with self._hint():
            return archive.list_files(self._stored_archive(key), only=only, where=self._where(key))

    def describe(self, key: str) -> ArchiveInfo:
        """Return what to announce of an archive, which is read to its end.

        Raises:
            ReadError: It is missing, damaged or unsafe.
        """
        from keepsake.repository import archive

        return archive.describe(self._stored_archive(key), where=self._where(key))

    def check(self, key: str, *, announced: ArchiveInfo | None = None) -> None:
        """Read all of an archive, and compare its files with its index.

        Args:
            key: The archive's key.
            announced: What the record says of it, which must be so.

        Raises:
            ReadError: It is missing, damaged, unsafe, or not the one that was announced.
        """
        from keepsake.repository import archive

        archive.check(self._stored_archive(key), where=self._where(key), announced=announced)

    def passing_check(self, key: str, announced: ArchiveInfo | None) -> PassingCheck:
        """Return what checks an archive while its bytes pass by.

        Args:
            key: The archive's key.
            announced: What the record says of it.

        Raises:
            ReadError: It is missing, or its index is not the one that was announced.
        """
        from keepsake.repository import archive

        return archive.PassingCheck(self._stored_archive(key), announced, where=self._where(key))

    def open_file(self, key: str, path: str) -> BinaryIO:
        """Return a stream over one file of an archive.

        Raises:
            DoesNotExist: The archive has no such file.
            ReadError: The archive is missing, damaged or unsafe.
        """
        from keepsake.repository import archive

        with self._hint():
            return archive.open_file(self._stored_archive(key), path, where=self._where(key))

    @contextmanager
    def opened(self, key: str, *, with_contents: bool = True) -> Iterator[OpenedArchive]:
        """Open an archive that will be listed and read several times.

        Args:
            key: The archive's key.
            with_contents: False for whoever only wants the entries.

        Raises:
            ReadError: The archive is missing, damaged or unsafe.
        """
        from keepsake.repository import archive

        with (
            self._hint(),
            archive.opened(self._stored_archive(key), where=self._where(key), with_contents=with_contents) as opened,
        ):
            yield opened

    def extract(
        self,
        key: str,
        target: Path,
        *,
        only: str | None = None,
        among: Collection[str] | None = None,
        announced: ArchiveInfo | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Extract an archive, or one file or directory of it, and return the names of what was written.

        Args:
            key: The archive's key.
            target: An existing directory.
            only: The one file or directory wanted.
            among: Names of those that are wanted of these; all if not given.
            announced: What the record says of the archive, which must be so.
            on_progress: Called with how many bytes of files have been written since the last call, by any thread.

        Raises:
            DoesNotExist: ``only`` is not in the archive.
            ReadError: The archive is missing, damaged, unsafe, or not the one that was announced.
        """
        from keepsake.repository import archive

        with self._hint():
            return archive.extract(
                self._stored_archive(key),
                target,
                only=only,
                among=among,
                where=self._where(key),
                announced=announced,
                on_progress=on_progress,
            )

    @contextmanager
    def _hint(self) -> Iterator[None]:
        """Name the command that says what else is damaged."""
        try:
            yield
        except ReadError as err:
            import shlex

            err.hint = err.hint or f"keepsake fsck -R {shlex.quote(self._label)}"
            raise

    def _stored_archive(self, key: str) -> _StoredArchive:
        info = next((info for info in self._storage.list(key) if info.key == key), None)
        if info is None:
            raise self._missing(key)
        return _StoredArchive(self._storage, key, info.size_bytes, self._is_far, partial(self._missing, key))

    def _missing(self, key: str) -> MissingFiles:
        return MissingFiles(f"the files of {self._where(key)} are not in the repository", url=self._storage.url, key=key)

    def _where(self, key: str) -> str:
        kind, _, name = key.rpartition("/")
        return f"{kind.removesuffix('s')} {layout.short_id(name)} in {self._label}"


class _StoredArchive(NamedTuple):
    """An archive in a store, as `keepsake.repository.archive` reads it.

    Args:
        storage: The store.
        key: The archive's key.
        size_bytes: Its length.
        is_far: Whether most of the time goes by on the way to it.
        missing: Makes the error for when it is not there any more.
    """

    storage: Storage
    key: str
    size_bytes: int
    is_far: bool
    missing: Callable[[], MissingFiles]

    def open(self) -> BinaryIO:
        """Return a stream over all of it."""
        with self._told():
            return self.storage.open(self.key)

    def read_range(self, start: int, length: int) -> bytes:
        """Return a part of it."""
        with self._told():
            return self.storage.read_range(self.key, start, length)

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> bool:
        """Fill buffers, one after the other, from a position on; return False where it ends before, or the store cannot do that."""
        with self._told():
            return isinstance(self.storage, DiskStorage) and self.storage.read_into(self.key, start, buffers)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ObjectNotFound as err:
            raise self.missing() from err
