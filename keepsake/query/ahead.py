"""A look at a repository by a child of this process, while this one reads what the tables keep of its experiments.

Of the time that it takes to list ten thousand experiments, a fifth goes by with asking the file system which records have changed, and
another with reading the tables; neither needs the other. Threads would not do: they wait for each other at each of the ten thousand files.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, cast

from keepsake.query.changes import Changes
from keepsake.query.index_tables import IndexTables
from keepsake.storage import DiskStorage

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from keepsake.repository.repository import Repository

MANY_BYTES = 4_000_000
"""Tables as large hold a thousand experiments or more; of fewer, all is read before a child could be of help."""


class Look:
    """A child process that looks what has changed; one that dies costs nothing but its help.

    The constructor starts it. Only for a process with a single thread, on Linux: elsewhere a copy of a process may not do what this
    one does.

    Args:
        repository: Where to look: a directory of this machine.
        path: The file of the tables, which this process has not opened yet: SQLite allows nobody to take what is open along.

    Raises:
        OSError: There may be no more processes.
    """

    def __init__(self, repository: Repository, path: Path) -> None:
        self._reading, writing = os.pipe()
        try:
            self._child = os.fork()
        except OSError:
            os.close(self._reading)
            os.close(writing)
            raise
        if not self._child:
            _look(repository, path, writing)
        os.close(writing)

    @staticmethod
    def is_worth_it(repository: Repository, path: Path) -> bool:
        """Tell whether there is so much to read that a child is of help, and may be had."""
        if sys.platform != "linux" or threading.active_count() > 1:
            return False
        try:
            return isinstance(repository.storage, DiskStorage) and path.stat().st_size >= MANY_BYTES
        except OSError:
            return False

    def changes(self) -> Changes | None:
        """Wait for the child and return what it has found; None if it has died or could not look."""
        import pickle

        with open(self._reading, "rb") as pipe:  # noqa: PTH123 - it has no path
            content = pipe.read()
        os.waitpid(self._child, 0)
        try:
            return cast("Changes", pickle.loads(content))
        except (EOFError, pickle.UnpicklingError):
            return None


def _look(repository: Repository, path: Path, writing: int) -> NoReturn:
    """Be the child. Whatever happens, it says nothing and runs nothing of what this process does at its end."""
    try:
        import pickle

        known = dict(IndexTables(path).rows("SELECT key, etag FROM experiments"))
        changes = Changes.between(known, repository.listing())
        # The others are as the tables have them.
        answer = pickle.dumps(changes._replace(listing=changes.listing._replace(records=changes.changed)))
        with open(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
