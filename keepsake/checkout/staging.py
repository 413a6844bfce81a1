"""The directory that files are fetched into before they go where they belong, on the same file system."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from keepsake.capture.files import STAGING_PREFIX
from keepsake.storage.disk import write_error
from keepsake.storage.locks import ProcessLock

_LOCK_NAME = "lock"
_IGNORE_NAME = ".gitignore"

LEFT_BEHIND_S = 24 * 3600.0
"""Age at which a staging directory counts as left behind where the file system knows no locks."""


class Staging:
    """A directory that lives as long as its process; those of processes that died are removed by the next one.

    Args:
        target: Where the files will go; it need not exist. Nothing is made before it is needed.
    """

    def __init__(self, target: Path) -> None:
        self.place = next(parent for parent in [target, *target.parents] if parent.is_dir())
        self._directory: Path | None = None
        self._lock: ProcessLock | None = None

    def part(self, name: str) -> Path:
        """Return a directory in it, which is made at the first call.

        Raises:
            WriteError: It cannot be made.
        """
        try:
            if self._directory is None:
                self._directory = self._made()
            part = self._directory / name
            part.mkdir(exist_ok=True)
        except OSError as err:
            raise write_error(err, self.place) from err
        return part

    def _made(self) -> Path:
        self._sweep()
        while True:
            directory = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.place))
            self._lock = ProcessLock(directory / _LOCK_NAME)
            with suppress(FileNotFoundError):
                if self._lock.acquire():
                    (directory / _IGNORE_NAME).write_text("*\n", encoding="ascii")
                    return directory
            # Another process has taken it for one that was left behind.

    def _sweep(self) -> None:
        for directory in self.place.glob(f"{STAGING_PREFIX}*"):
            with suppress(OSError):
                lock = ProcessLock(directory / _LOCK_NAME)
                if (directory / _LOCK_NAME).exists() and lock.acquire():
                    if lock.is_real or time.time() - directory.stat().st_mtime > LEFT_BEHIND_S:
                        shutil.rmtree(directory, ignore_errors=True)
                    lock.release()

    def close(self) -> None:
        """Remove it with all that is still in it."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def walk(directory: Path) -> list[str]:
    """Return the files, links and empty directories below a directory as relative names, sorted."""
    found: list[str] = []
    for parent, directories, files in os.walk(directory):
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        found += [(Path(parent) / name).relative_to(directory).as_posix() for name in [*files, *links]]
        if not directories and not files and Path(parent) != directory:
            found.append(Path(parent).relative_to(directory).as_posix())
    return sorted(found)
