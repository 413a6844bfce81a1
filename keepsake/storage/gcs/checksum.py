"""The checksum that Google keeps of each object."""

from __future__ import annotations

import base64
import re
from typing import Any


def checksum_of(content: bytes = b"") -> Any:
    """Return the checksum of a content, which can be updated with what follows."""
    import google_crc32c

    return google_crc32c.Checksum(content)


def checksum_text(checksum: Any) -> str:
    """Return a checksum as Google writes it."""
    return base64.b64encode(checksum.digest()).decode()


def expected_checksum(response: Any) -> str:
    """Return the checksum of the whole object that an answer names; empty if it names none."""
    found = re.search(r"crc32c=([A-Za-z0-9+/=]+)", response.headers.get("x-goog-hash", ""))
    return found[1] if found else ""
