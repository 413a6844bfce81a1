"""The contract of a byte store: what every backend does, once. No backend, and no meaning of keys, belongs here."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, TypeAlias, runtime_checkable

from keepsake.exceptions import ReadError

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator

Body: TypeAlias = bytes | BinaryIO | Path
"""What can be written under a key: bytes, a readable binary stream (need not be seekable), or the path of a local file."""

MAX_KEY_BYTES = 1024
"""Longest key in UTF-8 bytes: the limit of both S3 and GCS (S3 user guide, "Creating object key names")."""

_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\]")

PIECE_BYTES = 1 << 20
"""How much of a body is held in memory at a time."""

VERSIONS = 5
"""How many versions of an object a read tries to get whole, each of which breaks off and is replaced before it can go on."""


class ObjectInfo(NamedTuple):
    """What a listing knows of one object.

    Args:
        key: Its name, relative to the store's root.
        size_bytes: Its length.
        etag: Opaque; differs whenever the content was rewritten.
        age_s: Seconds since it was last written, **by the store's own clock** at the time of the listing, so that a reader
            whose clock is wrong judges a heartbeat rightly. Never negative.
    """

    key: str
    size_bytes: int
    etag: str
    age_s: float


@runtime_checkable
class Storage(Protocol):
    """Bytes under keys.

    A key is a ``/``-separated relative name (see `check_key`); a store may reserve further names, and says so. All methods raise
    `ValueError` for a bad key before any input or output, and otherwise only `keepsake.exceptions.StorageError` and its
    subclasses; so do the streams that `open` returns. Instances may be shared between threads and pickled; constructors do
    no input or output; ``repr`` shows no secret.
    """

    @property
    def url(self) -> str:
        """The store's address, without credentials."""
        ...

    def read(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            ObjectNotFound: No object has that key.
        """
        ...

    def open(self, key: str) -> BinaryIO:
        """Return a stream over the object, to be closed by the caller.

        Raises:
            ObjectNotFound: No object has that key; raised here, not at the first read.
        """
        ...

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from offset ``start``, fewer only where the object ends before.

        Raises:
            ObjectNotFound: No object has that key.
            ValueError: ``start`` or ``length`` is negative.
        """
        ...

    def write(self, key: str, body: Body) -> None:
        """Store an object, whole or not at all.

        Readers see the old value or the new one, never a part. When the call returns, the value is durable. If ``body``
        fails while it is read, its exception passes through, the old value stands and nothing else is left. A stream is read
        from its present position and not closed.

        Raises:
            WriteError: The store could not take it.
            TypeError: ``body`` is none of the three forms.
        """
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; a key that does not exist is a success."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield every object under a prefix, sorted by key.

        The prefix is made of whole segments: ``e/abc`` yields ``e/abc`` and ``e/abc/…``, never ``e/abcd``. The empty
        prefix yields everything, and a store that does not exist yet yields nothing. An object that vanishes during the listing is
        left out. Sorting is by the UTF-8 bytes of the key, as object stores do. A bad prefix is refused by the call itself, not by
        the first step of the iteration.
        """
        ...


@runtime_checkable
class Bucket(Storage, Protocol):
    """A store that somebody has to make before anything can be written to it."""

    def exists(self) -> bool:
        """Tell whether it was made."""
        ...

    def create(self) -> None:
        """Make it."""
        ...


def check_key(key: str) -> str:
    """Return the key if every store can hold it, and raise otherwise.

    Keys are relative, use ``/``, and have no empty, ``.`` or ``..`` segment, no backslash and no control character: the
    common subset of object stores and file systems, and nothing that could leave a root directory.

    Raises:
        ValueError: The key is not of this form; the message quotes it.

    Example:
        >>> check_key("metadata/experiments/ab.json")
        'metadata/experiments/ab.json'
    """
    segments = key.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(f"bad storage key {key!r}: empty, '.' and '..' segments are not allowed")
    if _FORBIDDEN_CHARACTERS.search(key):
        raise ValueError(f"bad storage key {key!r}: backslashes and control characters are not allowed")
    try:
        encoded = key.encode("utf-8")
    except UnicodeEncodeError as err:
        raise ValueError(f"bad storage key {key!r}: not valid Unicode") from err
    if len(encoded) > MAX_KEY_BYTES:
        raise ValueError(f"bad storage key {key[:40]!r}…: {len(encoded)} bytes, at most {MAX_KEY_BYTES} are allowed")
    if len(encoded) > 200 and any(len(segment) > 200 for segment in encoded.split(b"/")):
        # 255 is the file systems' limit for one name; the rest is room for temporary names beside it.
        raise ValueError(f"bad storage key {key[:40]!r}…: a segment is longer than 200 bytes")
    return key


def is_key(name: str) -> bool:
    """Tell whether the name of an object can be a key; foreign objects may have any."""
    try:
        return bool(check_key(name))
    except ValueError:
        return False


def check_prefix(prefix: str) -> str:
    """Return a listing's prefix without its trailing slash, and raise `ValueError` as `check_key` does.

    Example:
        >>> check_prefix("metadata/")
        'metadata'
    """
    return check_key(prefix.removesuffix("/")) if prefix else ""


def in_prefix(key: str, prefix: str) -> bool:
    """Tell whether a key lies under a prefix of whole segments.

    Example:
        >>> in_prefix("e/abcd", "e/abc"), in_prefix("e/abc/x", "e/abc")
        (False, True)
    """
    return not prefix or key == prefix or key.startswith(prefix + "/")


def pieces(body: Body) -> Iterator[bytes]:
    """Yield what a body holds, a piece at a time; its own failures pass through.

    Raises:
        TypeError: It is no body, or a stream of text.
        BlockingIOError: It is a stream that has nothing at the moment, which is not its end.

    Example:
        >>> list(pieces(b"weights"))
        [b'weights']
    """
    if isinstance(body, bytes):
        yield body
    elif isinstance(body, Path):
        with body.open("rb") as file:
            yield from pieces(file)
    elif callable(getattr(body, "read", None)):
        yield from iter(lambda: _piece(body), b"")
    else:
        raise TypeError(f"expected bytes, a binary stream or a Path, not {type(body).__name__}")


class Replaced(ReadError):
    """The rest of an object is gone, because another one has its key now."""


def read_anew(download: Callable[[], io.RawIOBase]) -> bytes:
    """Return what a download brings, all of one version of the object, beginning anew where it is replaced while its bytes come.

    Args:
        download: Begins one; it raises `Replaced` where it cannot go on.

    Raises:
        Replaced: That happened again and again.
    """
    for _ in range(VERSIONS - 1):
        with suppress(Replaced), download() as stream:
            return stream.readall()
    with download() as stream:
        return stream.readall()


def _piece(stream: BinaryIO) -> bytes:
    piece: bytes | None = stream.read(PIECE_BYTES)
    if piece is None:
        raise BlockingIOError("the stream is non-blocking and has nothing now")
    if not isinstance(piece, bytes):
        raise TypeError(f"expected a stream of bytes, it gave {type(piece).__name__}")
    return piece
