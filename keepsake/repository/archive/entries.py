"""What people are told of an archive's entries."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from keepsake.repository.archive.digests import SectionDigests

if TYPE_CHECKING:
    from collections.abc import Iterable
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
        with path.open("rb") as file:
            return cls.of_content(iter(lambda: file.read(_READ_BYTES), b""), section_bytes)

    @classmethod
    def of_content(cls, pieces: Iterable[bytes | memoryview], section_bytes: int | None = None) -> Digests:
        """Return the digests of what comes piece by piece.

        Args:
            pieces: The content.
            section_bytes: How long a section is to be; None makes one of all.
        """
        sections, start = SectionDigests(section_bytes or sys.maxsize), 0
        for piece in pieces:
            sections.update(start, piece)
            start += len(piece)
        found = tuple(sections.found().values()) or (hashlib.sha256().hexdigest(),)
        return cls(found, section_bytes if len(found) > 1 else None)

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
