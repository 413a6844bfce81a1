"""Objects in a bucket of S3, Amazon's or anybody's who speaks it. What keys mean belongs to `keepsake.repository`."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import re
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from keepsake.exceptions import (
    AccessDenied,
    KeepsakeError,
    MissingDependency,
    ObjectNotFound,
    ReadError,
    RepositoryConfigurationError,
    StorageError,
    StorageUnavailable,
    WriteError,
)
from keepsake.storage.base import (
    MAX_KEY_BYTES,
    PIECE_BYTES,
    Body,
    ObjectInfo,
    Replaced,
    Storage,
    check_key,
    check_prefix,
    in_prefix,
    pieces,
    read_anew,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from _typeshed import WriteableBuffer

T = TypeVar("T")

PART_BYTES = 8 << 20
"""Up to this length an object is sent in one request, and a longer one in parts: Amazon refuses parts below 5 MiB but for the last
("Multipart upload limits", S3 user guide)."""

MAX_PARTS = 10_000
"""Most parts of an upload (the same page)."""

PAGE_KEYS = 1000
"""How many objects are listed by one request: as many as S3 gives at most (API reference, "ListObjectsV2")."""

IN_FLIGHT_BYTES = 32 << 20
"""How much of a body is held in memory while its parts are on their way, as long as they are no longer than a quarter of it."""

COPY_BYTES = 5 << 30
"""Longest object that is copied by one request ("Copying objects", S3 user guide); also the length of the parts of longer ones' copies."""

READ_BYTES = 1 << 18
"""How much is taken from a connection at a time."""

DELETE_KEYS = 1000
"""Most keys of one request that deletes (S3 API reference, DeleteObjects)."""

CONNECTIONS = 64
"""How many connections are kept for the threads of a process."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30
"""How long to wait for a connection, and for each next sign of life on it."""

ATTEMPTS = 4
"""How often the client library tries a request, with pauses that double: some two seconds in all."""

RESUMES = 6
"""How often a body that breaks off without getting any further is asked for again, from where it broke off."""

_CHECKSUM = "md5chksum"
"""Under which name an object keeps the digest of its content, in base64, as rclone does it: every server keeps what it does not understand,
and only some know the checksums of Amazon's."""

