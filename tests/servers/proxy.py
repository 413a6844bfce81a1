"""A proxy on loopback between a client and one HTTP server: it counts what goes through, and breaks what a test wants broken."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

PIECE_BYTES = 1 << 16

INTERNAL_ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Please try again.</Message></Error>"
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Fault:
    """What goes wrong with a request.

    Args:
        kind: ``status``: answer `status` and pass nothing on. ``reset``: break the connection and pass nothing on. ``lost``: pass
            the request on and break the connection instead of answering. ``cut``: break it in the middle of the answer's body.
            ``alter``: change a byte of the answer's body. ``alter request``: change a byte of the request's body. ``hang``: pass
            nothing on and say nothing, until `Proxy.hang_up`.
        match: Found in ``METHOD path?query`` of the requests concerned.
        times: How many of them.
        skip: How many of them go well before.
        status: The answer, for ``status``.
        body: Its body.
        then: Called when the server has answered, before the client learns it.
    """

    kind: str
    match: str = ""
    times: int = 1
    skip: int = 0
    status: int = 503
    body: bytes = SLOW_DOWN
    then: Callable[[], object] | None = None


class Proxy:
    """The proxy.

    Args:
        upstream: The server's address.
        share: Which share of the requests fails, by a fault of a kind that clients can mend.
        seed: Decides which.
        latency_s: How long each request waits, in seconds.
        bytes_per_s: How fast bodies go through, in either direction; as fast as they can if not given.

    Attributes:
        requests: How many requests went through, by ``METHOD path``.
        received_bytes: How many bytes of bodies clients have got, by path.
        is_down: Refuse every connection and break those that are there, as a server does that was killed, until it is set to False.
        watch: Called with each request's line, headers and body, if there is something to call.
        most_at_once: The most requests that were under way at one moment.
        hanging: Set when a request hangs.
    """

    def __init__(
        self, upstream: str, *, share: float = 0.0, seed: str = "", latency_s: float = 0.0, bytes_per_s: float | None = None
    ) -> None:
        self.upstream = urlsplit(upstream)
        self.share = share
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.watch: Callable[[str, Mapping[str, str], bytes], object] | None = None
        self.most_at_once = 0
        self._under_way = 0
        self.hanging = threading.Event()
        self._hung_up = threading.Event()
        self.requests: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        # Nobody else gets the port while the server is down: this socket has it all the time, and never listens.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_down(self) -> bool:
        return self._server is None

    @is_down.setter
    def is_down(self, is_down: bool) -> None:
        if is_down:
            self.stop()
        elif self._server is None:
            self.start()

    def start(self) -> None:
        """Listen."""
        self._server = _Server(self, self._port)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; requests that are under way get no answer."""
        server, thread, self._server, self._thread = self._server, self._thread, None, None
        if server is not None and thread is not None:
            server.shutdown()
            server.server_close()
            thread.join()

    def close(self) -> None:
        """Stop for good."""
        self.hang_up()
        self.stop()
        self._place.close()

    def plan(self, *faults: Fault) -> None:
        """Let faults happen, each to the next requests that it matches."""
        with self._lock:
            self._faults += faults

    def hang_up(self) -> None:
        """Break off the requests that hang."""
        self._hung_up.set()

    def plan_nothing(self) -> None:
        """Let all go well from here on."""
        with self._lock:
            self._faults.clear()

    def forget(self) -> None:
        """Count anew."""
        self.most_at_once = 0
        self.requests.clear()
        self.received_bytes.clear()
        self.sent_bytes.clear()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count a request among those that are under way."""
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def due(self, line: str) -> Fault | None:
        """Return what goes wrong with a request, if something does."""
        with self._lock:
            for fault in self._faults:
                if fault.match in line and fault.skip:
                    fault.skip -= 1
                elif fault.match in line and fault.times:
                    fault.times -= 1
                    return fault
            if self._chance.random() < self.share:
                kind = self._chance.choice(["status", "internal", "reset", "lost", "cut"])
                return Fault("status", status=500, body=INTERNAL_ERROR) if kind == "internal" else Fault(kind)
        return None


@contextmanager
def proxy(upstream: str, **options: Any) -> Iterator[Proxy]:
    """Run a proxy in front of a server."""
    running = Proxy(upstream, **options)
    running.start()
    try:
        yield running
    finally:
        running.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_port = True

    def __init__(self, state: Proxy, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = state

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        if self._upstream is not None:
            self._upstream.close()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._pass()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_GET

    def _pass(self) -> None:
        state = self.server.state
        if state.is_down:
            self._break()
            return
        body = self._body()
        if state.watch is not None:
            state.watch(f"{self.command} {self.path}", dict(self.headers), body)
        with state.under_way():
            self._pass_on(body)

    def _pass_on(self, body: bytes) -> None:
        state = self.server.state
        path = unquote(urlsplit(self.path).path)
        fault = state.due(f"{self.command} {self.path}")
        time.sleep(state.latency_s + (len(body) / state.bytes_per_s if state.bytes_per_s else 0.0))
        with state._lock:
            state.requests[f"{self.command} {path}"] += 1
            state.sent_bytes[path] += len(body)
        if fault is not None and fault.kind == "status":
            self._answer(fault.status, [("Content-Type", "application/xml")], fault.body)
        elif fault is not None and fault.kind == "hang":
            state.hanging.set()
            state._hung_up.wait()
            self._break()
        elif fault is not None and fault.kind == "reset":
            self._break()
        else:
            if fault is not None and fault.kind == "alter request":
                body = _altered(body)
            self._forward(body, fault, path)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes, fault: Fault | None, path: str) -> None:
        state = self.server.state
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("transfer-encoding", "expect")}
        headers["Content-Length"] = str(len(body))
        try:
            answer = self._ask(body, headers)
        except (OSError, http.client.HTTPException):
            self._break()
            return
        with answer:
            if fault is not None and fault.kind == "lost":
                answer.read()
                self._break()
                return
            content = answer.read()
        if fault is not None and fault.then is not None:
            fault.then()
        if state.is_down:
            # It was killed before it could answer.
            self._break()
            return
        if state.bytes_per_s:
            time.sleep(len(content) / state.bytes_per_s)
        with state._lock:
            state.received_bytes[path] += len(content)
        if fault is not None and fault.kind == "alter":
            content = _altered(content)
        sent = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
        if self.command == "HEAD":
            sent.append(("Content-Length", answer.getheader("Content-Length") or "0"))
        self._answer(answer.status, sent, content, cut=fault is not None and fault.kind == "cut")

    def _ask(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        for is_again in (False, True):
            if self._upstream is None:
                upstream = self.server.state.upstream
                kind = http.client.HTTPSConnection if upstream.scheme == "https" else http.client.HTTPConnection
                self._upstream = kind(upstream.hostname or "", upstream.port, timeout=60)
            try:
                self._upstream.request(self.command, self.path, body, headers)
                return self._upstream.getresponse()
            except (OSError, http.client.HTTPException):
                # It may have closed a connection that was idle.
                self._upstream.close()
                self._upstream = None
                if is_again:
                    raise
        raise AssertionError

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and len(content) > 1:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self._break()
            return
        for start in range(0, len(content), PIECE_BYTES):
            self.wfile.write(content[start : start + PIECE_BYTES])

    def _break(self) -> None:
        # A reset, not an end.
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


_OWN = ("content-length", "transfer-encoding", "connection", "server")
"""Headers that are ours to send."""


def _altered(content: bytes) -> bytes:
    if not content:
        return content
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
