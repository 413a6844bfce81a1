"""Times, sizes and versions are read as people write them."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.query.literals import moment, plain_value, size_bytes, span_s, version_key
from tests.query.summaries import NOW


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("3", 3),
        ("+3", 3),
        ("-3", -3),
        ("3.", 3.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("TRUE", True),
        ("False", False),
        ("None", None),
        ("null", None),
        ("-Inf", -math.inf),
        ("1_000", "1_000"),
        ("٣", "٣"),
        ("0x10", "0x10"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("3 4", "3 4"),
        ("9" * 5000, math.inf),
    ],
)
def test_bare_words(raw: str, value: object) -> None:
    found = plain_value(raw)
    assert (found, type(found)) == (value, type(value))


@given(st.integers() | st.floats(allow_nan=False))
def test_every_number_is_read_as_python_writes_it(number: float) -> None:
    found = plain_value(repr(number))
    assert (found, type(found)) == (number, type(number))


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("3h", 10800),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1.5 hours", 5400),
        ("1 day 2 h", 93_600),
        ("7", 7),
    ],
)
def test_spans_of_time(raw: str, seconds: float) -> None:
    assert span_s(raw) == seconds
    if raw != "7":
        assert moment(raw, NOW) == (NOW - timedelta(seconds=seconds), None)


@pytest.mark.parametrize("read", [span_s, size_bytes, lambda raw: moment(raw, NOW)])
@pytest.mark.parametrize("raw", ["", "x", "1x", "h", "1h 3", "-1h", "1,5h", "1 2 GB", "GB", "1eb2"])
def test_what_is_none(read: object, raw: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        read(raw)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("raw", "exactness"),
    [
        ("2026-11-01", timedelta(days=1)),
        ("20261101", timedelta(days=1)),
        ("2026-11-01T12", timedelta(hours=1)),
        ("2026-11-01T12:30Z", timedelta(minutes=1)),
        ("2026-11-01t12:30z", timedelta(minutes=1)),
        ("2026-11-01 12:30:15+01:00", timedelta(seconds=1)),
        ("2026-11-01T12:30:15.25-01:00", timedelta(microseconds=1)),
        ("2026-11-01T12:30:15.123456789Z", timedelta(microseconds=1)),
    ],
)
def test_how_exact_a_moment_is(raw: str, exactness: timedelta) -> None:
    found, length = moment(raw, NOW)
    assert length == exactness
    assert found.utcoffset() == timedelta()


def test_the_order_of_versions() -> None:
    ordered = ["0.9", "1", "1.0.1.dev3", "1.0.1a1", "1.0.1-beta.2", "1.0.1rc1", "v1.0.1", "1.0.1.post1", "1.2.0+cu128", "1.10"]
    keys = [version_key(version) for version in ordered]
    assert None not in keys
    assert keys == sorted(keys, key=lambda key: key or ())
    assert len(set(keys)) == len(keys)
    assert version_key("1.0") == version_key("1") == version_key("1.0.0+local")
    for odd in ("", "trunk", "1.x", "1..2", "1.0-custom", "9" * 5000):
        assert version_key(odd) is None
