"""A small server that speaks the JSON API of Google Cloud Storage, on loopback, with faults where a test wants them.

It keeps what the real one promises and what the emulators on the package index do not: pages, ranges, generations and preconditions,
uploads of which nothing is visible before they are complete and have their checksum, uploads in parts that can be asked how far they
are, copies in several steps, and a 404 that says in words whether the object or the bucket is missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

QUANTUM_BYTES = 256 * 1024
"""A part of an upload that breaks off is kept up to a multiple of this."""

REWRITE_BYTES = 1 << 20
"""How much of a copy is made in one step."""


@dataclass(frozen=True)
class Object:
    """One generation of an object."""

    content: bytes
    generation: int
    updated: datetime

    @cached_property
    def checksums(self) -> dict[str, str]:
        return checksums(self.content)

    def described(self, bucket: str, name: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(self.content)),
            "generation": str(self.generation),
            "metageneration": "1",
            "etag": base64.b64encode(str(self.generation).encode()).decode(),
            "updated": self.updated.isoformat().replace("+00:00", "Z"),
            **self.checksums,
        }


@dataclass
class Upload:
    """An upload in parts that is not complete."""

    bucket: str
    name: str
    content: bytearray = field(default_factory=bytearray)
    stored: dict[str, Any] | None = None


@dataclass
class Fault:
    """What goes wrong with a request.

    Args:
        match: Found in ``METHOD path?query`` of the requests concerned.
        times: How many of them.
        skip: How many of them go well before.
        status: Answer this, before any effect.
        text: What the answer says.
        reason: The reason of the answer, as machines read it.
        reset: Break the connection: ``before`` the effect, ``after`` it, or ``inside`` the body of the request or of the answer.
        keep: With ``inside``: how many bytes of the body go through.
        ignore_range: Answer with the whole object.
        ignore_generation: Answer with the present generation, whichever is asked for.
        shift: Answer with a range that begins so much later.
        corrupt: Alter the first byte of the body of the request, or of the answer where it has one.
        hang: Give no answer as long as the server runs.
        then: What happens before the connection breaks.
    """

    match: str
    times: int = 1
    skip: int = 0
    status: int = 0
    text: str = "planned"
    reason: str = "planned"
    reset: str = ""
    keep: int = 0
    ignore_range: bool = False
    ignore_generation: bool = False
    shift: int = 0
    corrupt: bool = False
    hang: bool = False
    then: Callable[[], object] | None = None


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason


class Broken(Exception):
    """The connection ends here."""


class FakeGCS:
    """The server; a context manager.

    Args:
        buckets: The buckets that there are.
        share: Which share of the requests fails by chance: by an answer of 503, or by a connection that breaks before the request has
            its effect, after it, or inside a body.
        seed: Of that chance.
        page: How many objects a page of a listing has at most.

    Attributes:
        requests: Of each request that has come, the method and the path with its query.
        sent_bytes: How many bytes of objects were sent.
        uploaded_bytes: How many bytes have come of uploads in parts.
        checks: Whether it compares the checksums of uploads with what has come.
        connections: How many connections were made.
        clock_skew: How much the clock of the server is ahead.
        tokens: The access tokens that are good; None where nobody needs one.
        may_sign_in: Whether its token endpoint gives tokens.
        faults: What goes wrong.
    """

    def __init__(self, *buckets: str, share: float = 0.0, seed: str = "", page: int = 1000) -> None:
        self.buckets: dict[str, dict[str, Object]] = {name: {} for name in buckets}
        self.share, self.page = share, page
        self.requests: list[str] = []
        self.sent_bytes = 0
        self.uploaded_bytes = 0
        self.checks = True
        self.connections = 0
        self.clock_skew = timedelta()
        self.tokens: set[str] | None = None
        self.may_sign_in = True
        self.faults: list[Fault] = []
        self.projects: dict[str, str] = {}
        self.uploads: dict[str, Upload] = {}
        self.lock = threading.RLock()
        self.stopped = threading.Event()
        self._chance = random.Random(seed)
        self._connections: set[socket.socket] = set()
        self._generation = time.time_ns() // 1000
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-gcs")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeGCS:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._thread.join()
        with self.lock:
            connections = list(self._connections)
        for connection in connections:
            # Its thread waits for the next request.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_skew

    def put(self, bucket: str, name: str, content: bytes) -> Object:
        """Store an object; the next generation is later than all before."""
        with self.lock:
            self._generation += 1
            self.buckets[bucket][name] = Object(content, self._generation, self.now())
            return self.buckets[bucket][name]

    def plan(self, *faults: Fault) -> None:
        with self.lock:
            self.faults.extend(faults)

    def due(self, line: str) -> Fault | None:
        """Count a request, and return what goes wrong with it."""
        with self.lock:
            self.requests.append(line)
            for fault in self.faults:
                if re.search(fault.match, line):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    return fault
            if self._chance.random() < self.share:
                inside = Fault("", reset="inside", keep=self._chance.randrange(1_000_000))
                return self._chance.choice([Fault("", status=503), Fault("", reset="before"), Fault("", reset="after"), inside])
            return None

    @contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        with self.lock:
            self._connections.add(connection)
            self.connections += 1
        try:
            yield
        finally:
            with self.lock:
                self._connections.discard(connection)


def checksums(content: bytes) -> dict[str, str]:
    return {
        "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        "crc32c": base64.b64encode(google_crc32c.Checksum(content).digest()).decode(),
    }


def check_checksums(content: bytes, claimed: dict[str, str]) -> None:
    for kind, real in checksums(content).items():
        if claimed.get(kind, real) != real:
            raise Refused(400, f"Provided {kind} {claimed[kind]!r} doesn't match calculated {real!r}.", "invalid")


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, state: FakeGCS) -> None:
        self.state = state
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self.state.connected(request):
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that break off are part of the tests, and what goes wrong here is an answer of 500."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.server.state.now(), usegmt=True)

    def do_GET(self) -> None:
        self.state = self.server.state
        self.fault = self.state.due(f"{self.command} {self.path}") or Fault("")
        split = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        try:
            body = self._body(split.path)
            if self.fault.hang:
                self.state.stopped.wait()
            if self.fault.hang or self.fault.reset == "before":
                raise Broken
            if self.fault.status:
                raise Refused(self.fault.status, self.fault.text, self.fault.reason)
            self._authorize(split.path)
            self._route(split.path, body)
        except Refused as refused:
            self._refuse(refused)
        except Broken:
            self._break()
        except Exception as err:
            self._refuse(Refused(500, repr(err)))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    # --- connections --------------------------------------------------------------------------------------------------

    def _body(self, path: str) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            raise Refused(501, "chunked")
        torn = self.fault.reset == "inside" and length > 0
        if torn:
            length = min(length, self.fault.keep)
        body = self.rfile.read(length)
        if self.command == "PUT":
            self.state.uploaded_bytes += len(body)
        if self.fault.corrupt and body and self.command == "PUT":
            body = bytes([body[0] ^ 1]) + body[1:]
        if torn or len(body) < length:
            self._torn(path, body)
            raise Broken
        return body

    def _torn(self, path: str, body: bytes) -> None:
        """Of an upload in parts the server keeps what it has got, to a round number; of any other nothing."""
        upload = self.state.uploads.get(self.query.get("upload_id", ""))
        match = re.match(r"bytes (\d+)-", self.headers.get("Content-Range", ""))
        if upload and match:
            with self.state.lock:
                self._take(upload, int(match[1]), body[: len(body) // QUANTUM_BYTES * QUANTUM_BYTES])

    def _break(self) -> None:
        self.close_connection = True
        if self.fault.then:
            self.fault.then()
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        if self.fault.reset == "after":
            raise Broken
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.fault.reset == "inside" and self.command == "GET":
            body = body[: self.fault.keep]
        if self.query.get("alt") == "media":
            self.state.sent_bytes += len(body)
        self.wfile.write(body)
        self.wfile.flush()
        if self.fault.reset == "inside":
            raise Broken

    def _json(self, answer: Any, status: int = 200, **headers: str) -> None:
        self._answer(status, json.dumps(answer).encode(), Content_Type="application/json; charset=UTF-8", **headers)

    def _refuse(self, refused: Refused) -> None:
        error = {
            "code": refused.status,
            "message": refused.message,
            "errors": [{"reason": refused.reason, "message": refused.message}],
        }
        try:
            if self.query.get("alt") == "media":
                # For media the errors are plain text.
                self._answer(refused.status, refused.message.encode(), Content_Type="text/html; charset=UTF-8")
            else:
                self._json({"error": error}, refused.status)
        except Broken:
            self._break()

    # --- requests -----------------------------------------------------------------------------------------------------

    def _authorize(self, path: str) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path != "/token" and self.state.tokens is not None and token not in self.state.tokens:
            raise Refused(401, "Invalid Credentials", "authError")

    def _token(self, body: bytes) -> Callable[[], None]:
        if not self.state.may_sign_in:
            return lambda: self._json({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}, 400)
        token = f"token-{random.randbytes(8).hex()}"
        self.state.tokens = {*(self.state.tokens or ()), token}
        return lambda: self._json({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    def _route(self, path: str, body: bytes) -> None:
        routes: list[tuple[str, str, Callable[..., None]]] = [
            ("POST", r"/token", self._token),
            ("POST", r"/storage/v1/b", self._create_bucket),
            ("GET", r"/storage/v1/b/([^/]+)", self._describe_bucket),
            ("GET", r"/storage/v1/b/([^/]+)/o", self._list),
            ("GET", r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)", self._get),
            ("DELETE", r"/storage/v1/b/([^/]+)/o/([^/]+)", self._delete),
            ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", self._rewrite),
            ("POST", r"/upload/storage/v1/b/([^/]+)/o", self._upload),
            ("PUT", r"/upload/storage/v1/b/([^/]+)/o", self._part),
            ("DELETE", r"/upload/storage/v1/b/([^/]+)/o", self._cancel),
        ]
        for method, pattern, work in routes:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                names = [unquote(name) for name in match.groups()]
                with self.state.lock:
                    answer = work(*names, body=body)
                # Sent without the lock: a client that reads slowly holds up nobody else.
                return answer()
        raise Refused(404, "Not Found", "notFound")

    def _bucket(self, name: str) -> dict[str, Object]:
        if name not in self.state.buckets:
            raise Refused(404, "The specified bucket does not exist.", "notFound")
        return self.state.buckets[name]

    def _object(self, bucket: str, name: str) -> Object:
        found = self._bucket(bucket).get(name)
        if self.fault.ignore_generation:
            self.query.pop("generation", None)
        if found is None or self.query.get("generation", str(found.generation)) != str(found.generation):
            raise Refused(404, f"No such object: {bucket}/{name}", "notFound")
        return found

    def _precondition(self, bucket: str, name: str) -> None:
        wanted = self.query.get("ifGenerationMatch")
        found = self._bucket(bucket).get(name)
        if wanted is not None and int(wanted) != (found.generation if found else 0):
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")

    def _create_bucket(self, body: bytes) -> Callable[[], None]:
        name = json.loads(body)["name"]
        if "project" not in self.query:
            raise Refused(400, "Required parameter: project", "required")
        if name in self.state.buckets:
            raise Refused(409, "Your previous request to create the named bucket succeeded and you already own it.", "conflict")
        self.state.buckets[name] = {}
        self.state.projects[name] = self.query["project"]
        return lambda: self._json({"name": name})

    def _describe_bucket(self, bucket: str, body: bytes) -> Callable[[], None]:
        self._bucket(bucket)
        return lambda: self._json({"name": bucket})

    def _list(self, bucket: str, body: bytes) -> Callable[[], None]:
        prefix, after = self.query.get("prefix", ""), self.query.get("pageToken", "")
        end = self.query.get("endOffset")
        names = sorted(
            (
                name
                for name in self._bucket(bucket)
                if name.startswith(prefix) and name.encode() > after.encode() and (end is None or name.encode() < end.encode())
            ),
            key=str.encode,
        )
        count = min(int(self.query.get("maxResults", 1000)), self.state.page)
        page = names[:count]
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if page:
            answer["items"] = [self.state.buckets[bucket][name].described(bucket, name) for name in page]
        if len(names) > count:
            answer["nextPageToken"] = page[-1]
        return lambda: self._json(answer)

    def _get(self, bucket: str, name: str, body: bytes) -> Callable[[], None]:
        found = self._object(bucket, name)
        if self.query.get("alt") != "media":
            return lambda: self._json(found.described(bucket, name))
        sums = found.checksums
        headers = {
            "Content_Type": "application/octet-stream",
            "x_goog_generation": str(found.generation),
            "x_goog_hash": f"crc32c={sums['crc32c']},md5={sums['md5Hash']}",
            "x_goog_stored_content_length": str(len(found.content)),
        }
        content, status = found.content, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not self.fault.ignore_range:
            start, stop = int(asked[1]) + self.fault.shift, min(int(asked[2] or len(content)) + 1, len(content))
            if start >= len(content):
                raise Refused(416, "The requested range cannot be satisfied.", "requestedRangeNotSatisfiable")
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content, status = content[start:stop], 206
        if self.fault.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        return lambda: self._answer(status, content, **headers)

    def _delete(self, bucket: str, name: str, body: bytes) -> Callable[[], None]:
        self._precondition(bucket, name)
        self._object(bucket, name)
        del self.state.buckets[bucket][name]
        return lambda: self._answer(204)

    def _rewrite(self, bucket: str, name: str, to_bucket: str, to_name: str, body: bytes) -> Callable[[], None]:
        found = self._object(bucket, name)
        self._name(to_bucket, to_name)
        done = int(self.query.get("rewriteToken", 0)) + REWRITE_BYTES
        size = len(found.content)
        answer: dict[str, Any] = {"kind": "storage#rewriteResponse", "objectSize": str(size), "done": done >= size}
        answer["totalBytesRewritten"] = str(min(done, size))
        if done >= size:
            answer["resource"] = self.state.put(to_bucket, to_name, found.content).described(to_bucket, to_name)
        else:
            answer["rewriteToken"] = str(done)
        return lambda: self._json(answer)

    # --- uploads ------------------------------------------------------------------------------------------------------

    def _name(self, bucket: str, name: str) -> str:
        self._bucket(bucket)
        if not 1 <= len(name.encode()) <= 1024 or name in (".", "..") or re.search(r"[\r\n]", name):
            raise Refused(400, f"Invalid object name: {name!r}", "invalid")
        return name

    def _upload(self, bucket: str, body: bytes) -> Callable[[], None]:
        if self.query.get("uploadType") == "resumable":
            about = json.loads(body or b"{}")
            name = self._name(bucket, self.query.get("name") or about["name"])
            token = f"upload-{len(self.state.uploads)}-{random.randbytes(8).hex()}"
            self.state.uploads[token] = Upload(bucket, name)
            address = f"{self.state.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={token}"
            return lambda: self._answer(200, Location=address)
        if self.query.get("uploadType") != "multipart":
            raise Refused(501, "Only multipart and resumable uploads", "notImplemented")
        about, content = self._multipart(body)
        name = self._name(bucket, self.query.get("name") or about["name"])
        if self.fault.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        if self.state.checks:
            check_checksums(content, about)
        self._precondition(bucket, name)
        stored = self.state.put(bucket, name, content).described(bucket, name)
        return lambda: self._json(stored)

    def _multipart(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
        if not boundary or not body.rstrip().endswith(f"--{boundary[1]}--".encode()):
            raise Refused(400, "The multipart body is not complete", "invalid")
        mark = f"--{boundary[1]}".encode()
        first = body.index(mark) + len(mark)
        second = body.index(b"\r\n" + mark, first)
        last = body.rindex(b"\r\n" + mark + b"--")
        about = body[first:second].partition(b"\r\n\r\n")[2]
        content = body[second + 2 + len(mark) : last].partition(b"\r\n\r\n")[2]
        return json.loads(about), content

    def _take(self, upload: Upload, start: int, content: bytes) -> None:
        if start > len(upload.content):
            raise Refused(503, f"{len(upload.content)} bytes are there, not {start}", "backendError")
        # What is there already is not written again.
        upload.content += content[len(upload.content) - start :]

    def _part(self, bucket: str, body: bytes) -> Callable[[], None]:
        upload = self.state.uploads.get(self.query.get("upload_id", ""))
        if upload is None:
            raise Refused(404, "Not Found", "notFound")
        if upload.stored:
            stored = upload.stored
            return lambda: self._json(stored)
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers.get("Content-Range", ""))
        if not match or (match[1] and int(match[2]) - int(match[1]) + 1 != len(body)):
            raise Refused(400, "Invalid Content-Range", "invalid")
        if match[3] == "*" and len(body) % QUANTUM_BYTES:
            raise Refused(400, "A part must be a multiple of 256 KiB", "invalid")
        if match[1]:
            self._take(upload, int(match[1]), body)
        if match[3] == "*" or len(upload.content) < int(match[3]):
            headers = {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
            return lambda: self._answer(308, **headers)
        content = bytes(upload.content)
        claimed = re.search(r"crc32c=(\S+)", self.headers.get("X-Goog-Hash", ""))
        if self.state.checks:
            check_checksums(content, {"crc32c": claimed[1]} if claimed else {})
        upload.stored = stored = self.state.put(bucket, upload.name, content).described(bucket, upload.name)
        upload.content.clear()
        return lambda: self._json(stored)

    def _cancel(self, bucket: str, body: bytes) -> Callable[[], None]:
        if self.state.uploads.pop(self.query.get("upload_id", ""), None) is None:
            raise Refused(404, "Not Found", "notFound")
        raise Refused(499, "Client Closed Request")
