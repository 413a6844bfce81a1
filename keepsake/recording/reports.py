"""What people are told while an experiment is recorded: each trouble once, and without secrets."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from keepsake import messages
from keepsake.capture.redaction import redact_text
from keepsake.exceptions import KeepsakeError
from keepsake.storage.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRESS_INTERVAL_S = 10.0
"""How often the end says how much has arrived."""

MAX_ERROR_LENGTH = 1000
"""Longest error text in a record, in characters: a message may hold a whole tensor."""


class Reports:
    """The errors and warnings of one experiment."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def error(self, what: str, err: Exception, consequence: str) -> None:
        """Say what went wrong, once, whatever the step and however many bytes it is about.

        Args:
            what: What was tried.
            err: What went wrong.
            consequence: What that means for what is recorded.
        """
        text = f"{what}: {redact_text(_cause(err))}; {consequence}"
        kind = re.sub(r"[0-9][0-9,.]*", "#", text)
        if kind not in self._said:
            self._said.add(kind)
            messages.error(text)
        messages.debug_exception(err)

    def warning(self, kind: str, text: str) -> None:
        """Warn of a kind of trouble, once."""
        if kind not in self._said:
            self._said.add(kind)
            messages.warning(text)


def _cause(err: Exception) -> str:
    """Return what went wrong, for people."""
    if isinstance(err, OSError) and not isinstance(err, KeepsakeError) and err.strerror:
        return f"{err.strerror}: {err.filename}" if err.filename else err.strerror
    return str(err) if isinstance(err, KeepsakeError | OSError | ValueError) else f"{type(err).__name__}: {err}"


def error_text(error: BaseException | str | None) -> str | None:
    """Return type and message of an exception in one line, without secrets."""
    if error is None:
        return None
    try:
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # noqa: BLE001 - an exception whose own text fails still has a type
        text = type(error).__name__
    return redact_text(" ".join(text.split()))[:MAX_ERROR_LENGTH]


def progress(total_bytes: int) -> Callable[[int], None]:
    """Return what tells people from time to time how much has arrived, given how many bytes more."""
    arrived_bytes, said_at = 0, time.monotonic()

    def add(count: int) -> None:
        nonlocal arrived_bytes, said_at
        arrived_bytes += count
        if time.monotonic() - said_at >= PROGRESS_INTERVAL_S and arrived_bytes < total_bytes:
            said_at = time.monotonic()
            messages.info(f"uploaded {size_text(arrived_bytes)} of {size_text(total_bytes)}")

    return add


def duration_text(seconds: float) -> str:
    """Return how long something took, for people."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"
