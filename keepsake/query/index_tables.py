"""The tables behind the index, in one SQLite file: how they are written and read. What is asked is `keepsake.query.index`'s business."""

from __future__ import annotations

import operator
import sqlite3
import struct
import sys
from array import array
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate, count, islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from keepsake.query.listed_json import details_of
from keepsake.repository import fast_json
from keepsake.repository.layout import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from keepsake.query.entries import Entry

Table: TypeAlias = Literal["summaries", "listed_json", "ranges", "ids", "packages"]

BATCH = 1000
"""How many experiments are written or asked for together: enough to be quick, few enough to be small in memory."""

VERSION = 4
"""Of the tables and of what stands in them. A file of another version is made anew."""

PATIENCE_S = 5.0
"""How long to wait for another process that is writing."""

ID_DIGITS = 16
"""How many hexadecimal digits of each ID are kept: eight bytes. Should two IDs agree in all of them, which among ten million random ones
has a probability of 1 in 370,000, both are found."""

FEW = 8
"""So many new IDs are compared with all others; where there are more, all are looked at."""

_NO_OTHER = 1 << 4 * ID_DIGITS
"""A difference that needs no digit at all."""

_SCHEMA = f"""
CREATE TABLE experiments (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, etag TEXT NOT NULL, created TEXT NOT NULL,
                          listed REAL NOT NULL);
CREATE TABLE summaries (number INTEGER PRIMARY KEY, summary BLOB NOT NULL);
CREATE TABLE listed_json (number INTEGER PRIMARY KEY, listed_json BLOB NOT NULL);
CREATE TABLE ranges (number INTEGER PRIMARY KEY, ranges BLOB NOT NULL);
CREATE TABLE ids (number INTEGER PRIMARY KEY, ids BLOB NOT NULL);
CREATE TABLE packages (number INTEGER PRIMARY KEY, packages BLOB NOT NULL);
CREATE TABLE others (key TEXT PRIMARY KEY, etag TEXT NOT NULL, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE state (short_length INTEGER NOT NULL);
INSERT INTO state VALUES ({SHORT_ID_LENGTH});
PRAGMA user_version = {VERSION};
"""

_PARTS: dict[Table, str] = {
    "summaries": "summary",
    "listed_json": "listed_json",
    "ranges": "ranges",
    "ids": "ids",
    "packages": "packages",
}
"""The tables with what is kept of each experiment by its number, and which part of an entry that is."""


