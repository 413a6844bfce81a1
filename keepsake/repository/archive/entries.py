"""What people are told of an archive's entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keepsake.repository.archive.index import Kind

MAX_TIME = 1 << 36
"""Seconds since 1970 that `datetime` and file systems can hold: some 2,000 years."""


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One entry of an archive.

    Args:
        path: Its path without the ID in front.
        size_bytes: Its length; 0 for directories and links.
        mode: Permission bits.
        modified: When the file was last changed, in UTC.
        kind: What it is.
        link_target: Where a link points to.
        sha256: The digest of a file's content; None where the archive has no index.
    """

    path: str
    size_bytes: int
    mode: int
    modified: datetime
    kind: Kind
    link_target: str | None
    sha256: str | None = None


def modified_at(mtime: float) -> datetime:
    """Return a time of an archive, which may be any number; one that no file system holds, or "nan", becomes 1970."""
    return datetime.fromtimestamp(mtime if 0 <= mtime < MAX_TIME else 0, UTC)
