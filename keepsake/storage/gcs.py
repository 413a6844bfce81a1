"""Objects in a bucket of Google Cloud Storage. What keys mean belongs to `keepsake.repository`."""

from __future__ import annotations

import base64
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
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote

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
    from collections.abc import Callable, Generator, Iterable, Iterator

    from _typeshed import WriteableBuffer

T = TypeVar("T")

PART_BYTES = 8 << 20
"""Up to this length an object is sent in one request, and a longer one in parts of it: so much of a body is held in memory. Google
advises 8 MiB at least, and wants a multiple of 256 KiB ("Resumable uploads", developer guide of Cloud Storage)."""

READ_BYTES = 1 << 18
"""How much is taken from a connection at a time: what is lost, and fetched again, where it breaks off."""

LARGEST_OBJECT_BYTES = 5 << 40
"""Nothing lies beyond: 5 TiB is the largest object there is ("Quotas and limits" of Cloud Storage)."""

PAGE_KEYS = 1000
"""How many objects are listed by one request: as many as Google gives at most ("Objects: list", JSON API reference)."""

TIMEOUT_S = (10.0, 30.0)
"""How long to wait for a connection, and for each next sign of life on it."""

RETRY_FOR_S = 10.0
"""How long a request that may succeed later is made again. With one that hangs, a call that makes no progress ends within a minute."""

DELETERS = 16
"""How many objects are deleted at once: the JSON API has no request that deletes several, but for its batches, which servers that
stand in for Google's do not know."""

CONNECTIONS = 64
"""How many connections are kept for the threads of a process; further ones are closed after use."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
"""The answers that Google says to try again ("Retry strategy" of Cloud Storage)."""

_RATE_LIMITS = ("rateLimitExceeded", "userRateLimitExceeded")
"""Reasons of a refusal (403) that pass."""

_LOG_IN = "gcloud auth application-default login"

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
        return read_anew(lambda: _Download(self, key))

    def open(self, key: str) -> BinaryIO:
        return io.BufferedReader(_Download(self, key), PIECE_BYTES)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        start = min(start, LARGEST_OBJECT_BYTES)
        # One byte is asked for where none is wanted: whether the object is there must be told all the same.
        stop = min(start + max(length, 1), LARGEST_OBJECT_BYTES + 1)
        return read_anew(lambda: _Download(self, key, start, stop))[:length]

    def write(self, key: str, body: Body) -> None:
        name = self._name(key)
        with closing(_parts(body)) as parts:
            part, is_last = next(parts)
            if is_last:
                with self._errors(WriteError, "write", key):
                    self._upload(name, key, part)
                return
            self._upload_in_parts(name, key, part, parts)

    def delete(self, keys: Iterable[str]) -> None:
        names = {key: self._name(key) for key in keys}

        def work(key: str) -> None:
            with suppress(ObjectNotFound), self._errors(WriteError, "delete", key):
                self._call("DELETE", self._object(names[key]))

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
        with self._errors(ReadError, "list"):
            from google.api_core.exceptions import NotFound

            try:
                self._call(
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
        with self._errors(WriteError, "create"):
            from google.api_core.exceptions import Conflict

            project = self._client().project
            if not project:
                raise WriteError(
                    f"cannot create {self.url}: no Google Cloud project is known",
                    url=self.url,
                    hint="export GOOGLE_CLOUD_PROJECT=PROJECT",
                )
            try:
                self._call(
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
        source, target = other._object(other._name(source_key)), self._object(self._name(key))
        token = ""
        while True:
            with self._copy_errors(other, source_key, key):
                answer = self._call(
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

    def _name(self, key: str) -> str:
        name = self._root + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"bad storage key {key[:40]!r}…: with the prefix longer than {MAX_KEY_BYTES} bytes")
        return name

    def _object(self, name: str) -> str:
        return f"/storage/v1/b/{self.bucket}/o/{quote(name, safe='')}"

    # --- requests -----------------------------------------------------------------------------------------------------

    def _client(self) -> Any:
        """Return this process's client: connections cannot be shared with a child that was forked, nor can a lock that is held."""
        process = os.getpid()
        with self._locks.setdefault(process, threading.Lock()):
            if process not in self._clients:
                self._clients[process] = _new_client()
            return self._clients[process]

    def _call(self, method: str, path: str, **more: Any) -> Any:
        """Make a request, again where that may help; any answer but a success is an exception of ``google.api_core``."""
        return _retrying(lambda: self._request(method, path, **more))

    def _request(self, method: str, path: str, **more: Any) -> Any:
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
            with self._errors(ReadError, "list", prefix):
                response = self._call("GET", f"/storage/v1/b/{self.bucket}/o", params=params)
                page = response.json()
                found = [_described(item, root, _clock(response)) for item in page.get("items", ())]
            yield from (info for info in found if in_prefix(info.key, prefix) and _is_key(info.key))
            if not page.get("nextPageToken"):
                return
            params["pageToken"] = page["nextPageToken"]

    # --- writing ------------------------------------------------------------------------------------------------------

    def _upload(self, name: str, key: str, content: bytes) -> None:
        """Store an object by one request; the store compares the checksum before anybody sees it."""
        checksum = _checksum_text(_checksum(content))
        boundary = f"part-{os.urandom(16).hex()}"
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps({'name': name, 'crc32c': checksum})}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        response = self._call(
            "POST",
            f"/upload/storage/v1/b/{self.bucket}/o",
            params={"uploadType": "multipart"},
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=b"".join((head.encode(), content, f"\r\n--{boundary}--\r\n".encode())),
        )
        self._check_stored(response.json(), checksum, name, key)

    def _upload_in_parts(self, name: str, key: str, part: bytes, parts: Iterator[tuple[bytes, bool]]) -> None:
        with self._errors(WriteError, "write", key):
            upload = _Upload(self, name, key)
        try:
            is_last = False
            while True:
                with self._errors(WriteError, "write", key):
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

    def _check_stored(self, stored: dict[str, Any], checksum: str, name: str, key: str) -> None:
        """Take back what does not have the checksum that was sent with it, which a store that stands in for Google's may not check."""
        if stored.get("crc32c", checksum) == checksum:
            return
        self._call("DELETE", self._object(name), params={"generation": stored["generation"]})
        raise WriteError(f"{key} arrived damaged in {self.url}", url=self.url, key=key)

    # --- errors -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _errors(self, kind: type[StorageError], verb: str, key: str = "") -> Iterator[None]:
        _need_library()
        try:
            yield
        except KeepsakeError:
            raise
        except Exception as err:
            error = self._error(err, kind, verb, key)
            if isinstance(error, AccessDenied) and error.hint == _LOG_IN:
                # Credentials are read anew by the next call, so that a training that has outlived them goes on after a new login.
                self._clients.pop(os.getpid(), None)
            raise error from err

    @contextmanager
    def _copy_errors(self, other: GCSStorage, source_key: str, key: str) -> Iterator[None]:
        """What is missing while copying lies at the source, or the bucket here is."""
        with self._errors(WriteError, "write", key):
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
        if "no such object" not in _said(err).lower() and not self.exists():
            return kind(f"bucket {self.bucket} does not exist", url=self.url, key=key or None, hint=f"keepsake init {self.url}")
        if verb in ("read", "delete"):
            return ObjectNotFound(f"no object {key} in {self.url}", url=self.url, key=key)
        return gcs_error(err, kind, verb, key, self.url)


