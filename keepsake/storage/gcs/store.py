"""The store: what it does with the objects of a bucket."""

from __future__ import annotations

import io
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from keepsake.exceptions import (
    AccessDenied,
    KeepsakeError,
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
    Storage,
    check_key,
    check_prefix,
    in_prefix,
    is_key,
    read_anew,
)
from keepsake.storage.gcs.checksum import checksum_of, checksum_text
from keepsake.storage.gcs.client import need_library, new_client
from keepsake.storage.gcs.download import Download
from keepsake.storage.gcs.errors import LOG_IN, gcs_error, retrying, said
from keepsake.storage.gcs.upload import Upload, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LARGEST_OBJECT_BYTES = 5 << 40
"""Nothing lies beyond: 5 TiB is the largest object there is ("Quotas and limits" of Cloud Storage)."""

PAGE_KEYS = 1000
"""How many objects are listed by one request: as many as Google gives at most ("Objects: list", JSON API reference)."""

TIMEOUT_S = (10.0, 30.0)
"""How long to wait for a connection, and for each next sign of life on it."""

DELETERS = 16
"""How many objects are deleted at once: the JSON API has no request that deletes several, but for its batches, which servers that
stand in for Google's do not know."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class GCSStorage:
    """A bucket, or what lies below a prefix of it.

    Credentials are the application default ones; with ``STORAGE_EMULATOR_HOST`` none are needed. An upload becomes visible when it is
    complete, and only if it has the checksum that was computed here; what is read whole is held against the checksum that the store
    has computed.

    The client library serves to find credentials and endpoint and for its authorized session. The requests are made here, because its
    own downloads take the whole object for the range they asked for where a server ignores ranges, its uploads do not go on from what
    a server had already taken, and its listings hide the server's clock.

    Args:
        location: What follows ``gs://``: a bucket's name, and a prefix if it has one. A key and the prefix have 1,024 bytes together.

    Raises:
        RepositoryConfigurationError: The location names no bucket, or the prefix cannot be part of a key.

    Example:
        >>> GCSStorage("acme/hotdog").url
        'gs://acme/hotdog'
    """

    def __init__(self, location: str) -> None:
        self.bucket, _, prefix = location.partition("/")
        if not _BUCKET.fullmatch(self.bucket):
            raise RepositoryConfigurationError(
                f'"gs://{location}": {self.bucket!r} cannot be the name of a bucket', hint="write gs://BUCKET/PREFIX"
            )
        try:
            self.prefix = check_prefix(prefix)
        except ValueError as err:
            raise RepositoryConfigurationError(f'"gs://{location}": {err}', hint="write gs://BUCKET/PREFIX") from err
        self._clients: dict[int, Any] = {}
        self._locks: dict[int, threading.Lock] = {}

    @property
    def url(self) -> str:
        """The bucket and the prefix."""
        return f"gs://{self.bucket}/{self.prefix}" if self.prefix else f"gs://{self.bucket}"

    def __repr__(self) -> str:
        return f"GCSStorage({self.url.removeprefix('gs://')!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return GCSStorage, (self.url.removeprefix("gs://"),)

    # --- the contract -------------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes:
        return read_anew(lambda: Download(self, key))

    def open(self, key: str) -> BinaryIO:
        return io.BufferedReader(Download(self, key), PIECE_BYTES)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        start = min(start, LARGEST_OBJECT_BYTES)
        # One byte is asked for where none is wanted: whether the object is there must be told all the same.
        stop = min(start + max(length, 1), LARGEST_OBJECT_BYTES + 1)
        return read_anew(lambda: Download(self, key, start, stop))[:length]

    def write(self, key: str, body: Body) -> None:
        name = self.name(key)
        with closing(parts_of(body)) as parts:
            part, is_last = next(parts)
            if is_last:
                with self.errors(WriteError, "write", key):
                    self._upload(name, key, part)
                return
            self._upload_in_parts(name, key, part, parts)

    def delete(self, keys: Iterable[str]) -> None:
        names = {key: self.name(key) for key in keys}

        def work(key: str) -> None:
            with suppress(ObjectNotFound), self.errors(WriteError, "delete", key):
                self.call("DELETE", self.object_path(names[key]))

        if len(names) < 2:
            for key in names:
                work(key)
            return
        try:
            with ThreadPoolExecutor(min(DELETERS, len(names)), "keepsake-delete") as pool:
                # The first failure takes back what has not begun: where the store is out of reach, each would wait in vain.
                for _ in pool.map(work, names):
                    pass
        except RuntimeError:
            # A program that is ending can start no thread any more.
            for key in names:
                work(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._listed(check_prefix(prefix))

    # --- beside the contract ------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Tell whether the bucket exists.

        By listing below the prefix, which every reader of a repository may do; to ask for the bucket itself is a right of its own.

        Raises:
            StorageError: The store does not say.
        """
        with self.errors(ReadError, "list"):
            from google.api_core.exceptions import NotFound

            try:
                self.call(
                    "GET", f"/storage/v1/b/{self.bucket}/o", params={"prefix": self._root, "maxResults": 1, "fields": "kind"}
                )
            except NotFound:
                return False
        return True

    def create(self) -> None:
        """Make the bucket, where it does not exist yet, in the project of the credentials and with Google's defaults.

        Raises:
            WriteError: The store could not make it, for example because no project is known, or somebody else has a bucket of its name.
            AccessDenied: The credentials do not allow it.
        """
        with self.errors(WriteError, "create"):
            from google.api_core.exceptions import Conflict

            project = self._client().project
            if not project:
                raise WriteError(
                    f"cannot create {self.url}: no Google Cloud project is known",
                    url=self.url,
                    hint="export GOOGLE_CLOUD_PROJECT=PROJECT",
                )
            try:
                self.call(
                    "POST",
                    "/storage/v1/b",
                    params={"project": project},
                    headers={"Content-Type": "application/json"},
                    data=json.dumps({"name": self.bucket}),
                )
            except Conflict as err:
                # It is there already, or was made by an attempt whose answer was lost; or it is somebody else's, for names are
                # shared by all customers.
                try:
                    self.exists()
                except AccessDenied:
                    raise WriteError(f"somebody else has a bucket named {self.bucket}", url=self.url) from err

    def copy_from(self, other: GCSStorage, source_key: str, key: str) -> None:
        """Copy an object of another bucket, or of this one, without its bytes coming here.

        Args:
            other: Where it lies; both must be reached by the same credentials.
            source_key: Its key there.
            key: Its key here.

        Raises:
            ObjectNotFound: There is no such object.
            WriteError: The store could not copy it; the old value, if there was one, is intact.
        """
        source, target = other.object_path(other.name(source_key)), self.object_path(self.name(key))
        token = ""
        while True:
            with self._copy_errors(other, source_key, key):
                answer = self.call(
                    "POST",
                    f"{source}/rewriteTo{target.removeprefix('/storage/v1')}",
                    params={"rewriteToken": token} if token else {},
                    headers={"Content-Type": "application/json"},
                    data="{}",
                ).json()
            if answer["done"]:
                return
            token = answer["rewriteToken"]

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

    def object_path(self, name: str) -> str:
        """Return where requests about an object go."""
        return f"/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}"

    # --- requests -----------------------------------------------------------------------------------------------------

    def _client(self) -> Any:
        """Return this process's client: connections cannot be shared with a child that was forked, nor can a lock that is held."""
        process = os.getpid()
        with self._locks.setdefault(process, threading.Lock()):
            if process not in self._clients:
                self._clients[process] = new_client()
            return self._clients[process]

    def call(self, method: str, path: str, **more: Any) -> Any:
        """Make a request, again where that may help; any answer but a success is an exception of ``google.api_core``."""
        return retrying(lambda: self.request(method, path, **more))

    def request(self, method: str, path: str, **more: Any) -> Any:
        """Make a request once."""
        from google.api_core.exceptions import from_http_response

        client = self._client()
        url = path if "://" in path else f"{client.api_endpoint}{path}"
        # Every upload in parts is told of its progress by 308, which is no redirection.
        response = client._http.request(method, url, timeout=TIMEOUT_S, allow_redirects=False, **more)
        if response.status_code in (200, 201, 204, 206, 308):
            return response
        with closing(response):
            raise from_http_response(response)

    # --- listing ------------------------------------------------------------------------------------------------------

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        root = self._root
        params = {"prefix": root + prefix, "maxResults": PAGE_KEYS, "fields": "items(name,size,generation,updated),nextPageToken"}
        if prefix:
            # "0" follows "/": most of what only begins like the prefix need not be sent.
            params["endOffset"] = f"{root}{prefix}0"
        while True:
            with self.errors(ReadError, "list", prefix):
                response = self.call("GET", f"/storage/v1/b/{self.bucket}/o", params=params)
                page = response.json()
                found = [_described(item, root, _clock(response)) for item in page.get("items", ())]
            yield from (info for info in found if in_prefix(info.key, prefix) and is_key(info.key))
            if not page.get("nextPageToken"):
                return
            params["pageToken"] = page["nextPageToken"]

    # --- writing ------------------------------------------------------------------------------------------------------

    def _upload(self, name: str, key: str, content: bytes) -> None:
        """Store an object by one request; the store compares the checksum before anybody sees it."""
        checksum = checksum_text(checksum_of(content))
        boundary = f"part-{os.urandom(16).hex()}"
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps({'name': name, 'crc32c': checksum})}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        response = self.call(
            "POST",
            f"/upload/storage/v1/b/{self.bucket}/o",
            params={"uploadType": "multipart"},
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=b"".join((head.encode(), content, f"\r\n--{boundary}--\r\n".encode())),
        )
        self.check_stored(response.json(), checksum, name, key)

    def _upload_in_parts(self, name: str, key: str, part: bytes, parts: Iterator[tuple[bytes, bool]]) -> None:
        with self.errors(WriteError, "write", key):
            upload = Upload(self, name, key)
        try:
            is_last = False
            while True:
                with self.errors(WriteError, "write", key):
                    upload.send(part, is_last=is_last)
                if is_last:
                    return
                # Outside of our errors: what the body raises while it is read is the caller's.
                part, is_last = next(parts)
        except StorageUnavailable:
            # Asking would take as long again, and what nobody goes on with is forgotten after a week.
            raise
        except Exception:
            upload.cancel()
            raise

    def check_stored(self, stored: dict[str, Any], checksum: str, name: str, key: str) -> None:
        """Take back what does not have the checksum that was sent with it, which a store that stands in for Google's may not check."""
        if stored.get("crc32c", checksum) == checksum:
            return
        self.call("DELETE", self.object_path(name), params={"generation": stored["generation"]})
        raise WriteError(f"{key} arrived damaged in {self.url}", url=self.url, key=key)

    # --- errors -------------------------------------------------------------------------------------------------------

    @contextmanager
    def errors(self, kind: type[StorageError], verb: str, key: str = "") -> Iterator[None]:
        """Turn what the client library raises into errors of ours."""
        need_library()
        try:
            yield
        except KeepsakeError:
            raise
        except Exception as err:
            error = self._error(err, kind, verb, key)
            if isinstance(error, AccessDenied) and error.hint == LOG_IN:
                # Credentials are read anew by the next call, so that a training that has outlived them goes on after a new login.
                self._clients.pop(os.getpid(), None)
            raise error from err

    @contextmanager
    def _copy_errors(self, other: GCSStorage, source_key: str, key: str) -> Iterator[None]:
        """What is missing while copying lies at the source, or the bucket here is."""
        with self.errors(WriteError, "write", key):
            from google.api_core.exceptions import NotFound

            try:
                yield
            except NotFound as err:
                if self.exists():
                    raise other._error(err, ReadError, "read", source_key) from err
                raise

    def _error(self, err: Exception, kind: type[StorageError], verb: str, key: str) -> StorageError:
        if getattr(err, "code", None) != HTTPStatus.NOT_FOUND:
            return gcs_error(err, kind, verb, key, self.url)
        # The same status for both. The words are Google's, and those of other servers differ: then one more request tells.
        if "no such object" not in said(err).lower() and not self.exists():
            return kind(f"bucket {self.bucket} does not exist", url=self.url, key=key or None, hint=f"keepsake init {self.url}")
        if verb in ("read", "delete"):
            return ObjectNotFound(f"no object {key} in {self.url}", url=self.url, key=key)
        return gcs_error(err, kind, verb, key, self.url)


def _described(item: dict[str, Any], root: str, now: datetime) -> ObjectInfo:
    age_s = (now - datetime.fromisoformat(item["updated"])).total_seconds()
    return ObjectInfo(item["name"].removeprefix(root), int(item["size"]), str(item["generation"]), max(0.0, age_s))


def _clock(response: Any) -> datetime:
    date = response.headers.get("Date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


if TYPE_CHECKING:
    _: Storage = GCSStorage("bucket")
