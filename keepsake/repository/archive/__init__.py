"""Archives: tar.gz files that are made and read in parallel and by parts, and never trusted when they are read.

What goes into an archive is chosen by `keepsake.capture.files`; where it lies is `keepsake.repository.repository`'s business.
`writing` stages and seals, `reading` lists, opens and extracts; the bytes are described in ``docs/format.md``.
"""

from keepsake.repository.archive.entries import ArchivedFile, Digests
from keepsake.repository.archive.names import close_names
from keepsake.repository.archive.opened import OpenedArchive, opened
from keepsake.repository.archive.passing import PassingCheck
from keepsake.repository.archive.reading import Source, check, describe, extract, list_files, open_file
from keepsake.repository.archive.writing import layout_path, seal, stage

__all__ = [
    "ArchivedFile",
    "Digests",
    "OpenedArchive",
    "PassingCheck",
    "Source",
    "check",
    "close_names",
    "describe",
    "extract",
    "layout_path",
    "list_files",
    "open_file",
    "opened",
    "seal",
    "stage",
]