def gcs_error(err: Exception, kind: type[StorageError], verb: str, key: str, url: str) -> StorageError:
    """Return whatever the client library raised as an error of ours, all in this one place.

    A missing object or bucket is not among it: the status of both is the same, so that the store has to be asked.

    Args:
        err: What it raised.
        kind: What it is if nothing more is known.
        verb: What was tried.
        key: What with; empty if with the store as a whole.
        url: The store.
    """
    from google.api_core.exceptions import RetryError
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, InvalidOperation

    if isinstance(err, RetryError):
        cause = err.cause
        return gcs_error(cause if isinstance(cause, Exception) else TimeoutError(), kind, verb, key, url)
    where: dict[str, Any] = {"url": url, "key": key or None}
    what = f"cannot {verb} {key} in {url}" if key else f"cannot {verb} {url}"
    if _is_transient(err):
        return StorageUnavailable(f"{what}: unreachable for now ({_said(err)})", **where)
    code = getattr(err, "code", None)
    if code == HTTPStatus.UNAUTHORIZED or isinstance(err, InvalidOperation):
        # The second is what credentials say that cannot be renewed, after such an answer.
        return AccessDenied(f"the Google Cloud credentials for {url} were refused", **where, hint=_LOG_IN)
    if code == HTTPStatus.FORBIDDEN:
        return AccessDenied(f"{what}: the Google Cloud credentials do not allow it", **where, facts=[_said(err)])
    if isinstance(err, DefaultCredentialsError):
        looked = "looked at: GOOGLE_APPLICATION_CREDENTIALS, the file that gcloud writes, the metadata server of the machine"
        return AccessDenied(f"no Google Cloud credentials for {url}", **where, facts=[looked, _said(err)], hint=_LOG_IN)
    if isinstance(err, GoogleAuthError):
        return AccessDenied(
            f"the Google Cloud credentials for {url} have expired or cannot be renewed", **where, facts=[_said(err)], hint=_LOG_IN
        )
    return kind(f"{what}: {_said(err)}", **where)


def _said(err: Exception) -> str:
    """Return what an error says in one line, without the address of a request: that of an upload is a secret."""
    from google.api_core.exceptions import GoogleAPICallError

    if isinstance(err, GoogleAPICallError):
        request = getattr(err.response, "request", None)
        said = err.message.removeprefix(f"{request.method} {request.url}: ") if request is not None else err.message
        return f"{err.code} {said.strip()}".partition("\n")[0][:300]
    if _is_transient(err):
        return f"no connection: {type(err).__name__}"
    return f"{type(err).__name__}: {err.args[0] if err.args else ''}".partition("\n")[0][:300]


