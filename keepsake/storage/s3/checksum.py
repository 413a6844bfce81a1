"""The digest that an object keeps of its content."""

from __future__ import annotations

import base64
import hashlib

CHECKSUM = "md5chksum"
"""Under which name an object keeps the digest of its content, in base64, as rclone does it: every server keeps what it does not understand,
and only some know the checksums of Amazon's."""


def md5_text(content: bytes) -> str:
    """Return the digest of a content as it is written."""
    return base64_text(hashlib.md5(content, usedforsecurity=False).digest())


def base64_text(digest: bytes) -> str:
    """Return a digest as it is written."""
    return base64.b64encode(digest).decode()
