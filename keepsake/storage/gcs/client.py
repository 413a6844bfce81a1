"""The client library's authorized session."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import Any

from keepsake.exceptions import MissingDependency

CONNECTIONS = 64
"""How many connections are kept for the threads of a process; further ones are closed after use."""


def need_library() -> None:
    """Name the command that installs the client library where it is missing; raises `MissingDependency`."""
    try:
        import google.cloud.storage  # noqa: F401
    except ImportError as err:
        raise MissingDependency(
            "gs:// repositories need the package google-cloud-storage", hint='pip install "keepsake[gcs]"'
        ) from err


def new_client() -> Any:
    """Return a client with the credentials of this moment, whose session keeps its connections."""
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
