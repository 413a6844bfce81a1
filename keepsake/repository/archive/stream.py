"""Reading an archive from its beginning to its end: those without an index, and wherever the whole is to be checked."""

from __future__ import annotations

import io
import tarfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from isal import igzip, isal_zlib

from keepsake.exceptions import ReadError, StorageError
from keepsake.repository.archive.entries import ArchivedFile, modified_at
from keepsake.repository.archive.names import Tree
from keepsake.repository.archive.spaces import Spaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

    from keepsake.repository.archive.index import Kind

CHUNK_BYTES = 1 << 20

PIECE_BYTES = 512 << 10
"""How much is unpacked at once: the library allocates so much each time, which must be too little for it to be given back to the system."""

SHIFT_BYTES = 2048
"""How much is read of an archive at first. What follows is read into memory that the library allocates: as `Spaces` says it must not begin
some bytes behind the beginning of a page of the file, so that the beginnings are far from each other then."""

MAX_HEADER_BYTES = 1 << 16
"""More than the longest path and link take in an extended header, and little enough to be read at once."""

_DAMAGE: tuple[type[Exception], ...] = (
    *(tarfile.TarError, EOFError, zlib.error, cast("type[Exception]", isal_zlib.error), OSError),
    # What tarfile lets pass of headers that make no sense.
    *(ValueError, OverflowError, IndexError, RecursionError),
)
"""What reading damaged bytes may raise."""


class StreamReader:
    """One pass through an archive, which checks that it is whole, and that each entry may be written.

    Args:
        stream: The archive.
        where: What to call it in errors.
    """

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._where = where
        self._unzipped = _Unzipped(stream)
        self._member = tarfile.TarInfo()
        self._left = 0
        self._root: str | None = None
        self._tree = Tree(where)
        self._spaces = Spaces()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unzipped.close()

    def entries(self) -> Iterator[ArchivedFile]:
        """Yield the entries; at the end, check the archive as a whole."""
        with self._damage():
            tar = tarfile.open(fileobj=cast("BinaryIO", self._unzipped), mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - there is nothing to close
        while True:
            with self._damage():
                member = tar.next()
                tar.members = []  # type: ignore[attr-defined]  # or it would keep them all
                if member is None:
                    self._check_end()
                    break
                if member.size < 0:
                    raise tarfile.ReadError("a file of negative size")
            self._member, self._left = member, member.size if member.isreg() else 0
            kind = self._kind()
            name = self._name()
            if name:
                self._tree.take_place(name, kind, member.linkname)
                yield _entry(member, name, kind)
            elif kind != "directory":
                raise self._tree.unsafe(member.name, "has no directory in front")
        self._tree.check_links()

    def content(self) -> Iterator[memoryview]:
        """Yield the content of the entry that was yielded last."""
        while self._left:
            chunk = self._spaces.take(min(CHUNK_BYTES, self._left))
            with self._damage():
                self._unzipped.fill(chunk)
            self._left -= len(chunk)
            yield chunk

    def release(self, chunk: memoryview) -> None:
        """Take back what `content` has yielded, to be filled with what comes later."""
        self._spaces.give_back(chunk)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turn whatever reading damaged bytes leads to into one error."""
        try:
            yield
        except StorageError:
            raise
        except _DAMAGE as err:
            raise ReadError(f"{self._where} is damaged: {err}") from err

    def _check_end(self) -> None:
        # tarfile stops silently at a header that it does not understand, and where there is none.
        if not self._unzipped.last_read:
            raise EOFError("it ends too early")
        while True:
            if self._unzipped.last_read.strip(b"\0"):
                raise tarfile.ReadError("a header that makes no sense")
            if not self._unzipped.read_content(CHUNK_BYTES):
                return

    def _kind(self) -> Kind:
        if self._member.issparse() or not (self._member.isfile() or self._member.isdir() or self._member.issym()):
            raise self._tree.unsafe(self._member.name, "is neither a file nor a directory nor a symbolic link")
        return "directory" if self._member.isdir() else "link" if self._member.issym() else "file"

    def _name(self) -> str:
        """Return the name without the ID in front; empty for the directory of the ID itself."""
        self._tree.check_name(self._member.name)
        root, *inner = [part for part in self._member.name.split("/") if part not in ("", ".")] or [""]
        if self._root is None:
            self._root = root
        if root != self._root:
            raise self._tree.unsafe(self._member.name, f"lies beside {self._root!r}")
        return "/".join(inner)


class _Unzipped:
    """The uncompressed tar, from its beginning to its end and never back: as much of a file as `tarfile` needs."""

    def __init__(self, stream: BinaryIO) -> None:
        self._gzip = igzip.IGzipFile(fileobj=_Shifted(stream), mode="rb")  # type: ignore[no-untyped-call]
        self._position = 0
        self.last_read = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("an entry leads backwards")
        while self._position < position:
            if not self.read_content(min(CHUNK_BYTES, position - self._position)):
                raise EOFError("it ends inside a file")

    def read(self, size: int) -> bytes:
        """Read a header for `tarfile`, which would take one of any size."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.read_content(size)

    def read_content(self, size: int) -> bytes:
        self.last_read = self._gzip.read(size)
        self._position += len(self.last_read)
        return self.last_read

    def fill(self, view: memoryview) -> None:
        """Fill a buffer with content."""
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            count = self._gzip.readinto(piece)
            self._position += count
            if count < len(piece):
                raise EOFError("it ends inside a file")

    def close(self) -> None:
        self._gzip.close()


class _Shifted(io.RawIOBase):
    """A stream of which little is read at first."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = cast("io.RawIOBase", stream)
        self._has_begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        if self._has_begun:
            return self._stream.readinto(buffer)
        self._has_begun = True
        return self._stream.readinto(memoryview(buffer)[:SHIFT_BYTES])


def _entry(member: tarfile.TarInfo, name: str, kind: Kind) -> ArchivedFile:
    return ArchivedFile(
        path=name,
        size_bytes=member.size if kind == "file" else 0,
        mode=member.mode & 0o777,
        modified=modified_at(member.mtime),
        kind=kind,
        link_target=member.linkname if kind == "link" else None,
    )