_TRANSIENT = re.compile(
    r"SlowDown|Throttl|TooManyRequests|RequestTimeout$|InternalError|ServiceUnavailable|BandwidthLimit|RequestLimit"
)
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_REFUSED = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidSecurity",
    "AuthFailure",
    "InvalidClientTokenId",
)
_NO_OBJECT = ("NoSuchKey", "404", "NotFound")
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
_LOG_IN = "aws configure   or   aws sso login"


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
        return read_anew(lambda: _Download(self, key))

    def open(self, key: str) -> BinaryIO:
        return io.BufferedReader(_Download(self, key), PIECE_BYTES)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        # One byte is asked for where none is wanted: whether the object is there must be told all the same.
        return read_anew(lambda: _Download(self, key, start, start + max(length, 1)))[:length]

    def write(self, key: str, body: Body) -> None:
        name = self._name(key)
        size_bytes = body.stat().st_size if isinstance(body, Path) else None
        parts = _parts(body, size_bytes)
        part, is_last = next(parts)
        if is_last:
            with self._errors(WriteError, "write", key):
                digest = _md5(part)
                self._call("put_object", Key=name, Body=part, ContentMD5=digest, Metadata={_CHECKSUM: digest})
            return
        self._upload_in_parts(name, key, part, parts)

    def delete(self, keys: Iterable[str]) -> None:
        names = {self._name(key): key for key in keys}
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
        with self._errors(ReadError, "list"):
            from botocore.exceptions import ClientError

            try:
                self._call("list_objects_v2", MaxKeys=1, Prefix=self._root)
            except ClientError as err:
                if _code(err) == "NoSuchBucket":
                    return False
                raise
        return True

    def create(self) -> None:
        """Make the bucket, where it does not exist yet, in the region of the credentials and with the store's defaults.

        Raises:
            WriteError: The store could not make it, for example because somebody else has a bucket of its name.
            AccessDenied: The credentials do not allow it.
        """
        with self._errors(WriteError, "create"):
            from botocore.exceptions import ClientError

            client = _client()
            region = client.meta.region_name
            where = {} if region in (None, "us-east-1", "aws-global") else {"LocationConstraint": region}
            try:
                client.create_bucket(Bucket=self.bucket, **({"CreateBucketConfiguration": where} if where else {}))
            except ClientError as err:
                if _code(err) == "BucketAlreadyExists":
                    raise WriteError(f"somebody else has a bucket named {self.bucket}", url=self.url) from err
                if _code(err) != "BucketAlreadyOwnedByYou":
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
        source = {"Bucket": other.bucket, "Key": other._name(source_key)}
        with other._errors(ReadError, "read", source_key):
            size_bytes = other._call("head_object", Key=source["Key"])["ContentLength"]
        name = self._name(key)
        with self._errors(WriteError, "write", key):
            if size_bytes < COPY_BYTES:
                self._call("copy_object", Key=name, CopySource=source)
                return
            with self._multipart(name) as upload:
                for number, start in enumerate(range(0, size_bytes, COPY_BYTES), start=1):
                    span = f"bytes={start}-{min(start + COPY_BYTES, size_bytes) - 1}"
                    answer = self._call(
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

    def _name(self, key: str) -> str:
        name = self._root + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"bad storage key {key[:40]!r}…: with the prefix longer than {MAX_KEY_BYTES} bytes")
        return name

    # --- requests -----------------------------------------------------------------------------------------------------

    def _call(self, operation: str, **arguments: Any) -> Any:
        return getattr(_client(), operation)(Bucket=self.bucket, **arguments)

    # --- listing ------------------------------------------------------------------------------------------------------

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        root = self._root
        arguments: dict[str, Any] = {"Prefix": root + prefix, "MaxKeys": PAGE_KEYS}
        # Names come in order, and "0" follows "/": what only begins like the prefix, and comes later, need not be fetched.
        end = f"{root}{prefix}0" if prefix else None
        while True:
            with self._errors(ReadError, "list", prefix):
                page = self._call("list_objects_v2", **arguments)
                now = _clock(page)
                found = [_described(item, root, now) for item in page.get("Contents", ())]
            yield from (info for info in found if in_prefix(info.key, prefix) and _is_key(info.key))
            if not page.get("IsTruncated") or (end is not None and found and root + found[-1].key >= end):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    # --- deleting -----------------------------------------------------------------------------------------------------

    def _delete_one(self, name: str, key: str) -> None:
        with suppress(ObjectNotFound), self._errors(WriteError, "delete", key):
            self._call("delete_object", Key=name)

    def _delete_batch(self, batch: Sequence[str], keys: dict[str, str]) -> None:
        failed: Sequence[dict[str, Any]] = ()
        with self._errors(WriteError, "delete", keys[batch[0]]):
            from botocore.exceptions import ClientError

            try:
                wanted = {"Objects": [{"Key": name} for name in batch], "Quiet": True}
                failed = self._call("delete_objects", Delete=wanted).get("Errors", [])
            except ClientError as err:
                if _code(err) not in _BATCH_UNKNOWN:
                    raise
                failed = [{"Key": name, "Code": "InternalError"} for name in batch]
        for failure in failed:
            if failure.get("Code") not in _NO_OBJECT:
                # Once more by itself, which mends what was busy, and says what is wrong in a way that is understood.
                self._delete_one(failure["Key"], keys[failure["Key"]])

    # --- writing ------------------------------------------------------------------------------------------------------

    def _upload_in_parts(self, name: str, key: str, part: bytes, parts: Iterator[tuple[bytes, bool]]) -> None:
        with self._multipart_errors(key), self._multipart(name) as upload, _Sending(upload) as sending:
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
            with self._errors(WriteError, "write", key):
                yield
        except _BodyFailed as err:
            raise err.cause from None

    @contextmanager
    def _multipart(self, name: str) -> Iterator[_Multipart]:
        """Begin an upload in parts, and complete it, or take it back: nobody ever sees a part of it."""
        upload = _Multipart(self, name, self._call("create_multipart_upload", Key=name)["UploadId"])
        try:
            yield upload
            upload.complete()
        except BaseException:
            # Parts that stay cost money, until a rule of the bucket removes them.
            with suppress(Exception):
                self._call("abort_multipart_upload", Key=name, UploadId=upload.id)
            raise

    # --- errors -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _errors(self, kind: type[StorageError], verb: str, key: str = "") -> Iterator[None]:
        _need_library()
        try:
            yield
        except (KeepsakeError, _BodyFailed):
            raise
        except Exception as err:
            error = s3_error(err, kind, verb, key, self.url)
            if verb == "read" and key and _is_forbidden(err) and self._is_absent(key):
                error = ObjectNotFound(f"no object {key} in {self.url}", url=self.url, key=key)
            if isinstance(error, AccessDenied) and error.hint == _LOG_IN:
                # Credentials are read anew by the next call, so that a training that has outlived them goes on after a new login.
                _forget_clients()
            raise error from err

    def _is_absent(self, key: str) -> bool:
        """Tell whether an object is surely not there: whoever may list only below a prefix is told of that as of a refusal."""
        name = self._name(key)
        with suppress(Exception):
            return all(item["Key"] != name for item in self._call("list_objects_v2", Prefix=name, MaxKeys=1).get("Contents", ()))
        return False


