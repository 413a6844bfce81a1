"""How an object comes from Google: one generation of it, as it is read, and on from where a connection breaks off."""

from __future__ import annotations

import io
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from keepsake.exceptions import ReadError
from keepsake.storage.base import Replaced
from keepsake.storage.gcs.checksum import checksum_of, checksum_text, expected_checksum
from keepsake.storage.gcs.errors import retrying

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from keepsake.storage.gcs.store import GCSStorage

READ_BYTES = 1 << 18
"""How much is taken from a connection at a time: what is lost, and fetched again, where it breaks off."""


class Download(io.RawIOBase):
    """The bytes of one generation of an object, fetched as they are read, and further on from where a connection breaks off.

    Args:
        storage: The store.
        key: The object's key.
        start: The first byte.
        stop: The byte after the last one; the end of the object where it comes first, or where this is None.
    """

    def __init__(self, storage: GCSStorage, key: str, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self._storage = storage
        self._key = key
        self._path = f"/download{storage.object_path(storage.name(key))}"
        self._position = start
        self._stop = stop
        self._size_bytes: int | None = None
        self._generation = ""
        self._response: Any = None
        self._checksum: Any = None
        self._expected = ""
        with self._errors():
            if start == 0 and stop is None:
                self._checksum = checksum_of()
            retrying(self._connect)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        piece = self._read(min(len(view), READ_BYTES))
        view[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._read(READ_BYTES), b""))

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, size_bytes: int) -> bytes:
        with self._errors():
            return retrying(lambda: self._piece(size_bytes))

    def _piece(self, size_bytes: int) -> bytes:
        """Return some of what follows, and nothing at the end; after a failure the next call goes on at the same place."""
        assert self._stop is not None
        left = self._stop - self._position
        if left <= 0:
            return b""
        if self._response is None:
            self._connect()
        try:
            piece: bytes = self._response.raw.read(min(size_bytes, left), decode_content=False)
            if not piece:
                raise ConnectionError("the answer ended early")
        except BaseException:
            self._drop()
            raise
        self._position += len(piece)
        self._verify(piece)
        if len(piece) == left:
            self._finish()
        return piece

    def _connect(self) -> None:
        from google.api_core.exceptions import NotFound, RequestRangeNotSatisfiable

        first = self._size_bytes is None
        # Without the range of an object that is wanted whole, which would be refused where it is empty. As it is stored: what was
        # uploaded compressed is not to be uncompressed on the way.
        headers = {"Accept-Encoding": "gzip"}
        if self._position or self._stop is not None:
            headers["Range"] = f"bytes={self._position}-{self._stop - 1 if self._stop is not None else ''}"
        params = {"alt": "media"} | ({"generation": self._generation} if self._generation else {})
        try:
            response = self._storage.request("GET", self._path, params=params, headers=headers, stream=True)
        except RequestRangeNotSatisfiable:
            if not first:
                raise self._replaced() from None
            if "Range" not in headers:
                raise
            # It begins behind the end of the object.
            self._stop = self._position
            return
        except NotFound:
            if first:
                raise
            raise self._replaced() from None
        self._response = response
        try:
            self._begin(response)
        except BaseException:
            self._drop()
            raise

    def _begin(self, response: Any) -> None:
        """Take from an answer's headers what it holds, and go to where the object is to be read."""
        begin, size_bytes = self._extent(response)
        generation = response.headers.get("x-goog-generation", "")
        if self._size_bytes is not None and (size_bytes, generation) != (self._size_bytes, self._generation):
            raise self._replaced()
        self._size_bytes, self._generation = size_bytes, generation
        self._stop = size_bytes if self._stop is None else min(self._stop, size_bytes)
        self._expected = self._expected or expected_checksum(response)
        if self._stop <= self._position:
            self._verify(b"")
            if size_bytes == begin:
                self._finish()
            else:
                self._drop()
            return
        # A server that ignores ranges answers with all of it.
        skip = self._position - begin
        while skip:
            skipped = len(response.raw.read(min(skip, READ_BYTES), decode_content=False))
            if not skipped:
                raise ConnectionError("the answer ended early")
            skip -= skipped

    def _extent(self, response: Any) -> tuple[int, int]:
        """Return with which byte of the object an answer begins, and how long the object is."""
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if match and int(match[1]) == self._position:
                return int(match[1]), int(match[2])
        else:
            length = response.headers.get("Content-Length") or response.headers.get("x-goog-stored-content-length", "")
            if length.isdecimal():
                return 0, int(length)
        raise ReadError(f"cannot read {self._key} in {self._storage.url}: the answer does not say what it holds", **self._where())

    def _verify(self, piece: bytes) -> None:
        if self._checksum is None:
            return
        self._checksum.update(piece)
        if self._position == self._stop and self._expected not in ("", checksum_text(self._checksum)):
            raise ReadError(f"{self._key} in {self._storage.url} does not match its checksum", **self._where())

    def _replaced(self) -> Replaced:
        return Replaced(f"{self._key} in {self._storage.url} was replaced while it was read", **self._where())

    def _where(self) -> dict[str, Any]:
        return {"url": self._storage.url, "key": self._key}

    def _errors(self) -> Any:
        return self._storage.errors(ReadError, "read", self._key)

    def _finish(self) -> None:
        """Give the connection back for other requests, which can be done only after all of an answer."""
        response, self._response = self._response, None
        response.raw.drain_conn()

    def _drop(self) -> None:
        response, self._response = getattr(self, "_response", None), None
        if response is not None:
            response.close()
