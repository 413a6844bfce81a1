"""The client of a process: made once for each set of credentials, and anew in a child."""

from __future__ import annotations

import os
import threading
from typing import Any

from keepsake.exceptions import MissingDependency

CONNECTIONS = 64
"""How many connections are kept for the threads of a process."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30
"""How long to wait for a connection, and for each next sign of life on it."""

ATTEMPTS = 4
"""How often the client library tries a request, with pauses that double: some two seconds in all."""


def need_library() -> None:
    """Name the command that installs the client library where it is missing; raises `MissingDependency`."""
    try:
        import botocore.exceptions  # noqa: F401
    except ImportError as err:
        raise MissingDependency("s3:// repositories need the package boto3", hint='pip install "keepsake[s3]"') from err


_clients: dict[frozenset[tuple[str, str]], Any] = {}
"""One client for each set of ``AWS_*`` variables: making one takes longer than many requests."""

_clients_lock = threading.Lock()


def forget_clients() -> None:
    """Begin anew: in a child that was forked, which cannot share connections, nor a lock that is held; and with new credentials."""
    global _clients_lock
    _clients.clear()
    _clients_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_clients)


def current_client() -> Any:
    """Return the client for the settings of this moment."""
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