def _is_transient(err: Exception) -> bool:
    """Tell whether trying again may help."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(err, Forbidden):
        return any(isinstance(reason, dict) and reason.get("reason") in _RATE_LIMITS for reason in err.errors)
    if isinstance(err, GoogleAPICallError):
        return err.code in _TRANSIENT
    if isinstance(err, GoogleAuthError):
        return isinstance(err, TransportError) or bool(err.retryable)
    lost = (
        exceptions.ConnectionError,
        exceptions.Timeout,
        exceptions.ChunkedEncodingError,
        HTTPError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(err, lost)


def _retrying(work: Callable[[], T]) -> T:
    from google.api_core.retry import Retry

    result: T = Retry(predicate=_is_transient, initial=0.1, maximum=8.0, multiplier=2.0, timeout=RETRY_FOR_S)(work)()
    return result


def _need_library() -> None:
    try:
        import google.cloud.storage  # noqa: F401
    except ImportError as err:
        raise MissingDependency(
            "gs:// repositories need the package google-cloud-storage", hint='pip install "keepsake[gcs]"'
        ) from err


def _new_client() -> Any:
    import google.auth
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        client = storage.Client()
    else:
        credentials, project = google.auth.default()
        client = storage.Client(project=project, credentials=credentials)
    client._http.hooks["response"].append(_read_refusal)
    if not client._http.is_mtls:
        client._http.mount(client.api_endpoint, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return client


def _read_refusal(response: Any, **_: Any) -> None:
    """Read what a refusal says before the session logs in again, which drops the answer and would leave its connection open."""
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        _ = response.content


# --- listing ----------------------------------------------------------------------------------------------------------


def _described(item: dict[str, Any], root: str, now: datetime) -> ObjectInfo:
    age_s = (now - datetime.fromisoformat(item["updated"])).total_seconds()
    return ObjectInfo(item["name"].removeprefix(root), int(item["size"]), str(item["generation"]), max(0.0, age_s))


def _clock(response: Any) -> datetime:
    date = response.headers.get("Date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def _is_key(name: str) -> bool:
    """Tell whether an object's name can be a key; foreign objects may have any."""
    try:
        return bool(check_key(name))
    except ValueError:
        return False


# --- reading ----------------------------------------------------------------------------------------------------------


class _Download(io.RawIOBase):
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
        self._path = f"/download{storage._object(storage._name(key))}"
        self._position = start
        self._stop = stop
        self._size_bytes: int | None = None
        self._generation = ""
        self._response: Any = None
        self._checksum: Any = None
        self._expected = ""
        with self._errors():
            if start == 0 and stop is None:
                self._checksum = _checksum()
            _retrying(self._connect)

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
            return _retrying(lambda: self._piece(size_bytes))

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
            response = self._storage._request("GET", self._path, params=params, headers=headers, stream=True)
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
        self._expected = self._expected or _expected_checksum(response)
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
        if self._position == self._stop and self._expected not in ("", _checksum_text(self._checksum)):
            raise ReadError(f"{self._key} in {self._storage.url} does not match its checksum", **self._where())

    def _replaced(self) -> Replaced:
        return Replaced(f"{self._key} in {self._storage.url} was replaced while it was read", **self._where())

    def _where(self) -> dict[str, Any]:
        return {"url": self._storage.url, "key": self._key}

    def _errors(self) -> Any:
        return self._storage._errors(ReadError, "read", self._key)

    def _finish(self) -> None:
        """Give the connection back for other requests, which can be done only after all of an answer."""
        response, self._response = self._response, None
        response.raw.drain_conn()

    def _drop(self) -> None:
        response, self._response = getattr(self, "_response", None), None
        if response is not None:
            response.close()


# --- writing ----------------------------------------------------------------------------------------------------------


class _Upload:
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
        self._checksum = _checksum()
        self._sent_bytes = 0
        response = storage._call(
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

        response = _retrying(attempt)
        self._sent_bytes = end
        if is_last:
            self._storage._check_stored(response.json(), _checksum_text(self._checksum), self._name, self._key)

    def cancel(self) -> None:
        """Let the store forget what it has, as it does by itself after a week."""
        with suppress(Exception):
            # It answers 499, which is an exception like other answers that are no success.
            self._storage._request("DELETE", self._address)

    def _put(self, content: bytes, content_range: str) -> Any:
        from google.api_core.exceptions import GoogleAPICallError

        headers = {"Content-Range": content_range}
        if not content_range.endswith("*"):
            headers["X-Goog-Hash"] = f"crc32c={_checksum_text(self._checksum)}"
        try:
            return self._storage._request("PUT", self._address, data=content, headers=headers)
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


def _parts(body: Body) -> Generator[tuple[bytes, bool], None, None]:
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


def _checksum(content: bytes = b"") -> Any:
    import google_crc32c

    return google_crc32c.Checksum(content)


def _checksum_text(checksum: Any) -> str:
    return base64.b64encode(checksum.digest()).decode()


def _expected_checksum(response: Any) -> str:
    found = re.search(r"crc32c=([A-Za-z0-9+/=]+)", response.headers.get("x-goog-hash", ""))
    return found[1] if found else ""


if TYPE_CHECKING:
    _: Storage = GCSStorage("bucket")
