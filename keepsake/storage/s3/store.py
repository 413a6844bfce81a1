"""The store: what it does with the objects of a bucket."""

from __future__ import annotations

import io
import re
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from keepsake.exceptions import (
    AccessDenied,
    KeepsakeError,
    ObjectNotFound,
    ReadError,
    RepositoryConfigurationError,
    StorageError,
    WriteError,
)
from keepsake.storage.base import (
    MAX_KEY_BYTES,
    PIECE_BYTES,
    Body,
    ObjectInfo,
    Storage,
    check_key,
    check_prefix,
    in_prefix,
    is_key,
    read_anew,
)
from keepsake.storage.s3.checksum import CHECKSUM, md5_text
from keepsake.storage.s3.client import current_client, forget_clients, need_library
from keepsake.storage.s3.download import Download
from keepsake.storage.s3.errors import LOG_IN, NO_OBJECT, code_of, is_forbidden, s3_error
from keepsake.storage.s3.upload import Multipart, Sending, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PAGE_KEYS = 1000
"""How many objects are listed by one request: as many as S3 gives at most (API reference, "ListObjectsV2")."""

COPY_BYTES = 5 << 30
"""Longest object that is copied by one request ("Copying objects", S3 user guide); also the length of the parts of longer ones' copies."""

DELETE_KEYS = 1000
"""Most keys of one request that deletes (S3 API reference, DeleteObjects)."""

