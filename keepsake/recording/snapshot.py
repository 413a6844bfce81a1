"""How a checkpoint's files are taken so that the training waits least: moved, cloned by the file system, or packed at once."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from keepsake import messages
from keepsake.capture.files import open_plain
from keepsake.recording import page_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.capture.files import FileEntry
    from keepsake.repository.staging import Staging

WORTH_CLONING_BYTES = 4 << 20
"""From this size on cloning and packing later is quicker than packing at once, which saves a few system calls a file."""

_FICLONE = 0x40049409
"""The request number of FICLONE in ``linux/fs.h``: share another file's blocks until one of the two is written."""

_FICLONERANGE = 0x4020940D
"""That of FICLONERANGE: the same of a part, which a ``struct file_clone_range`` describes."""

_can_clone: dict[tuple[int, int], bool] = {}
"""Whether blocks can be shared between two file systems, that of a source and that of the repository, as far as it is known."""


def may_be_moved(path: Path, entries: Sequence[FileEntry], project_directory: Path) -> bool:
    """Tell whether a checkpoint's files can be had by taking the path itself.

    A link is not what it points to, a directory may hold files that are left out and are not ours to take, and nobody means to lose the
    directory that the project or the process lives in.

    Args:
        path: What was named, absolute.
        entries: What of it is to be saved.
        project_directory: The project directory.
    """
    if path.is_symlink():
        return False
    if path.is_file():
        return True
    real = path.resolve()
    if any(directory.resolve().is_relative_to(real) for directory in (project_directory, Path.cwd())):
        return False
    return sum(len(files) + len(_links(parent, names)) for parent, names, files in os.walk(real)) == sum(
        entry.kind != "directory" for entry in entries
    )


def _links(parent: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if os.path.islink(os.path.join(parent, name))]  # noqa: PTH114, PTH118 - as os.walk has it


def move(id: str, path: Path, entries: Sequence[FileEntry], staging: Staging) -> bool:
    """Take a file or a directory itself, in constant time; False where it lies on another file system.

    Raises:
        OSError: It is not there, or must not be taken.
    """
    real = path.resolve()
    target = staging.announce_snapshot(id, [replace(entry, source=entry.source.relative_to(real)) for entry in entries])
    try:
        path.rename(target)
    except OSError as err:
        staging.discard(id)
        if err.errno == errno.EXDEV:
            return False
        raise
    return True


def clone(id: str, entries: Sequence[FileEntry], staging: Staging) -> bool:
    """Take copies that share their blocks with the files, where the file system can; False where it cannot, or is not worth it.

    Raises:
        OSError: A file is not there, or cannot be read.
    """
    if not _is_worth_cloning(entries, staging.directory):
        return False
    target = staging.announce_snapshot(id, [replace(entry, source=Path(entry.name)) for entry in entries])
    # Under another name until it is whole: the process may be killed in the middle.
    partial = target.with_name("partial")
    try:
        for entry in entries:
            (partial / entry.name).parent.mkdir(parents=True, exist_ok=True)
            _clone_entry(entry, partial / entry.name)
        partial.rename(target)
    except _CannotClone:
        staging.discard(id)
        _can_clone[_devices(entries[0].source, staging.directory)] = False
        messages.debug(f"the file system of {staging.directory} cannot share blocks with {entries[0].source}")
        return False
    except BaseException:
        staging.discard(id)
        raise
    return True


class _CannotClone(Exception):
    """The file systems cannot share blocks."""


def _is_worth_cloning(entries: Sequence[FileEntry], directory: Path) -> bool:
    files = [entry.source for entry in entries if entry.kind == "file"]
    if sys.platform != "linux" or sum(file.lstat().st_size for file in files) < WORTH_CLONING_BYTES:
        return False
    # First, since it takes the system some hundredths of a second to look through what it holds of a large file.
    devices = _devices(files[0], directory)
    if devices not in _can_clone:
        _can_clone[devices] = _shares_a_block(max(files, key=lambda file: file.lstat().st_size), directory)
    if not _can_clone[devices]:
        return False
    # File systems write a file out before they share its blocks, which takes longer than to read it from memory.
    return sum(page_cache.unwritten_bytes(file) for file in files) < WORTH_CLONING_BYTES


def _shares_a_block(source: Path, directory: Path) -> bool:
    """Tell whether a large file can share its first block with a new one; where that cannot be tried, it may be so."""
    import fcntl

    with open_plain(source) as file:
        try:
            copy = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError:
            return True
        try:
            fcntl.ioctl(copy, _FICLONERANGE, struct.pack("=qQQQ", file.fileno(), 0, os.fstat(file.fileno()).st_blksize, 0))
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(copy)


def _devices(source: Path, directory: Path) -> tuple[int, int]:
    return source.lstat().st_dev, directory.stat().st_dev


def _clone_entry(entry: FileEntry, place: Path) -> None:
    if entry.kind == "directory":
        place.mkdir(exist_ok=True)
    elif entry.kind == "link":
        place.symlink_to(entry.source.readlink())
    else:
        with open_plain(entry.source) as source, place.open("xb") as copy:
            _share_blocks(source.fileno(), copy.fileno())
    shutil.copystat(entry.source, place, follow_symlinks=False)


def _share_blocks(source: int, copy: int) -> None:
    import fcntl

    try:
        fcntl.ioctl(copy, _FICLONE, source)
    except OSError as err:
        # Not this file system (EOPNOTSUPP, ENOTTY, EINVAL), or not between these two (EXDEV).
        if err.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS):
            raise _CannotClone from err
        raise
