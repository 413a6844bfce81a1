"""Values as the format writes them into JSON: moments, and the numbers that JSON lacks."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

NAN, INFINITY, MINUS_INFINITY = "[NaN]", "[+Infinity]", "[-Infinity]"
"""How keepsake 0.4.2 spells the numbers that JSON lacks."""

_NONFINITE = {NAN: math.nan, INFINITY: math.inf, MINUS_INFINITY: -math.inf}


# --- times ----------------------------------------------------------------------------------------------------------


def utc_now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Write a moment as the format has it: RFC 3339 in UTC with six fractional digits and ``Z``.

    Example:
        >>> format_time(datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC))
        '2026-11-23T04:05:06.000000Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 moment with any number of fractional digits, of which six are kept; one without a zone is taken as UTC.

    Raises:
        ValueError: The text is not a moment.
        OverflowError: It lies outside the years 1 to 9999 in UTC.

    Example:
        >>> parse_time("2026-11-23T04:42:12.207530975Z").microsecond
        207530
    """
    moment = datetime.fromisoformat(text.upper())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# --- values ---------------------------------------------------------------------------------------------------------


def encode_value(value: Any) -> Any:
    """Return a value as JSON can hold it: NaN and the infinities become the markers of 0.4.2."""
    if isinstance(value, float) and not math.isfinite(value):
        return NAN if math.isnan(value) else INFINITY if value > 0 else MINUS_INFINITY
    if isinstance(value, dict):
        # A call for each of the numbers, which most values are, would be most of the time that a point of the history takes.
        return {
            key: item if isinstance(item, float) and math.isfinite(item) else encode_value(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [encode_value(item) for item in value]
    return value


def decode_value(value: Any) -> Any:
    """Undo `encode_value`."""
    if isinstance(value, str):
        return _NONFINITE.get(value, value)
    if isinstance(value, dict):
        return {key: decode_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode_value(item) for item in value]
    return value


def is_comparable(value: object) -> bool:
    """Tell whether a metric's value can be compared with others: a number, an infinity too, but not NaN."""
    return isinstance(value, int) or (isinstance(value, float) and not math.isnan(value))
