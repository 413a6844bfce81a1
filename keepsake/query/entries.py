"""What the index keeps of records, made of their files: in this process or, where there are thousands, in several."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keepsake import messages
from keepsake.exceptions import CorruptedRecord
from keepsake.query.index_tables import packed
from keepsake.query.listed_json import kept
from keepsake.repository import fast_json
from keepsake.repository.summary import Summary, parse
from keepsake.storage.disk import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keepsake.repository.repository import Repository
    from keepsake.storage import ObjectInfo

MANY = 2000
"""From so many records on other processes help: to read fewer takes less time than to start them."""


class Entry(NamedTuple):
    """What the index keeps of one record, as bytes of its tables.

    Args:
        key: The record's key.
        created: When the experiment was started, as the format has it.
        summary: JSON of the row of a summary.
        listed_json: What ``ls --json`` prints of it; see `kept`.
        ranges: JSON of the names and ranges of its metrics.
        ids: All its IDs; see `packed`.
        packages: JSON of the versions of packages.
    """

    key: str
    created: str
    summary: bytes
    listed_json: bytes
    ranges: bytes
    ids: bytes
    packages: bytes

    @classmethod
    def of(cls, key: str, content: bytes) -> Entry:
        """Return what is kept of a record's file.

        Raises:
            CorruptedRecord: It is not an experiment's record.
        """
        parsed = parse(content, key=key)
        summary = Summary(parsed.row, {"details": parsed.details})
        return cls(
            key,
            parsed.created,
            fast_json.dumps(parsed.row).encode(),
            kept(summary),
            fast_json.dumps(parsed.ranges).encode(),
            packed(parsed.ids),
            parsed.packages.encode(),
        )


def entries(
    repository: Repository, changed: Sequence[ObjectInfo], present: Sequence[ObjectInfo], helpers: int
) -> Iterator[Entry]:
    """Yield what is kept of records, in any order; those that are deleted meanwhile are left out, and damaged ones with a warning.

    Args:
        repository: Where they are.
        changed: The records.
        present: All records that were listed.
        helpers: How many processes may read them where they are many and lie on this machine.
    """
    for found in _found(repository, changed, present, helpers):
        if isinstance(found, Entry):
            yield found
        else:
            messages.warning(f"{found}; it is left out")


def _found(
    repository: Repository, changed: Sequence[ObjectInfo], present: Sequence[ObjectInfo], helpers: int
) -> Iterator[Entry | str]:
    if helpers > 1 and len(changed) >= MANY and isinstance(repository.storage, DiskStorage):
        from keepsake.query.helpers import read

        return read(repository.storage, [info.key for info in changed], helpers)
    return (entry_or_damage(*one) for one in repository.contents(changed, [info.key for info in present]))


def entry_or_damage(key: str, content: bytes) -> Entry | str:
    """Return what is kept of a record's file, or what is wrong with it."""
    try:
        return Entry.of(key, content)
    except CorruptedRecord as err:
        return err.message