_BATCH_UNKNOWN = (
    "MissingContentMD5",
    "InvalidRequest",
    "NotImplemented",
    "MalformedXML",
    "InvalidDigest",
    "MissingContentLength",
    "AccessDenied",
)
"""What stores say that do not understand how the client library deletes several objects by one request, or, as Ceph, want the right to
delete any object of the bucket for it."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,221}[A-Za-z0-9]")


class S3Storage:
    """A bucket, or what lies below a prefix of it.

    Credentials, profile, region and endpoint are found as by every program that uses Amazon's own library: ``AWS_*`` variables, the
    files in ``~/.aws``, the role of the machine. ``AWS_ENDPOINT_URL_S3`` names another server, such as MinIO, Ceph or R2.

    Nothing is relied on that only some of these servers have: no conditional request, and no meaning of an ETag. An upload carries the
    digest of each part, which the server compares, and an object of one part keeps it: what is read whole is held against it. A body
    that ends early is fetched on from there, and is an error if it stays short.

    Args:
        location: What follows ``s3://``: a bucket's name, and a prefix if it has one. A key and the prefix have 1,024 bytes together.

    Raises:
        RepositoryConfigurationError: The location names no bucket, or the prefix cannot be part of a key.

    Example:
        >>> S3Storage("acme/hotdog").url
        's3://acme/hotdog'
    """

    def __init__(self, location: str) -> None:
        self.bucket, _, prefix = location.partition("/")
        if not _BUCKET.fullmatch(self.bucket):
            raise RepositoryConfigurationError(
                f'"s3://{location}": {self.bucket!r} cannot be the name of a bucket', hint="write s3://BUCKET/PREFIX"
            )
        try:
            self.prefix = check_prefix(prefix)
        except ValueError as err:
            raise RepositoryConfigurationError(f'"s3://{location}": {err}', hint="write s3://BUCKET/PREFIX") from err

    @property
    def url(self) -> str:
        """The bucket and the prefix."""
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    def __repr__(self) -> str:
        return f"S3Storage({self.url.removeprefix('s3://')!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return S3Storage, (self.url.removeprefix("s3://"),)

    # --- the contract -------------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes:
        return read_anew(lambda: Download(self, key))

    def open(self, key: str) -> BinaryIO:
        return io.BufferedReader(Download(self, key), PIECE_BYTES)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        # One byte is asked for where none is wanted: whether the object is there must be told all the same.
        return read_anew(lambda: Download(self, key, start, start + max(length, 1)))[:length]

    def write(self, key: str, body: Body) -> None:
        name = self.name(key)
        size_bytes = body.stat().st_size if isinstance(body, Path) else None
        parts = parts_of(body, size_bytes)
        part, is_last = next(parts)
        if is_last:
            with self.errors(WriteError, "write", key):
                digest = md5_text(part)
                self.call("put_object", Key=name, Body=part, ContentMD5=digest, Metadata={CHECKSUM: digest})
            return
        self._upload_in_parts(name, key, part, parts)

    def delete(self, keys: Iterable[str]) -> None:
        names = {self.name(key): key for key in keys}
        ordered = list(names)
        if len(ordered) == 1:
            self._delete_one(ordered[0], names[ordered[0]])
            return
        for start in range(0, len(ordered), DELETE_KEYS):
            self._delete_batch(ordered[start : start + DELETE_KEYS], names)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._listed(check_prefix(prefix))

    # --- beside the contract ------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Tell whether the bucket exists.

        By listing below the prefix, which every reader of a repository may do.

        Raises:
            StorageError: The store does not say.
        """
        with self.errors(ReadError, "list"):
            from botocore.exceptions import ClientError

            try:
                self.call("list_objects_v2", MaxKeys=1, Prefix=self._root)
            except ClientError as err:
                if code_of(err) == "NoSuchBucket":
                    return False
                raise
        return True

    def create(self) -> None:
        """Make the bucket, where it does not exist yet, in the region of the credentials and with the store's defaults.

        Raises:
            WriteError: The store could not make it, for example because somebody else has a bucket of its name.
            AccessDenied: The credentials do not allow it.
        """
        with self.errors(WriteError, "create"):
            from botocore.exceptions import ClientError

            client = current_client()
            region = client.meta.region_name
            where = {} if region in (None, "us-east-1", "aws-global") else {"LocationConstraint": region}
            try:
                client.create_bucket(Bucket=self.bucket, **({"CreateBucketConfiguration": where} if where else {}))
            except ClientError as err:
                if code_of(err) == "BucketAlreadyExists":
                    raise WriteError(f"somebody else has a bucket named {self.bucket}", url=self.url) from err
                if code_of(err) != "BucketAlreadyOwnedByYou":
                    raise

    def copy_from(self, other: S3Storage, source_key: str, key: str) -> None:
        """Copy an object of another bucket, or of this one, without its bytes coming here.

        Args:
            other: Where it lies; both must be reached by the same credentials.
            source_key: Its key there.
            key: Its key here.

        Raises:
            ObjectNotFound: There is no such object.
            WriteError: The store could not copy it; the old value, if there was one, is intact.
        """
        source = {"Bucket": other.bucket, "Key": other.name(source_key)}
        with other.errors(ReadError, "read", source_key):
            size_bytes = other.call("head_object", Key=source["Key"])["ContentLength"]
        name = self.name(key)
        with self.errors(WriteError, "write", key):
            if size_bytes < COPY_BYTES:
                self.call("copy_object", Key=name, CopySource=source)
                return
            with self._multipart(name) as upload:
                for number, start in enumerate(range(0, size_bytes, COPY_BYTES), start=1):
                    span = f"bytes={start}-{min(start + COPY_BYTES, size_bytes) - 1}"
                    answer = self.call(
                        "upload_part_copy",
                        Key=name,
                        UploadId=upload.id,
                        PartNumber=number,
                        CopySource=source,
                        CopySourceRange=span,
                    )
                    upload.add(number, answer["CopyPartResult"]["ETag"])

    # --- names --------------------------------------------------------------------------------------------------------

    @property
    def _root(self) -> str:
        """What the names of all objects begin with."""
        return f"{self.prefix}/" if self.prefix else ""

    def name(self, key: str) -> str:
        """Return the name in the bucket that a key stands for; raises `ValueError` where it is too long."""
        name = self._root + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"bad storage key {key[:40]!r}…: with the prefix longer than {MAX_KEY_BYTES} bytes")
        return name

    # --- requests -----------------------------------------------------------------------------------------------------

    def call(self, operation: str, **arguments: Any) -> Any:
        """Make a request of the client library, which raises its own errors."""
        return getattr(current_client(), operation)(Bucket=self.bucket, **arguments)

    # --- listing ------------------------------------------------------------------------------------------------------

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        root = self._root
        arguments: dict[str, Any] = {"Prefix": root + prefix, "MaxKeys": PAGE_KEYS}
        # Names come in order, and "0" follows "/": what only begins like the prefix, and comes later, need not be fetched.
        end = f"{root}{prefix}0" if prefix else None
        while True:
            with self.errors(ReadError, "list", prefix):
                page = self.call("list_objects_v2", **arguments)
                now = _clock(page)
                found = [_described(item, root, now) for item in page.get("Contents", ())]
            yield from (info for info in found if in_prefix(info.key, prefix) and is_key(info.key))
            if not page.get("IsTruncated") or (end is not None and found and root + found[-1].key >= end):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    # --- deleting -----------------------------------------------------------------------------------------------------

    def _delete_one(self, name: str, key: str) -> None:
        with suppress(ObjectNotFound), self.errors(WriteError, "delete", key):
            self.call("delete_object", Key=name)

    def _delete_batch(self, batch: Sequence[str], keys: dict[str, str]) -> None:
        failed: Sequence[dict[str, Any]] = ()
        with self.errors(WriteError, "delete", keys[batch[0]]):
            from botocore.exceptions import ClientError

            try:
                wanted = {"Objects": [{"Key": name} for name in batch], "Quiet": True}
                failed = self.call("delete_objects", Delete=wanted).get("Errors", [])
            except ClientError as err:
                if code_of(err) not in _BATCH_UNKNOWN:
                    raise
                failed = [{"Key": name, "Code": "InternalError"} for name in batch]
        for failure in failed:
            if failure.get("Code") not in NO_OBJECT:
                # Once more by itself, which mends what was busy, and says what is wrong in a way that is understood.
                self._delete_one(failure["Key"], keys[failure["Key"]])

    # --- writing ------------------------------------------------------------------------------------------------------

    def _upload_in_parts(self, name: str, key: str, part: bytes, parts: Iterator[tuple[bytes, bool]]) -> None:
        with self._multipart_errors(key), self._multipart(name) as upload, Sending(upload) as sending:
            is_last = False
            while True:
                sending.send(part)
                if is_last:
                    break
                try:
                    part, is_last = next(parts)
                except Exception as err:
                    # What the body raises while it is read is the caller's.
                    raise _BodyFailed(err) from err

    @contextmanager
    def _multipart_errors(self, key: str) -> Iterator[None]:
        try:
            with self.errors(WriteError, "write", key):
                yield
        except _BodyFailed as err:
            raise err.cause from None

    @contextmanager
    def _multipart(self, name: str) -> Iterator[Multipart]:
        """Begin an upload in parts, and complete it, or take it back: nobody ever sees a part of it."""
        upload = Multipart(self, name, self.call("create_multipart_upload", Key=name)["UploadId"])
        try:
            yield upload
            upload.complete()
        except BaseException:
            # Parts that stay cost money, until a rule of the bucket removes them.
            with suppress(Exception):
                self.call("abort_multipart_upload", Key=name, UploadId=upload.id)
            raise

    # --- errors -------------------------------------------------------------------------------------------------------

    @contextmanager
    def errors(self, kind: type[StorageError], verb: str, key: str = "") -> Iterator[None]:
        """Turn what the client library raises into errors of ours."""
        need_library()
        try:
            yield
        except (KeepsakeError, _BodyFailed):
            raise
        except Exception as err:
            error = s3_error(err, kind, verb, key, self.url)
            if verb == "read" and key and is_forbidden(err) and self._is_absent(key):
                error = ObjectNotFound(f"no object {key} in {self.url}", url=self.url, key=key)
            if isinstance(error, AccessDenied) and error.hint == LOG_IN:
                # Credentials are read anew by the next call, so that a training that has outlived them goes on after a new login.
                forget_clients()
            raise error from err

    def _is_absent(self, key: str) -> bool:
        """Tell whether an object is surely not there: whoever may list only below a prefix is told of that as of a refusal."""
        name = self.name(key)
        with suppress(Exception):
            return all(item["Key"] != name for item in self.call("list_objects_v2", Prefix=name, MaxKeys=1).get("Contents", ()))
        return False


class _BodyFailed(Exception):
    """A body could not be read; its own exception is what the caller gets."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _described(item: dict[str, Any], root: str, now: datetime) -> ObjectInfo:
    age_s = (now - item["LastModified"]).total_seconds()
    return ObjectInfo(item["Key"].removeprefix(root), item["Size"], item["ETag"].strip('"'), max(0.0, age_s))


def _clock(answer: dict[str, Any]) -> datetime:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


if TYPE_CHECKING:
    _: Storage = S3Storage("")
