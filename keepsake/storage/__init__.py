"""Byte stores: the contract, the stores, and the way from a URL to a store."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from keepsake.exceptions import RepositoryConfigurationError
from keepsake.storage.base import Body, ObjectInfo, Storage
from keepsake.storage.disk import DiskStorage
from keepsake.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Body", "DiskStorage", "MemoryStorage", "ObjectInfo", "Storage", "from_url"]


def _disk(location: str) -> Storage:
    return DiskStorage(Path(location).expanduser())


_SCHEMES: dict[str, Callable[[str], Storage]] = {"file": _disk}
"""How to open a store, by URL scheme; each is given what follows ``://``."""

_PLANNED = ("s3", "gs")


def from_url(url: str) -> Storage:
    """Return the store at a URL such as ``file:///data/experiments``; a plain path is a directory.

    Raises:
        RepositoryConfigurationError: The URL is empty or of a scheme that keepsake does not know.

    Example:
        >>> from_url("file:///data/experiments").url
        'file:///data/experiments'
    """
    scheme, separator, location = url.strip().partition("://")
    if not separator:
        scheme, location = "file", url.strip()
    if not location:
        raise RepositoryConfigurationError(f'"{url}" is not the address of a repository', hint="write file://.keepsake")
    if scheme not in _SCHEMES:
        close = difflib.get_close_matches(scheme, _SCHEMES, n=1)
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise RepositoryConfigurationError(
            f"{scheme}:// repositories are not supported yet by this version of keepsake"
            if scheme in _PLANNED
            else f'unknown repository scheme "{scheme}://" in "{url}" (known: {known})',
            hint=f"{close[0]}://{location}" if close else "file://.keepsake",
        )
    return _SCHEMES[scheme](location)