class _BodyFailed(Exception):
    """A body could not be read; its own exception is what the caller gets."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def s3_error(err: Exception, kind: type[StorageError], verb: str, key: str, url: str) -> StorageError:
    """Return whatever the client library raised as an error of ours, all in this one place.

    Args:
        err: What it raised.
        kind: What it is if nothing more is known.
        verb: What was tried.
        key: What with; empty if with the store as a whole.
        url: The store.
    """
    from botocore import exceptions as aws

    where: dict[str, Any] = {"url": url, "key": key or None}
    what = f"cannot {verb} {key} in {url}" if key else f"cannot {verb} {url}"
    if _is_transient(err):
        return StorageUnavailable(f"{what}: unreachable for now ({_said(err)})", **where)
    if isinstance(err, aws.ClientError):
        return _refusal(err, kind, verb, key, what, where)
    if isinstance(err, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
        profile = os.environ.get("AWS_PROFILE", "default")
        looked = f'looked at: AWS_* variables, ~/.aws profile "{profile}", the role of the machine'
        return AccessDenied(f"no AWS credentials for {url}", **where, facts=[looked, _said(err)], hint=_LOG_IN)
    if isinstance(
        err,
        aws.CredentialRetrievalError
        | aws.TokenRetrievalError
        | aws.SSOError
        | aws.RefreshWithMFAUnsupportedError
        | aws.UnauthorizedSSOTokenError,
    ):
        return AccessDenied(
            f"the AWS credentials for {url} have expired or cannot be renewed", **where, facts=[_said(err)], hint=_LOG_IN
        )
    return kind(f"{what}: {_said(err)}", **where)


def _refusal(err: Any, kind: type[StorageError], verb: str, key: str, what: str, where: dict[str, Any]) -> StorageError:
    code, url = _code(err), where["url"]
    bucket = url.removeprefix("s3://").partition("/")[0]
    if code == "NoSuchBucket":
        return kind(f"bucket {bucket} does not exist", **where, hint=f"keepsake init {url}")
    if code in _NO_OBJECT and verb in ("read", "delete"):
        return ObjectNotFound(f"no object {key} in {url}", **where)
    if code in _EXPIRED:
        return AccessDenied(f"the AWS credentials for {url} have expired", **where, facts=[_said(err)], hint=_LOG_IN)
    if code in _REFUSED:
        return AccessDenied(f"the AWS credentials for {url} were refused", **where, facts=[_said(err)], hint=_LOG_IN)
    if code == "RequestTimeTooSkewed":
        return AccessDenied(f"{what}: the clock of this machine is wrong", **where, facts=[_said(err)])
    if _status(err) in (401, 403):
        return AccessDenied(f"{what}: the AWS credentials do not allow it", **where, facts=[_said(err)])
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"):
        return kind(f"{what}: the bucket is in another region", **where, facts=[_said(err)], hint="export AWS_REGION=REGION")
    return kind(f"{what}: {_said(err)}", **where)


def _code(err: Any) -> str:
    return str(err.response.get("Error", {}).get("Code", ""))


def _status(err: Any) -> int:
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_forbidden(err: Exception) -> bool:
    """Tell whether credentials that are known do not allow something; a HEAD is answered without a code."""
    from botocore.exceptions import ClientError

    return isinstance(err, ClientError) and _code(err) in ("AccessDenied", "403")


def _said(err: Exception) -> str:
    """Return what an error says in one line; no error of the library shows a secret, but some have several lines."""
    from botocore.exceptions import ClientError

    if isinstance(err, ClientError):
        message = err.response.get("Error", {}).get("Message") or ""
        return f"{_code(err)} {message}".strip().partition("\n")[0][:300]
    # Of the address of a request the server is what people need; the rest is the key, which is said already.
    text = re.sub(r'"(https?://[^/"]+)[^"]*"', r"\1", str(err)).removesuffix(".")
    return f"{type(err).__name__}: {text}".partition("\n")[0][:300]


def _is_transient(err: BaseException) -> bool:
    """Tell whether trying again may help."""
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    if isinstance(err, aws.ClientError):
        return _status(err) in (408, 429, 500, 502, 503, 504) or _TRANSIENT.search(_code(err)) is not None
    lost = (
        aws.ConnectionError,
        aws.HTTPClientError,
        aws.IncompleteReadError,
        aws.ResponseStreamingError,
        aws.FlexibleChecksumError,
        aws.ChecksumError,
        HTTPError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(err, lost)


def _need_library() -> None:
    try:
        import botocore.exceptions  # noqa: F401
    except ImportError as err:
        raise MissingDependency("s3:// repositories need the package boto3", hint='pip install "keepsake[s3]"') from err


_clients: dict[frozenset[tuple[str, str]], Any] = {}
"""One client for each set of ``AWS_*`` variables: making one takes longer than many requests."""

_clients_lock = threading.Lock()


def _forget_clients() -> None:
    """Begin anew: in a child that was forked, which cannot share connections, nor a lock that is held; and with new credentials."""
    global _clients_lock
    _clients.clear()
    _clients_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_clients)


def _client() -> Any:
    settings = frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    with _clients_lock:
        if settings not in _clients:
            _clients[settings] = _new_client()
        return _clients[settings]


def _new_client() -> Any:
    import boto3
    from botocore.config import Config

    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_pool_connections": CONNECTIONS,
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        # Servers that are not Amazon's refuse the newer checksums. Parts carry their MD5, and what is read is held against our own digests.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    # Clients may be shared by threads, sessions may not.
    session = boto3.session.Session()
    client = session.client("s3", config=Config(**settings))
    if "amazonaws.com" not in client.meta.endpoint_url:
        # Others' buckets seldom have names of their own in the DNS.
        client = session.client("s3", config=Config(**settings, s3={"addressing_style": "path"}))
    return client


# --- listing ----------------------------------------------------------------------------------------------------------


def _described(item: dict[str, Any], root: str, now: datetime) -> ObjectInfo:
    age_s = (now - item["LastModified"]).total_seconds()
    return ObjectInfo(item["Key"].removeprefix(root), item["Size"], item["ETag"].strip('"'), max(0.0, age_s))


def _clock(answer: dict[str, Any]) -> datetime:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def _is_key(name: str) -> bool:
    """Tell whether an object's name can be a key; foreign objects may have any."""
    try:
        return bool(check_key(name))
    except ValueError:
        return False


