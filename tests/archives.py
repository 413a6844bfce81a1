"""Archives that nobody has recorded: in memory, or in a repository."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from keepsake.capture.files import FileEntry
from keepsake.repository import archive
from keepsake.repository.records import ArchiveInfo
from keepsake.repository.repository import Repository


@dataclass(frozen=True)
class Held:
    """An archive in memory."""

    content: bytes

    is_far = False

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read_range(self, start: int, length: int) -> bytes:
        return self.content[start : start + length]

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> bool:
        return False

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


def store_archive(repository: Repository, key: str, entries: Sequence[FileEntry], prefix: str) -> ArchiveInfo:
    """Pack files into a repository, and return what a record announces of them."""
    with tempfile.TemporaryDirectory() as directory:
        packed = Path(directory) / "archive.tar.gz"
        archive.stage(entries, prefix, packed)
        info = archive.seal(packed)
        repository.storage.write(key, packed)
    return info
