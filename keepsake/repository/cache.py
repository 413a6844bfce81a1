"""The local cache of a remote repository's records: never the truth, and always safe to delete.

A record is taken from here only if the store lists it with the same etag. Whatever goes wrong with the cache is as if it were empty.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from keepsake.storage import ObjectInfo

_SCHEMA = "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, etag TEXT NOT NULL, content BLOB NOT NULL) WITHOUT ROWID"

PATIENCE_S = 5.0
"""How long to wait for another process that is writing to it."""


class RecordCache:
    """Records by key and etag, in one SQLite file a repository.

    The constructor does no input or output.

    Args:
        url: The repository's address.
        directory: Where caches lie; the user's cache directory if not given.

    Example:
        >>> RecordCache("s3://acme/hotdog").path.suffix
        '.sqlite'
    """

    def __init__(self, url: str, directory: Path | None = None) -> None:
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        self.path = (directory or user_cache_path("keepsake")) / f"{name}.sqlite"

    def known(self, infos: Iterable[ObjectInfo]) -> dict[str, bytes]:
        """Return the contents of those objects that have not changed since they were kept."""
        wanted = {info.key: info.etag for info in infos}
        with suppress(sqlite3.Error, OSError):
            if self.path.exists():
                with closing(self._opened()) as database:
                    rows = database.execute("SELECT key, etag, content FROM records")
                    return {key: content for key, etag, content in rows if wanted.get(key) == etag}
        return {}

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
