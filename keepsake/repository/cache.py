"""The local cache of a remote repository's records: never the truth, and always safe to delete.

A record is taken from here only if the store lists it with the same etag. Whatever goes wrong with the cache is as if it were empty.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import zlib
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keepsake.storage import ObjectInfo

_SCHEMA = "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, etag TEXT NOT NULL, content BLOB NOT NULL) WITHOUT ROWID"

PATIENCE_S = 5.0
"""How long to wait for another process that is writing to it."""


def cache_directory() -> Path:
    """Return where caches lie: what ``KEEPSAKE_CACHE_DIR`` says, else the user's cache directory."""
    named = os.environ.get("KEEPSAKE_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    if _IS_LINUX:
        # The XDG base directory specification, and what platformdirs does, whose import takes as long as all of a small listing.
        base = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(base) if base.startswith("/") else _home() / ".cache") / "keepsake"
    from platformdirs import user_cache_path

    return user_cache_path("keepsake")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return _instead_of_home(os.getuid())


@cache
def _instead_of_home(user_id: int) -> Path:
    """Return a directory for a user whom the system does not know, as in many containers.

    It is theirs alone: what lies in a cache is used, and anybody can make a directory in the one for temporary files.
    """
    import stat
    import tempfile

    place = Path(tempfile.gettempdir()) / f"keepsake-{user_id}"
    with suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
        status = place.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == user_id and not status.st_mode & 0o022:
            return place
    return Path(tempfile.mkdtemp(prefix="keepsake-"))


def cache_file(url: str, kind: str) -> Path:
    """Return the file in which something is kept of a repository.

    Args:
        url: The repository's address.
        kind: What is kept.
    """
    # Two that are spelled alike as file names differ in the checksum. A digest would take longer to load than the listing of a few.
    name = re.sub(r"[^A-Za-z0-9.]+", "-", url)[-MAX_NAME_LENGTH:].lstrip(".-")
    return cache_directory() / f"{name}-{zlib.crc32(url.encode()):08x}.{kind}.sqlite"


MAX_NAME_LENGTH = 100
"""How much of a repository's address stands in a file's name, so that people can see whose cache it is."""


def cache_place(url: str, name: str) -> Path:
    """Return a file or a directory that belongs to one repository alone: what one says must never be taken for what another one does.

    Args:
        url: The repository's address.
        name: What the place is called.
    """
    from hashlib import sha256

    return cache_directory() / f"{sha256(url.encode()).hexdigest()[:32]}.{name}"


_IS_LINUX = sys.platform.startswith("linux")


class RecordCache:
    """Records by key and etag, in one SQLite file a repository.

    The constructor does no input or output.

    Args:
        url: The repository's address.

    Example:
        >>> RecordCache("s3://acme/hotdog").path.suffix
        '.sqlite'
    """

    def __init__(self, url: str) -> None:
        self.path = cache_file(url, "records")

    def known(self, infos: Iterable[ObjectInfo]) -> dict[str, bytes]:
        """Return the contents of those objects that have not changed since they were kept."""
        found: dict[str, bytes] = {}
        with suppress(sqlite3.Error, OSError):
            if self.path.exists():
                with closing(self._opened()) as database:
                    for info in infos:
                        row = database.execute(
                            "SELECT content FROM records WHERE key = ? AND etag = ?", (info.key, info.etag)
                        ).fetchone()
                        if row is not None:
                            found[info.key] = row[0]
        return found

    def keep(self, fetched: Mapping[str, tuple[str, bytes]], present: Iterable[str]) -> None:
        """Keep what was fetched, and forget what is not there any more.

        Args:
            fetched: Etags and contents by key.
            present: All keys that the store lists.
        """
        try:
            self._write(fetched, set(present))
        except (sqlite3.DatabaseError, OSError):
            # Damaged, perhaps: the next one begins anew.
            with suppress(OSError):
                self.path.unlink()

    def _write(self, fetched: Mapping[str, tuple[str, bytes]], present: set[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._opened()) as database, database:
            database.execute(_SCHEMA)
            gone = [(key,) for (key,) in database.execute("SELECT key FROM records") if key not in present]
            database.executemany("DELETE FROM records WHERE key = ?", gone)
            rows = [(key, etag, content) for key, (etag, content) in fetched.items()]
            database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)

    def _opened(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=PATIENCE_S)
