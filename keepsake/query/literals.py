"""What people write in filters, as values: numbers, truth values, moments, spans of time, sizes, versions. Pure functions."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

WORDS: Final[dict[str, Any]] = {
    "true": True,
    "false": False,
    "none": None,
    "null": None,
    "nan": math.nan,
    **dict.fromkeys(["inf", "+inf", "infinity", "+infinity"], math.inf),
    **dict.fromkeys(["-inf", "-infinity"], -math.inf),
}
"""Words that are no texts, in lower case."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?P<fraction>\.\d*)?|(?P<bare>\.\d+))(?P<exponent>[eE][+-]?\d+)?", re.ASCII)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.ASCII)
_SPAN = re.compile(rf"(?:{_PIECE.pattern})+", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.ASCII)
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)[._-]?(?:(dev|alpha|a|beta|b|rc|c|post)[._-]?(\d*))?(?:\+.*)?", re.ASCII)

_UNITS = {
    **dict.fromkeys(["s", "sec", "secs", "second", "seconds"], 1),
    **dict.fromkeys(["m", "min", "mins", "minute", "minutes"], 60),
    **dict.fromkeys(["h", "hour", "hours"], 3600),
    **dict.fromkeys(["d", "day", "days"], 86_400),
    **dict.fromkeys(["w", "week", "weeks"], 604_800),
}
_STAGES = {"dev": -4, "alpha": -3, "a": -3, "beta": -2, "b": -2, "rc": -1, "c": -1, "post": 1}


def plain_value(raw: str) -> Any:
    """Return what a bare word means where nothing says more: a number, a truth value, None, or the text itself.

    Example:
        >>> [plain_value(raw) for raw in ("1e-3", "64", "True", "none", "adam", "3.x")]
        [0.001, 64, True, None, 'adam', '3.x']
    """
    lower = raw.lower()
    if lower in WORDS:
        return WORDS[lower]
    match = _NUMBER.fullmatch(raw)
    if match is None:
        return raw
    if match["fraction"] is None and match["bare"] is None and match["exponent"] is None:
        try:
            return int(raw)
        except ValueError:  # more digits than Python converts
            return float(raw)
    return float(raw)


def span_s(raw: str) -> float:
    """Read a span of time; return seconds. A bare number is seconds already.

    Raises:
        ValueError: It is none.

    Example:
        >>> span_s("2d"), span_s("1h 30m"), span_s("90")
        (172800.0, 5400.0, 90.0)
    """
    text = raw.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    pieces = _PIECE.findall(text) if _SPAN.fullmatch(text) else []
    if not pieces or not all(unit in _UNITS for _, unit in pieces):
        raise ValueError(f"{raw!r} is no span of time")
    return sum(float(count) * _UNITS[unit] for count, unit in pieces)


def moment(raw: str, now: datetime) -> tuple[datetime, timedelta | None]:
    """Read a moment: ISO 8601, local where it names no zone, or how long ago it was (``2d``).

    Returns:
        The moment in UTC, and how long the time is that was written: a day for a date, a minute, a second; None for one that is so
        and so long ago.

    Raises:
        ValueError: It is none, or lies outside the years 1 to 9999.

    Example:
        >>> moment("2026-11-23T04:42Z", datetime.now(UTC))
        (datetime.datetime(2026, 11, 23, 4, 42, tzinfo=datetime.timezone.utc), datetime.timedelta(seconds=60))
    """
    text = raw.strip().upper()
    try:
        if _SPAN.fullmatch(text.lower()):
            return now - timedelta(seconds=span_s(text)), None
        found = datetime.fromisoformat(text)
        # The length before the zone tells how exact it is.
        clock = re.split(r"[T ]", text, maxsplit=1)[1:]
        if not clock:
            exactness = timedelta(days=1)
            # The day after may be 23 or 25 hours away where clocks are changed.
            exactness = (found + exactness).astimezone(UTC) - found.astimezone(UTC)
        else:
            digits = re.split(r"[Z+-]", clock[0])[0].replace(":", "")
            exactness = (
                timedelta(hours=1) if len(digits) == 2 else timedelta(minutes=1) if len(digits) == 4 else timedelta(seconds=1)
            )
            if "." in digits or "," in digits:
                exactness = timedelta(microseconds=1)
        return found.astimezone(UTC), exactness
    except (ValueError, OverflowError, OSError) as err:
        raise ValueError(f"{raw!r} is no moment") from err


def size_bytes(raw: str) -> float:
    """Read a size; return bytes. ``1GB`` is a thousand million of them, ``1GiB`` 2 to the power of 30.

    Raises:
        ValueError: It is none.

    Example:
        >>> size_bytes("1.5 GB"), size_bytes("1GiB"), size_bytes("10")
        (1500000000.0, 1073741824.0, 10.0)
    """
    text = raw.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{raw!r} is no size")
    count, prefix, binary = match.groups()
    return float(count) * (1024.0 if binary else 1000.0) ** (" kmgtp".index(prefix) if prefix else 0)


def version_key(raw: str) -> tuple[tuple[int, ...], int, int] | None:
    """Return what orders versions; None for a text that is none. What follows ``+`` (as in ``2.9.1+cu128``) does not count.

    Example:
        >>> version_key("2.10.0") > version_key("2.9.1+cu128") > version_key("2.9.1rc1")
        True
    """
    match = _VERSION.fullmatch(raw.strip().lower())
    if match is None:
        return None
    release, stage, number = match.groups()
    if any(len(part) > 18 for part in (*release.split("."), number or "")):
        return None
    numbers = [int(part) for part in release.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), _STAGES.get(stage or "", 0), int(number or 0)
