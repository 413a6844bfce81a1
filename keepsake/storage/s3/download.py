"""How an object comes from S3: as it is read, and on from where a connection breaks off."""

from __future__ import annotations

import hashlib
import io
import random
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from keepsake.exceptions import ReadError
from keepsake.storage.base import Replaced
from keepsake.storage.s3.checksum import CHECKSUM, base64_text
from keepsake.storage.s3.errors import NO_OBJECT, code_of, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

    from keepsake.storage.s3.store import S3Storage

T = TypeVar("T")

READ_BYTES = 1 << 18
"""How much is taken from a connection at a time."""

RESUMES = 6
"""How often a body that breaks off without getting any further is asked for again, from where it broke off."""


class Download(io.RawIOBase):
    """The bytes of an object, fetched as they are read, and further on from where a connection breaks off.

    Args:
        storage: The store.
        key: The object's key.
        start: The first byte.
        stop: The byte after the last one; the end of the object where it comes first, or where this is None.
    """

    def __init__(self, storage: S3Storage, key: str, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self._storage = storage
        self._key = key
        self._name = storage.name(key)
        self._position = start
        self._stop = stop
        self._etag: str | None = None
        self._body: Any = None
        self._digest = hashlib.md5(usedforsecurity=False) if start == 0 and stop is None else None
        self._expected: str | None = None
        with self._errors():
            self._resuming(self._connect)

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
            return self._resuming(lambda: self._piece(size_bytes))

    def _resuming(self, work: Callable[[], T]) -> T:
        for attempt in range(RESUMES):
            try:
                return work()
            except Exception as err:
                self._drop()
                if not is_transient(err):
                    raise
                time.sleep(random.uniform(0.5, 1.0) * 0.1 * 2**attempt)
        return work()

    def _piece(self, size_bytes: int) -> bytes:
        """Return some of what follows, and nothing at the end; after a failure the next call goes on at the same place."""
        assert self._stop is not None
        left = self._stop - self._position
        if left <= 0:
            return b""
        if self._body is None:
            self._connect()
        piece: bytes = self._body.read(min(size_bytes, left))
        if not piece:
            raise ConnectionError("the answer ended early")
        self._position += len(piece)
        self._verify(piece)
        return piece

    def _verify(self, piece: bytes) -> None:
        if self._digest is None or self._expected is None:
            return
        self._digest.update(piece)
        if self._position == self._stop and base64_text(self._digest.digest()) != self._expected:
            where = {"url": self._storage.url, "key": self._key}
            raise ReadError(f"{self._key} in {self._storage.url} does not match its checksum", **where)

    def _connect(self) -> None:
        from botocore.exceptions import ClientError

        arguments: dict[str, Any] = {}
        if self._position or self._stop is not None:
            arguments["Range"] = f"bytes={self._position}-{self._stop - 1 if self._stop is not None else ''}"
        if self._etag is not None:
            arguments["IfMatch"] = self._etag
        try:
            answer = self._storage.call("get_object", Key=self._name, **arguments)
        except ClientError as err:
            if code_of(err) in ("InvalidRange", "416") and self._etag is None:
                # It begins behind the end of the object, or the object is empty.
                self._stop = self._position
                return
            if self._etag is not None and (code_of(err) in ("PreconditionFailed", "412") or code_of(err) in NO_OBJECT):
                raise self._replaced() from err
            raise
        if self._etag not in (None, answer.get("ETag")):
            raise self._replaced()
        self._etag, self._body = answer.get("ETag"), answer["Body"]
        self._expected = answer.get("Metadata", {}).get(CHECKSUM)
        self._begin(answer)

    def _begin(self, answer: dict[str, Any]) -> None:
        """Take from an answer's headers what it holds, and go to where the object is to be read."""
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange", ""))
        begin, size_bytes = (int(match[1]), int(match[2])) if match else (0, int(answer["ContentLength"]))
        self._stop = size_bytes if self._stop is None else min(self._stop, size_bytes)
        # A server that ignores ranges answers with all of it.
        skip = min(self._position, self._stop) - begin
        while skip > 0:
            skipped = len(self._body.read(min(skip, READ_BYTES)))
            if not skipped:
                raise ConnectionError("the answer ended early")
            skip -= skipped

    def _replaced(self) -> Replaced:
        where = {"url": self._storage.url, "key": self._key}
        return Replaced(f"{self._key} in {self._storage.url} was replaced while it was read", **where)

    def _errors(self) -> Any:
        return self._storage.errors(ReadError, "read", self._key)

    def _drop(self) -> None:
        body, self._body = getattr(self, "_body", None), None
        if body is not None:
            with suppress(Exception):
                body.close()
