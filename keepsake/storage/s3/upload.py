"""How a body reaches S3 that is too long for one request: in parts, several at a time."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from keepsake.storage.base import Body, pieces
from keepsake.storage.s3.checksum import md5_text
from keepsake.storage.s3.errors import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keepsake.storage.s3.store import S3Storage

PART_BYTES = 8 << 20
"""Up to this length an object is sent in one request, and a longer one in parts: Amazon refuses parts below 5 MiB but for the last
("Multipart upload limits", S3 user guide)."""

MAX_PARTS = 10_000
"""Most parts of an upload (the same page)."""

IN_FLIGHT_BYTES = 32 << 20
"""How much of a body is held in memory while its parts are on their way, as long as they are no longer than a quarter of it."""


def part_bytes(number: int, size_bytes: int | None) -> int:
    """Return how long a part of an upload is, so that the largest object there is has no more than `MAX_PARTS`.

    Args:
        number: Which part, from 0.
        size_bytes: The length of the whole, if it is known. Where it is not, parts become longer as there are more of them.

    Example:
        >>> part_bytes(0, 5 << 40) * MAX_PARTS >= 5 << 40
        True
        >>> sum(part_bytes(number, None) for number in range(MAX_PARTS)) >= 5 << 40
        True
    """
    if size_bytes is not None:
        return max(PART_BYTES, -(-size_bytes // MAX_PARTS))
    return PART_BYTES << (number // (MAX_PARTS // 10))


def parts_of(body: Body, size_bytes: int | None) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of a body, each with whether it is the last one."""
    source = pieces(body)
    rest, number = bytearray(), 0
    for piece in source:
        rest += piece
        while len(rest) > (length := part_bytes(number, size_bytes)):
            yield bytes(memoryview(rest)[:length]), False
            del rest[:length]
            number += 1
    yield bytes(rest), True


class Multipart:
    """An upload in parts.

    Args:
        storage: The store.
        name: The object's name in the bucket.
        id: The store's name for the upload.
    """

    def __init__(self, storage: S3Storage, name: str, id: str) -> None:
        self.id = id
        self._storage = storage
        self._name = name
        self._etags: dict[int, str] = {}

    def send(self, number: int, part: bytes) -> None:
        """Send a part."""
        answer = self._storage.call(
            "upload_part", Key=self._name, UploadId=self.id, PartNumber=number, Body=part, ContentMD5=md5_text(part)
        )
        self.add(number, answer["ETag"])

    def add(self, number: int, etag: str) -> None:
        """Take note of a part that has arrived."""
        self._etags[number] = etag

    def complete(self) -> None:
        """Make one object of the parts, which becomes visible then."""
        from botocore.exceptions import ClientError

        parts = [{"PartNumber": number, "ETag": self._etags[number]} for number in sorted(self._etags)]
        try:
            self._storage.call("complete_multipart_upload", Key=self._name, UploadId=self.id, MultipartUpload={"Parts": parts})
        except ClientError as err:
            # Where an answer was lost, the library asks again for what is done already.
            if code_of(err) != "NoSuchUpload" or not self._has_arrived():
                raise

    def _has_arrived(self) -> bool:
        """Tell whether the object is one of as many parts: only the ETag says so, and where it does not, it counts as lost."""
        etag = str(self._storage.call("head_object", Key=self._name)["ETag"]).strip('"')
        return etag.endswith(f"-{len(self._etags)}")


class Sending:
    """Sends parts, several at a time as long as they are small, and one after the other where no thread can be started.

    Args:
        upload: What they are parts of.
    """

    def __init__(self, upload: Multipart) -> None:
        self._upload = upload
        self._pool = ThreadPoolExecutor(4, "keepsake-upload")
        self._flying: deque[tuple[Future[None], int]] = deque()
        self._flying_bytes = 0
        self._number = 0

    def __enter__(self) -> Sending:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._flying and kind is None:
                self._land()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def send(self, part: bytes) -> None:
        """Send the next part, or begin to."""
        self._number += 1
        while self._flying and self._flying_bytes + len(part) > IN_FLIGHT_BYTES:
            self._land()
        try:
            future = self._pool.submit(self._upload.send, self._number, part)
        except RuntimeError:
            # The interpreter is about to end.
            self._upload.send(self._number, part)
            return
        self._flying.append((future, len(part)))
        self._flying_bytes += len(part)

    def _land(self) -> None:
        future, size_bytes = self._flying.popleft()
        self._flying_bytes -= size_bytes
        future.result()
