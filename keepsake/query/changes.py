"""How what a repository holds differs from what the index knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keepsake.repository.repository import Listing
    from keepsake.storage import ObjectInfo


class Changes(NamedTuple):
    """What differs between a listing and what the tables knew.

    Args:
        listing: The listing; where a child has made it, of the records only those that have changed.
        changed: The records that are new or were written again.
        gone: The keys of those that are not there any more.
    """

    listing: Listing
    changed: list[ObjectInfo]
    gone: set[str]

    @classmethod
    def between(cls, known: Mapping[str, str], listing: Listing) -> Self:
        """Return how a listing differs from the etags that are known, by key."""
        changed = [info for info in listing.records if known.get(info.key) != info.etag]
        return cls(listing, changed, known.keys() - {info.key for info in listing.records})
