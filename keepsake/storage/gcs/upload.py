"""How a body reaches Google that is too long for one request: in parts, each as often as needed."""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from keepsake.exceptions import StorageUnavailable, WriteError
from keepsake.storage.base import Body, pieces
from keepsake.storage.gcs.checksum import checksum_of, checksum_text
from keepsake.storage.gcs.errors import retrying

if TYPE_CHECKING:
    from collections.abc import Generator

    from keepsake.storage.gcs.store import GCSStorage

PART_BYTES = 8 << 20
"""Up to this length an object is sent in one request, and a longer one in parts of it: so much of a body is held in memory. Google
advises 8 MiB at least, and wants a multiple of 256 KiB ("Resumable uploads", developer guide of Cloud Storage)."""


class Upload:
    """An upload in parts: nobody sees the object before its last part is there and the checksum is right.

    Args:
        storage: The store.
        name: The object's name in the bucket.
        key: Its key, for the errors.
    """

    def __init__(self, storage: GCSStorage, name: str, key: str) -> None:
        self._storage = storage
        self._name = name
        self._key = key
        self._checksum = checksum_of()
        self._sent_bytes = 0
        response = storage.call(
            "POST",
            f"/upload/storage/v1/b/{storage.bucket}/o",
            params={"uploadType": "resumable", "name": name},
            headers={"Content-Type": "application/json", "X-Upload-Content-Type": "application/octet-stream"},
            data="{}",
        )
        self._address = response.headers["Location"]

    def send(self, part: bytes, *, is_last: bool) -> None:
        """Send a part, as often as needed, and each time only what the store has not taken yet."""
        self._checksum.update(part)
        begin, end = self._sent_bytes, self._sent_bytes + len(part)
        total = str(end) if is_last else "*"
        taken = begin
        is_known = True

        def attempt() -> Any:
            nonlocal taken, is_known
            if not is_known:
                response = self._put(b"", f"bytes */{total}")
                if response.status_code != HTTPStatus.PERMANENT_REDIRECT:
                    return response
                taken = self._taken(response, begin, end)
            is_known = False
            rest = part[taken - begin :]
            response = self._put(rest, f"bytes {taken}-{end - 1}/{total}" if rest else f"bytes */{total}")
            if response.status_code == HTTPStatus.PERMANENT_REDIRECT:
                taken = self._taken(response, begin, end)
                if is_last or taken < end:
                    raise ConnectionError("only a part was taken")
            return response

        response = retrying(attempt)
        self._sent_bytes = end
        if is_last:
            self._storage.check_stored(response.json(), checksum_text(self._checksum), self._name, self._key)

    def cancel(self) -> None:
        """Let the store forget what it has, as it does by itself after a week."""
        with suppress(Exception):
            # It answers 499, which is an exception like other answers that are no success.
            self._storage.request("DELETE", self._address)

    def _put(self, content: bytes, content_range: str) -> Any:
        from google.api_core.exceptions import GoogleAPICallError

        headers = {"Content-Range": content_range}
        if not content_range.endswith("*"):
            headers["X-Goog-Hash"] = f"crc32c={checksum_text(self._checksum)}"
        try:
            return self._storage.request("PUT", self._address, data=content, headers=headers)
        except GoogleAPICallError as err:
            if err.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                raise
            raise StorageUnavailable(
                f"cannot write {self._key} in {self._storage.url}: the store has lost what was uploaded",
                url=self._storage.url,
                key=self._key,
            ) from err

    def _taken(self, response: Any, begin: int, end: int) -> int:
        """Return how many bytes the store says that it has."""
        match = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("Range", ""))
        taken = int(match[1]) + 1 if match else 0
        if not begin <= taken <= end:
            raise WriteError(
                f"cannot write {self._key} in {self._storage.url}: the store has {taken} bytes, not {begin} to {end}",
                url=self._storage.url,
                key=self._key,
            )
        return taken


def parts_of(body: Body) -> Generator[tuple[bytes, bool], None, None]:
    """Yield a body in parts of equal length, each with whether it is the last one; only that may be shorter, and be empty."""
    held = bytearray()
    for piece in pieces(body):
        rest = memoryview(piece)
        while rest:
            if len(held) == PART_BYTES:
                yield bytes(held), False
                held.clear()
            room = PART_BYTES - len(held)
            held += rest[:room]
            rest = rest[room:]
    yield bytes(held), True
