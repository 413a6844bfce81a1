"""Byte stores: the contract, the stores, and the way from a URL to a store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from keepsake.exceptions import RepositoryConfigurationError
from keepsake.storage.base import Body, ObjectInfo, Storage
from keepsake.storage.disk import DiskStorage
from keepsake.storage.memory import MemoryStorage
from keepsake.storage.overlay import OverlayStorage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Body", "DiskStorage", "MemoryStorage", "ObjectInfo", "OverlayStorage", "Storage", "from_url"]


def _disk(location: str) -> Storage:
    return DiskStorage(Path(location).expanduser())


def _s3(location: str) -> Storage:
    from keepsake.storage.s3 import S3Storage

    return S3Storage(location)


def _gcs(location: str) -> Storage:
    from keepsake.storage.gcs import GCSStorage

    return GCSStorage(location)


_SCHEMES: dict[str, Callable[[str], Storage]] = {"file": _disk, "s3": _s3, "gs": _gcs}
"""How to open a store, by URL scheme; each is given what follows ``://``."""


def from_url(url: str) -> Storage:
    """Return the store at a URL such as ``file:///data/experiments``; a plain path is a directory.

    A path is taken as it is written, percent signs too, but for a leading ``~``; a relative one starts at the working directory. Nothing
    is read or written.

    Raises:
        RepositoryConfigurationError: The URL is empty, malformed, or of a scheme that keepsake does not know.

    Example:
        >>> from_url("file:///data/experiments").url
        'file:///data/experiments'
    """
    scheme, location = _split(url)
    if not location or any(ord(char) < 32 for char in location):
        raise RepositoryConfigurationError(f"{url!r} is not the address of a repository", hint="write file://.keepsake")
    if scheme not in _SCHEMES:
        import difflib

        close = difflib.get_close_matches(scheme, _SCHEMES, n=1)
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise RepositoryConfigurationError(
            f'unknown repository scheme "{scheme}://" in "{_without_password(url)}" (known: {known})',
            hint=f"write {close[0]}://{_without_password(location)}" if close else "write file://.keepsake",
        )
    try:
        return _SCHEMES[scheme](location)
    except RuntimeError as err:
        # Only expanduser() raises it: no such user, or one without a home directory.
        raise RepositoryConfigurationError(f'"{url}": {err}', hint="write the whole path") from err


def _without_password(url: str) -> str:
    """Return a URL for a message, which may be read by others."""
    return re.sub(r"(^|//)[^/@]*@", r"\1[redacted]@", url)


def _split(url: str) -> tuple[str, str]:
    """Return the scheme in lower case, and what follows ``://``."""
    scheme, separator, location = url.strip().partition("://")
    if separator:
        return scheme.lower(), location
    scheme, separator, location = url.strip().partition(":")
    if separator and scheme.lower() in _SCHEMES:
        # Not a directory of that name: experiments would be recorded where nobody looks for them.
        whole = location if scheme.lower() == "file" else location.lstrip("/")
        raise RepositoryConfigurationError(f'"{url}" lacks slashes after "{scheme}:"', hint=f"write {scheme.lower()}://{whole}")
    return "file", url.strip()
