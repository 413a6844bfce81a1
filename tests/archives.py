"""Archives that lie in a repository without anybody having recorded them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from keepsake.capture.files import FileEntry
from keepsake.repository import archive
from keepsake.repository.records import ArchiveInfo
from keepsake.repository.repository import Repository


def store_archive(repository: Repository, key: str, entries: Sequence[FileEntry], prefix: str) -> ArchiveInfo:
    """Pack files into a repository, and return what a record announces of them."""
    with tempfile.TemporaryDirectory() as directory:
        packed = Path(directory) / "archive.tar.gz"
        archive.stage(entries, prefix, packed)
        info = archive.seal(packed)
        repository.storage.write(key, packed)
    return info