class IndexTables:
    """The tables; each method leaves them whole.

    Args:
        path: The file, made where it is missing or of another version; None keeps the tables in memory.

    Raises:
        sqlite3.Error: The file cannot be used. So do all methods.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(
            path if path is not None else ":memory:", timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        # A power cut may damage what is only a cache.
        self._database.execute("PRAGMA synchronous = OFF")
        self._new_ids = bytearray()
        if self._version() != VERSION:
            self._make()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a SELECT finds."""
        return self._database.execute(sql, parameters).fetchall()

    def state(self) -> int:
        """Return a number that is another one when another process has written to the file."""
        [(version,)] = self.rows("PRAGMA data_version")
        return int(version)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __del__(self) -> None:
        # Perhaps of another thread, or of one that could not be opened.
        with suppress(sqlite3.Error, AttributeError):
            self.close()

    def _version(self) -> int:
        [(version,)] = self.rows("PRAGMA user_version")
        return int(version)

    def _make(self) -> None:
        with self.transaction():
            if self._version() == VERSION:
                # Another process was faster.
                return
            for (name,) in self.rows("SELECT name FROM sqlite_schema WHERE type = 'table'"):
                self._database.execute(f'DROP TABLE "{name}"')
            for statement in _SCHEMA.split(";"):
                self._database.execute(statement)

    def transaction(self) -> _Transaction:
        """Return a context in which everything is written or nothing."""
        return _Transaction(self._database)

    # --- experiments ------------------------------------------------------------------------------------------------

    def put_experiments(self, experiments: Iterable[tuple[str, Entry]], listed: float) -> None:
        """Add or replace experiments, but for those that another process has listed later; `widen` is to be called after the last.

        Args:
            experiments: The etag of each record, and what is kept of it.
            listed: When they were listed, in seconds since the epoch.
        """
        with self.transaction():
            wanted = list(experiments)
            known = self._known([entry.key for _, entry in wanted])
            [(last,)] = self.rows("SELECT coalesce(max(number), 0) FROM experiments")
            numbers = count(last + 1)
            put = [
                (known[entry.key][0] if entry.key in known else next(numbers), etag, entry)
                for etag, entry in wanted
                if entry.key not in known or known[entry.key][1] <= listed
            ]
            for number, _, entry in put:
                before = self.rows("SELECT ids FROM ids WHERE number = ?", (number,)) if number <= last else []
                self._new_ids += _without(entry.ids, before[0][0]) if before else entry.ids
            # All of one table together, which takes half the time that all of one experiment does.
            self._database.executemany(
                "INSERT OR REPLACE INTO experiments VALUES (?, ?, ?, ?, ?)",
                [(number, entry.key, etag, entry.created, listed) for number, etag, entry in put],
            )
            for table, part in _PARTS.items():
                content_of = operator.attrgetter(part)
                self._database.executemany(
                    f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", [(number, content_of(entry)) for number, _, entry in put]
                )

    def _known(self, keys: Sequence[str]) -> dict[str, tuple[int, float]]:
        """Return number and time of listing of those of some experiments that are there."""
        places = ", ".join("?" * len(keys))
        return {
            key: (number, listed)
            for key, number, listed in self.rows(f"SELECT key, number, listed FROM experiments WHERE key IN ({places})", keys)
        }

    def remove_experiments(self, keys: Iterable[str], listed: float) -> None:
        """Forget experiments, but for those that another process has listed later.

        Args:
            keys: Their keys.
            listed: When they were not listed any more, in seconds since the epoch.
        """
        with self.transaction():
            found = [self.rows("SELECT number FROM experiments WHERE key = ? AND listed <= ?", (key, listed)) for key in keys]
            for number in [number for rows in found for (number,) in rows]:
                for table in (*_PARTS, "experiments"):
                    self._database.execute(f"DELETE FROM {table} WHERE number = ?", (number,))

    def newest(self, limit: int | None, *tables: Table) -> list[tuple[Any, ...]]:
        """Return key, number and what some tables keep of the newest experiments, oldest first.

        Args:
            limit: How many; None for all.
            tables: What is wanted.
        """
        columns = ", ".join(_PARTS[table] for table in tables)
        joined = " ".join(f"JOIN {table} USING (number)" for table in (*tables[1:], "experiments"))
        chosen = (
            "" if limit is None else "WHERE number IN (SELECT number FROM experiments ORDER BY created DESC, key DESC LIMIT ?)"
        )
        # In one statement: another process may write between two.
        rows = self.rows(
            f"SELECT created, key, number, {columns} FROM {tables[0]} {joined} {chosen}",
            () if limit is None else (limit,),
        )
        rows.sort()
        return [row[1:] for row in rows]

    def one(self, key: str) -> tuple[int, bytes] | None:
        """Return number and summary of an experiment; None if it is not there."""
        rows = self.rows("SELECT number, summary FROM experiments JOIN summaries USING (number) WHERE key = ?", (key,))
        return (int(rows[0][0]), rows[0][1]) if rows else None

    def number(self, key: str) -> int | None:
        """Return the number of an experiment."""
        found = self.rows("SELECT number FROM experiments WHERE key = ?", (key,))
        return int(found[0][0]) if found else None

    def rest(self, what: str, number: int) -> Any:
        """Return the ``details``, the ``ranges`` or the ``packages`` of an experiment; None if they are not there.

        Raises:
            ValueError: They are damaged.
        """
        table = table_of(what)
        found = self.rows(f"SELECT {_PARTS[table]} FROM {table} WHERE number = ?", (number,))
        return read_part(what, found[0][0]) if found else None

    def listed_json(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return what ``ls --json`` prints of some experiments, by key, as it is kept; those that are not there are left out."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            places = ", ".join("?" * len(batch))
            found |= self.rows(
                f"SELECT key, listed_json FROM experiments JOIN listed_json USING (number) WHERE key IN ({places})", batch
            )
        return found

    # --- other objects ----------------------------------------------------------------------------------------------

    def put_others(self, objects: Iterable[tuple[str, str, bytes]], gone: Iterable[str]) -> None:
        """Keep objects as they are, by key, etag and content, and forget those that are gone."""
        with self.transaction():
            self._database.executemany("DELETE FROM others WHERE key = ?", [(key,) for key in gone])
            self._database.executemany("INSERT OR REPLACE INTO others VALUES (?, ?, ?)", objects)

    def others(self, prefix: str) -> list[tuple[str, bytes]]:
        """Return the objects that lie below a prefix: key and content."""
        return self.rows(
            "SELECT key, content FROM others WHERE key >= ? AND key < ?", (f"{prefix}/", f"{prefix}0")
        )  # 0 follows /

    # --- IDs --------------------------------------------------------------------------------------------------------

    def owners(self, prefix: str) -> list[str]:
        """Return the keys of the experiments that have an ID with a prefix, themselves or one of their checkpoints."""
        rows = self.rows("SELECT number, ids FROM ids")
        ends = list(accumulate(len(ids) for _, ids in rows))
        # All of them are searched together, which takes a tenth of the time that one experiment after the other does.
        places = _places(b"".join([ids for _, ids in rows]), prefix[:ID_DIGITS])
        numbers = sorted({rows[bisect_right(ends, place)][0] for place in places})
        keys = [self.rows("SELECT key FROM experiments WHERE number = ?", (number,)) for number in numbers]
        return [key for found in keys for (key,) in found]

    def short_length(self, added: Iterable[int] = ()) -> int:
        """Return how many digits tell all IDs apart.

        Args:
            added: Further IDs, of which some may be known.
        """
        [(length,)] = self.rows("SELECT short_length FROM state")
        new = set(added)
        return max(length, self._needed_length(new)) if new else int(length)

    def widen(self) -> None:
        """Let short IDs be long enough for the IDs that have been added."""
        new, self._new_ids = unpacked(self._new_ids), bytearray()
        if new:
            needed = _length_to_tell_apart(self._ids()) if len(new) > FEW else self._needed_length(new)
            self._database.execute("UPDATE state SET short_length = max(short_length, ?)", (needed,))

    def _ids(self) -> bytes:
        return b"".join([content for (content,) in self.rows("SELECT ids FROM ids")])

    def _needed_length(self, new: Collection[int]) -> int:
        """Return how many digits tell each of some IDs, which may be there already, from all others."""
        ids = unpacked(self._ids())
        if len(new) > FEW:
            # To tell which are there already takes less time than to look at each of them twice.
            return _length_to_tell_apart(_packed({*ids, *new}))
        others = set(ids).difference(new)
        needed = 0
        for id in set(new):
            needed = max(needed, _length_of_difference(min(map(id.__xor__, others), default=_NO_OTHER)))
            others.add(id)
        return needed


def table_of(what: str) -> Table:
    """Return the table with what is kept apart of summaries."""
    return "listed_json" if what == "details" else cast("Table", what)


def read_part(what: str, content: bytes) -> Any:
    """Return what is kept apart of a summary.

    Raises:
        ValueError: It is damaged.
    """
    return details_of(content) if what == "details" else fast_json.loads(content)


def id_range(prefix: str) -> tuple[int, int]:
    """Return the least and the greatest number of the IDs that start with hexadecimal digits.

    Example:
        >>> [hex(bound) for bound in id_range("4591273")]
        ['0x4591273000000000', '0x4591273fffffffff']
    """
    digits = prefix[:ID_DIGITS]
    return int(digits.ljust(ID_DIGITS, "0"), 16), int(digits.ljust(ID_DIGITS, "f"), 16)


def packed(ids: Sequence[str]) -> bytes:
    """Return the numbers of IDs as bytes, in their order.

    Raises:
        ValueError: One of them is no ID.

    Example:
        >>> [hex(number) for number in unpacked(packed(["f" * 64, "4591273" + "0" * 57]))]
        ['0x4591273000000000', '0xffffffffffffffff']
    """
    content = bytes.fromhex("".join(sorted([id[:ID_DIGITS] for id in ids])))
    if 2 * len(content) != ID_DIGITS * len(ids):
        raise ValueError("an ID is too short")
    return content


def unpacked(content: bytes | bytearray) -> tuple[int, ...]:
    """Return the numbers of IDs, ascending."""
    return struct.unpack(f">{len(content) // 8}Q", content)


def _without(ids: bytes, others: bytes) -> bytes:
    return _packed(set(unpacked(ids)).difference(unpacked(others)))


def _packed(numbers: Collection[int]) -> bytes:
    return struct.pack(f">{len(numbers)}Q", *numbers)


def _places(ids: bytes, digits: str) -> Iterator[int]:
    """Yield where IDs stand that start with some digits."""
    whole, rest = bytes.fromhex(digits[: len(digits) & ~1]), digits[len(digits) & ~1 :]
    if not whole:
        yield from (8 * number for number, first in enumerate(ids[::8]) if not rest or first >> 4 == int(rest, 16))
        return
    place = ids.find(whole)
    while place >= 0:
        if not place % 8 and (not rest or ids[place + len(whole)] >> 4 == int(rest, 16)):
            yield place
        place = ids.find(whole, place + 1)


def _length_to_tell_apart(ids: bytes) -> int:
    """Return how many digits tell IDs apart, at least as many as are always shown; the same ID may be there several times.

    Only those that agree in their first digits are compared, which are few, while to sort all takes a fifth of the time of a first listing.

    Args:
        ids: Their numbers, as bytes.
    """
    heads = _first_digits(ids)
    shared = _repeated(heads)
    alike = {ids[8 * place : 8 * place + 8] for place, head in enumerate(heads) if head in shared} if shared else set()
    if len(alike) <= len(shared):
        # Each of these is one ID that is there several times.
        return SHORT_ID_LENGTH + bool(_repeated(head >> 4 for head in set(heads)))
    ordered = sorted(map(int.from_bytes, alike))
    return _length_of_difference(min(map(operator.xor, ordered, islice(ordered, 1, None))))


def _first_digits(ids: bytes) -> array[int]:
    """Return the first eight digits of each ID, one more than are always shown: half of its bytes."""
    halves = array("I", ids)
    if sys.byteorder == "little":
        halves.byteswap()
    return halves[::2]


def _repeated(numbers: Iterable[int]) -> set[int]:
    seen: set[int] = set()
    see = seen.add
    return {number for number in numbers if number in seen or see(number)}


def _length_of_difference(difference: int) -> int:
    """Return how many digits it takes to see that two IDs differ, from the exclusive or of their numbers."""
    return ID_DIGITS - (difference.bit_length() - 1) // 4


class _Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")
