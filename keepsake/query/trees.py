"""Trees of files, of an archive or of the working directory, and which of their files differ.

Only names, sizes, modes and digests are compared here. What differs inside of a file is `keepsake.query.code`'s business.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from keepsake.capture import files as capture
from keepsake.exceptions import ReadError
from keepsake.repository.archive import Digests
from keepsake.repository.archive.index import SECTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from keepsake.capture.files import FileEntry
    from keepsake.repository.archive import ArchivedFile, OpenedArchive

FileStatus: TypeAlias = Literal["same", "added", "deleted", "changed"]

_READ_BYTES = 1 << 20


class TreeFile:
    """A file or a link of a tree. Directories are none: a tree of code is what Git would see of it.

    Args:
        path: Its path in the tree.
        size_bytes: Its length; of a link that of its target.
        is_link: Whether it is a symbolic link, whose content is its target.
        is_executable: Whether its owner may execute it: of a mode Git, too, keeps only this.
        digests: What tells its content from others, if it is known without reading it.
        measure: Reads it and returns the digests of sections of a length.
    """

    def __init__(
        self,
        path: str,
        size_bytes: int,
        digests: Digests | None,
        measure: Callable[[int | None], Digests],
        *,
        is_link: bool = False,
        is_executable: bool = False,
    ) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.is_link = is_link
        self.is_executable = is_executable
        self._digests = digests
        self._measure = cache(measure)

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of its content; None of a large file, of which only its sections have one."""
        digests = self._known_digests()
        return digests.sha256[0] if digests.section_bytes is None else None

    @property
    def digest(self) -> str:
        """What tells its content from others: its SHA-256; of a large file that of its sections' digests."""
        return self.sha256 or hashlib.sha256("".join(self._known_digests().sha256).encode()).hexdigest()

    def _known_digests(self) -> Digests:
        return self._digests or self._measure(SECTION_BYTES)

    def has_content_of(self, other: TreeFile) -> bool:
        """Tell whether the contents are the same; nothing is read where lengths and known digests tell already."""
        if self.size_bytes != other.size_bytes:
            return False
        known = self._digests or other._digests
        section_bytes = known.section_bytes if known is not None else SECTION_BYTES
        return self._digests_of(section_bytes) == other._digests_of(section_bytes)

    def _digests_of(self, section_bytes: int | None) -> Digests:
        known = self._digests
        return known if known is not None and known.section_bytes == section_bytes else self._measure(section_bytes)


class Tree(Protocol):
    """Files by their paths, and how to read them."""

    @property
    def files(self) -> Mapping[str, TreeFile]:
        """All files and links by path."""
        ...

    def contents(self, paths: Sequence[str]) -> Iterator[bytes]:
        """Yield what files hold and where links point to, in the order of the paths.

        Raises:
            ReadError: One cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class FilePair:
    """A path and what lies there on either side.

    Args:
        path: The path.
        left: What lies there on the left.
        right: What lies there on the right.
    """

    path: str
    left: TreeFile | None
    right: TreeFile | None

    @property
    def status(self) -> FileStatus:
        """How the right side differs from the left one."""
        if self.left is None:
            return "added"
        if self.right is None:
            return "deleted"
        is_same = self.left.is_executable == self.right.is_executable and self.has_same_content
        return "same" if is_same else "changed"

    @property
    def has_same_content(self) -> bool:
        """Whether both sides hold the same, perhaps with another mode."""
        return self.left is not None and self.right is not None and self.left.has_content_of(self.right)


def pairs_of(left: Tree, right: Tree, globs: Sequence[str] = ()) -> list[FilePair]:
    """Return what lies in either tree, sorted by path; a file that became a link, or the other way round, as two pairs.

    Args:
        left: The reference.
        right: What is compared with it.
        globs: Patterns that a path, or a directory above it, must match one of; ``*`` matches ``/`` too. None for all paths.
    """
    pairs: list[FilePair] = []
    for path in sorted(left.files.keys() | right.files.keys()):
        if globs and not any(_is_matched(path, glob) for glob in globs):
            continue
        one, other = left.files.get(path), right.files.get(path)
        if one is not None and other is not None and one.is_link != other.is_link:
            pairs += [FilePair(path, one, None), FilePair(path, None, other)]
        else:
            pairs.append(FilePair(path, one, other))
    return pairs


def _is_matched(path: str, glob: str) -> bool:
    glob = glob.removeprefix("./").rstrip("/")
    return fnmatchcase(path, glob) or fnmatchcase(path, f"{glob}/*")


class ArchivedTree:
    """The tree of an archive.

    Args:
        archive: The archive.
    """

    def __init__(self, archive: OpenedArchive) -> None:
        self._archive = archive
        self._targets = {entry.path: os.fsencode(entry.link_target or "") for entry in archive.entries() if entry.kind == "link"}
        self.files = {entry.path: self._file(entry) for entry in archive.entries() if entry.kind != "directory"}

    def _file(self, entry: ArchivedFile) -> TreeFile:
        if entry.kind == "link":
            return _link(entry.path, self._targets[entry.path])
        is_executable = bool(entry.mode & stat.S_IXUSR)

        def measure(section_bytes: int | None) -> Digests:
            return Digests.of_content(self._archive.content(entry.path), section_bytes)

        return TreeFile(entry.path, entry.size_bytes, entry.digests, measure, is_executable=is_executable)

    def contents(self, paths: Sequence[str]) -> Iterator[bytes]:
        """Yield contents, read from the archive."""
        of_files = self._archive.contents([path for path in paths if path not in self._targets])
        for path in paths:
            yield self._targets[path] if path in self._targets else next(of_files)


class DirectoryTree:
    """Files that lie on this machine.

    Args:
        entries: The files.
    """

    def __init__(self, entries: Sequence[FileEntry]) -> None:
        self._entries = {entry.name: entry for entry in entries if entry.kind != "directory"}
        self.files = {name: self._file(entry) for name, entry in self._entries.items()}

    def _file(self, entry: FileEntry) -> TreeFile:
        if entry.kind == "link":
            return _link(entry.name, os.fsencode(entry.link_target or ""))
        try:
            status = entry.source.stat()
        except OSError as err:
            raise _unreadable(entry, err) from err
        is_executable = bool(status.st_mode & stat.S_IXUSR)

        def measure(section_bytes: int | None) -> Digests:
            return Digests.of_content(_chunks(entry), section_bytes)

        return TreeFile(entry.name, status.st_size, None, measure, is_executable=is_executable)

    def contents(self, paths: Sequence[str]) -> Iterator[bytes]:
        """Yield contents, as they are now."""
        for path in paths:
            entry = self._entries[path]
            yield os.fsencode(entry.link_target or "") if entry.kind == "link" else b"".join(_chunks(entry))


def _link(path: str, target: bytes) -> TreeFile:
    return TreeFile(path, len(target), Digests.of_content([target]), partial(Digests.of_content, [target]), is_link=True)


def _chunks(entry: FileEntry) -> Iterator[bytes]:
    try:
        with capture.open_plain(entry.source) as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk
    except OSError as err:
        raise _unreadable(entry, err) from err


def _unreadable(entry: FileEntry, err: OSError) -> ReadError:
    return ReadError(f"cannot read {entry.source}: {err.strerror or err}", url=f"file://{entry.source}")
