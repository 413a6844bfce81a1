"""What the index of a repository knows, for the completion of words in a shell: read as it is, and never brought up to date.

Nothing is asked of the repository, nothing is written, and whatever is wrong with the file is as if it knew nothing.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepsake.query.index_tables import ID_DIGITS, VERSION, id_range, unpacked
from keepsake.repository import fast_json, layout
from keepsake.repository.cache import cache_file
from keepsake.repository.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NEWEST = 200
"""How many of the newest experiments are looked at."""

ENOUGH_DIGITS = 3
"""From so many digits on, the IDs of all checkpoints of all experiments are looked through."""

PATIENCE_S = 0.1
"""How long to wait for another process that is writing: somebody waits at the keyboard."""


class Known:
    """What is known of a repository.

    Args:
        url: The repository's address, as the configuration says it.

    Example:
        >>> Known("file:///nowhere").experiments()
        []
    """

    def __init__(self, url: str) -> None:
        scheme, _, location = url.partition("://")
        # As the store itself would say it, which must not be loaded for that: the library of a bucket takes half a second.
        address = f"file://{Path(location).expanduser()}" if scheme == "file" else f"{scheme.lower()}://{location.rstrip('/')}"
        self._path = cache_file(address, "index")

    def experiments(self, prefix: str = "") -> list[Summary]:
        """Return the newest experiments, the last one first; of those with a prefix, if one is given, not only the newest.

        Args:
            prefix: Digits that the ID starts with.
        """
        rows = self._rows(
            "SELECT summary FROM summaries JOIN experiments USING (number) WHERE key GLOB ? ORDER BY created DESC, key DESC LIMIT ?",
            (layout.record_key(f"{prefix}*"), NEWEST),
        )
        return [Summary(fast_json.loads(summary)) for (summary,) in rows]

    def checkpoints(self, prefix: str) -> list[tuple[str, Summary]]:
        """Return the first digits of the checkpoints' IDs that start with a prefix, and the experiment of each.

        The experiments' own IDs are among them.

        Args:
            prefix: At least `ENOUGH_DIGITS` digits; with fewer nothing is found.
        """
        if len(prefix) < ENOUGH_DIGITS:
            return []
        low, high = id_range(prefix)
        owners = {
            id: int(number)
            for number, ids in self._rows("SELECT number, ids FROM ids")
            for id in unpacked(ids)
            if low <= id <= high
        }
        wanted = sorted(set(owners.values()))[:NEWEST]
        marks = ", ".join("?" * len(wanted))
        rows = self._rows(f"SELECT number, summary FROM summaries WHERE number IN ({marks})", wanted)
        summaries = {number: Summary(fast_json.loads(summary)) for number, summary in rows}
        return [(f"{id:0{ID_DIGITS}x}", summaries[owner]) for id, owner in sorted(owners.items()) if owner in summaries]

    def short_length(self) -> int:
        """Return how many digits tell all IDs apart."""
        return next((int(length) for (length,) in self._rows("SELECT short_length FROM state")), layout.SHORT_ID_LENGTH)

    def named(self) -> dict[str, str]:
        """Return the IDs of experiments that have a name, by name."""
        return {name: id for id, said in self._annotations() if isinstance(name := said.get("name"), str) and name}

    def tags(self) -> list[str]:
        """Return all tags of experiments, each once."""
        tags = {tag for _, said in self._annotations() for tag in said.get("tags") or () if isinstance(tag, str)}
        return sorted(tags)

    def _annotations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, content in self._others(layout.ANNOTATIONS_PREFIX).items():
            id = layout.id_of_json_key(key)
            with suppress(ValueError):
                said = fast_json.loads(content)
                if id is not None and isinstance(said, dict):
                    yield id, said

    def aliases(self) -> list[str]:
        """Return the aliases of checkpoints."""
        names = map(layout.alias_of_key, self._others(layout.ALIASES_PREFIX))
        return sorted(name for name in names if name is not None)

    def _others(self, prefix: str) -> dict[str, bytes]:
        return dict(self._rows("SELECT key, content FROM others WHERE key GLOB ? ORDER BY key", (f"{prefix}/*",)))

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # An absent file is not made.
        address = f"{self._path.absolute().as_uri()}?mode=ro"
        with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(address, uri=True, timeout=PATIENCE_S)) as database:
            if database.execute("PRAGMA user_version").fetchone() == (VERSION,):
                return database.execute(sql, parameters).fetchall()
        return []
