"""What stands at a path, and changing it: a file, a link, a directory or nothing; links are never followed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from keepsake.exceptions import UnsavedFiles
from keepsake.repository.archive import Digests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Kind = Literal["file", "link", "directory", "other"]

TEMPORARY_SUFFIX = ".keepsake-checkout"
"""Ends the name of a file that is about to take its place on a file system of its own."""


@dataclass(frozen=True, slots=True)
class State:
    """What stands somewhere: enough to tell whether it is still the same.

    Args:
        kind: What it is.
        is_executable: Whether the owner may execute the file.
        digests: What the file holds.
        stamp: Length and time of the last change, in nanoseconds, of a file of which no digest is known.
        link_target: Where the link points to.
    """

    kind: Kind
    is_executable: bool = False
    digests: Digests | None = None
    link_target: str | None = None
    stamp: tuple[int, int] | None = None

    def fits(self, path: Path) -> bool:
        """Tell whether this stands at a path.

        Raises:
            OSError: It cannot be read.
        """
        if _without_content(path) != replace(self, digests=None, stamp=None):
            return False
        if self.stamp is not None and self.stamp != file_stamp(path):
            return False
        return self.digests is None or self.digests.fit(path)


def state_of(path: Path) -> State | None:
    """Look at a path, and read it if it is a file; None where nothing is.

    Raises:
        OSError: It cannot be read.
    """
    found = _without_content(path)
    return replace(found, digests=Digests.of(path)) if found is not None and found.kind == "file" else found


def _without_content(path: Path) -> State | None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = kind_of(mode)
    if kind == "file":
        return State("file", is_executable(mode))
    return State(kind, link_target=os.fspath(path.readlink()) if kind == "link" else None)


def kind_of(mode: int) -> Kind:
    """Return what a file's mode says that it is."""
    if stat.S_ISREG(mode):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "directory" if stat.S_ISDIR(mode) else "other"


def is_executable(mode: int) -> bool:
    """Tell whether the owner of a file may execute it: all of a mode that counts as a difference."""
    return bool(mode & stat.S_IXUSR)


def file_stamp(path: Path) -> tuple[int, int]:
    """Return what tells with little effort whether a file was changed: its length, and when that was, in nanoseconds."""
    status = path.lstat()
    return status.st_size, status.st_mtime_ns


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever something else stands at a path, without reading it.

    None where nothing is that could be lost: nothing at all, or a directory, which is never overwritten with files in it.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)


def parents_of(name: str) -> Iterator[str]:
    """Yield the directories that a relative name lies in, innermost first.

    Example:
        >>> list(parents_of("a/b/c"))
        ['a/b', 'a']
    """
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def refuse_links(target: Path, name: str) -> None:
    """Make sure that no directory on the way to a name is a link.

    Raises:
        UnsavedFiles: One is.
    """
    for parent in parents_of(name):
        if (target / parent).is_symlink():
            raise UnsavedFiles(
                f"{target / parent} is a link: writing {name} through it could change files elsewhere",
                hint="choose another directory with -o",
            )


def put(source: Path, target: Path) -> None:
    """Move a file, a link or an empty directory into a place, at once: whoever looks sees the old or the new one.

    Raises:
        OSError: It cannot be moved; what was there is as it was.
    """
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        remove_empty(target)
    try:
        source.replace(target)
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
        # Another file system is mounted there.
        temporary = target.with_name(target.name[:100] + TEMPORARY_SUFFIX)
        try:
            shutil.copy2(source, temporary, follow_symlinks=False)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def remove(target: Path, name: str) -> None:
    """Remove a file or a link, and the directories that hold nothing any more, up to a directory that stays."""
    (target / name).unlink(missing_ok=True)
    for parent in parents_of(name):
        try:
            (target / parent).rmdir()
        except OSError:
            return


def remove_empty(directory: Path) -> None:
    """Remove a directory that holds nothing but empty directories.

    Raises:
        OSError: It holds something else.
    """
    for inner in directory.iterdir():
        if inner.is_symlink() or not inner.is_dir():
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(inner))
        remove_empty(inner)
    directory.rmdir()


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file or a link so that it outlives a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    with source.open("rb") as file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        os.fsync(copy.fileno())
    with suppress(OSError):
        shutil.copystat(source, target)