# --- reading ----------------------------------------------------------------------------------------------------------


class _Download(io.RawIOBase):
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
        self._name = storage._name(key)
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
                if not _is_transient(err):
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
        if self._position == self._stop and _base64(self._digest.digest()) != self._expected:
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
            answer = self._storage._call("get_object", Key=self._name, **arguments)
        except ClientError as err:
            if _code(err) in ("InvalidRange", "416") and self._etag is None:
                # It begins behind the end of the object, or the object is empty.
                self._stop = self._position
                return
            if self._etag is not None and (_code(err) in ("PreconditionFailed", "412") or _code(err) in _NO_OBJECT):
                raise self._replaced() from err
            raise
        if self._etag not in (None, answer.get("ETag")):
            raise self._replaced()
        self._etag, self._body = answer.get("ETag"), answer["Body"]
        self._expected = answer.get("Metadata", {}).get(_CHECKSUM)
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
        return self._storage._errors(ReadError, "read", self._key)

    def _drop(self) -> None:
        body, self._body = getattr(self, "_body", None), None
        if body is not None:
            with suppress(Exception):
                body.close()


# --- writing ----------------------------------------------------------------------------------------------------------


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


def _parts(body: Body, size_bytes: int | None) -> Iterator[tuple[bytes, bool]]:
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


def _md5(content: bytes) -> str:
    return _base64(hashlib.md5(content, usedforsecurity=False).digest())


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


class _Multipart:
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
        answer = self._storage._call(
            "upload_part", Key=self._name, UploadId=self.id, PartNumber=number, Body=part, ContentMD5=_md5(part)
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
            self._storage._call("complete_multipart_upload", Key=self._name, UploadId=self.id, MultipartUpload={"Parts": parts})
        except ClientError as err:
            # Where an answer was lost, the library asks again for what is done already.
            if _code(err) != "NoSuchUpload" or not self._has_arrived():
                raise

    def _has_arrived(self) -> bool:
        """Tell whether the object is one of as many parts: only the ETag says so, and where it does not, it counts as lost."""
        etag = str(self._storage._call("head_object", Key=self._name)["ETag"]).strip('"')
        return etag.endswith(f"-{len(self._etags)}")


class _Sending:
    """Sends parts, several at a time as long as they are small, and one after the other where no thread can be started.

    Args:
        upload: What they are parts of.
    """

    def __init__(self, upload: _Multipart) -> None:
        self._upload = upload
        self._pool = ThreadPoolExecutor(4, "keepsake-upload")
        self._flying: deque[tuple[Future[None], int]] = deque()
        self._flying_bytes = 0
        self._number = 0

    def __enter__(self) -> _Sending:
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


if TYPE_CHECKING:
    _: Storage = S3Storage("")
