"""Digests of files, by sections, so that several threads may share one file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer


class SectionDigests:
    """Digests of the sections of a file, or of some of them; each section's content comes in its order.

    Args:
        section_bytes: How long a section is, but for the last.
    """

    def __init__(self, section_bytes: int) -> None:
        self._section_bytes = section_bytes
        self._digests: dict[int, hashlib._Hash] = {}

    def update(self, start: int, content: ReadableBuffer) -> None:
        """Take what the file holds from a position on."""
        left = memoryview(content)
        while left:
            number, before = divmod(start, self._section_bytes)
            piece = left[: self._section_bytes - before]
            self._digests.setdefault(number, hashlib.sha256()).update(piece)
            start += len(piece)
            left = left[len(piece) :]

    def update_all(self, start: int, pieces: Iterable[memoryview]) -> None:
        """Take pieces that follow each other, the first from a position on."""
        for piece in pieces:
            self.update(start, piece)
            start += len(piece)

    def found(self) -> dict[int, str]:
        """Return the digest of each section that content came of, by the section's number."""
        return {number: digest.hexdigest() for number, digest in self._digests.items()}
