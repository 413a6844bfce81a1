"""What people are told of an archive's entries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from keepsake.repository.archive.index import Kind

MAX_TIME = 1 << 36
"""Seconds since 1970 that `datetime` and file systems can hold: some 2,000 years."""


@dataclass(frozen=True, slots=True)
class Digests:
    """What tells one content of a file from all others.

    Args:
        sha256: The SHA-256 of each section of it, in their order.
        section_bytes: How long a section is, but for the last; None where there is but one.
    """

    sha256: tuple[str, ...]
    section_bytes: int | None = None

    @classmethod
    def of(cls, path: Path, section_bytes: int | None = None) -> Digests:
        """Read a file and return its digests.

        Args:
            path: The file.
            section_bytes: How long a section is to be; None makes one of all.
        """
        found = []
        with path.open("rb") as file:
            left = section_bytes
            digest = hashlib.sha256()
            while piece := file.read(_READ_BYTES if left is None else min(_READ_BYTES, left)):
                digest.update(piece)
                if left is not None:
                    left -= len(piece)
                    if not left:
                        found.append(digest.hexdigest())
                        left, digest = section_bytes, hashlib.sha256()
            if left != section_bytes or section_bytes is None or not found:
                found.append(digest.hexdigest())
        return cls(tuple(found), section_bytes if len(found) > 1 else None)

    def fit(self, path: Path) -> bool:
        """Tell whether a file has this content."""
        return Digests.of(path, self.section_bytes) == self


_READ_BYTES = 1 << 20


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
        digests: The same, of files too that have several; None where the archive has no index.
    """

    path: str
    size_bytes: int
    mode: int
    modified: datetime
    kind: Kind
    link_target: str | None
    sha256: str | None = None
    digests: Digests | None = None


def modified_at(mtime: float) -> datetime:
    """Return a time of an archive, which may be any number; one that no file system holds, or "nan", becomes 1970."""
    return datetime.fromtimestamp(mtime if 0 <= mtime < MAX_TIME else 0, UTC)
