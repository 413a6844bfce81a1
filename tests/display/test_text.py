"""Values become short texts that say what they are, and nothing that is printed can steer a terminal."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.display.text import (
    MAX_CELL,
    age,
    cell,
    column,
    cut,
    cut_end,
    iso,
    local,
    number,
    plural,
    safe,
    safe_block,
    size,
    span,
    width,
    wrapped,
)

finite = st.floats(-1e300, 1e300)


# --- numbers --------------------------------------------------------------------------------------------------------


@given(finite)
def test_a_number_keeps_four_significant_digits(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=5.1e-4, abs=0)


@given(st.integers())
def test_whole_numbers_are_exact(value: int) -> None:
    assert int(number(value)) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (0.148449, "0.1484"),
        (999.96, "1000"),
        (12345.6, "12346"),
        (1e9, "1e+09"),
        (1e-5, "1e-05"),
        (3, "3"),
        (1_000_000, "1000000"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


numeric = st.integers() | finite | st.sampled_from([math.nan, math.inf, -math.inf])


@given(st.lists(numeric | st.booleans() | st.none() | st.text()))
def test_a_column_has_one_cell_a_value_and_never_fails(values: list[object]) -> None:
    cells = column(values)
    assert len(cells) == len(values)
    for shown, value in zip(cells, values, strict=True):
        if isinstance(value, float) and math.isfinite(value):
            assert float(shown) == pytest.approx(value, rel=1e-3, abs=0)


@given(st.lists(st.floats(0.001, 900), min_size=1))
def test_the_decimals_of_a_column_stand_below_each_other(values: list[float]) -> None:
    assert len({len(shown.partition(".")[2]) for shown in column(values)}) == 1


def test_columns() -> None:
    assert column([0.148449, 1.15, 0.2]) == ["0.1484", "1.1500", "0.2000"]
    assert column([1, 2, 30]) == ["1", "2", "30"]
    assert column([0.5, math.nan, None, True, "x"]) == ["0.5", "nan", "none", "true", "x"]
    assert column([10**400, 0.5])[0] == str(10**400)
    assert column([]) == []


# --- times and sizes ------------------------------------------------------------------------------------------------

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@given(st.floats(0, 1e9))
def test_an_age_is_rounded_down_to_its_largest_unit(seconds: float) -> None:
    shown = age(seconds)
    unit = UNITS[shown[-1]]
    assert int(shown[:-1]) * unit <= seconds < (int(shown[:-1]) + 1) * unit


@given(st.floats(0, 1e9))
def test_a_span_loses_less_than_its_smallest_unit(seconds: float) -> None:
    shown = span(seconds)
    total = sum(int(part[:-1]) * UNITS[part[-1]] for part in shown.split())
    smallest = {"s": 1, "m": 1, "h": 60, "d": 3600}[shown.split()[0][-1]]
    assert 0 <= seconds - total < smallest
    assert len(shown.split()) <= 2


@pytest.mark.parametrize("seconds", [-1, -1e9, -0.001])
def test_a_clock_that_runs_behind_gives_zero(seconds: float) -> None:
    assert (age(seconds), span(seconds)) == ("0s", "0s")


@given(st.integers(0, 10**15))
def test_a_size_is_near_and_short(size_bytes: int) -> None:
    amount, unit = size(size_bytes).split()
    factor = 1000 ** ["B", "kB", "MB", "GB", "TB"].index(unit)
    assert float(amount) * factor == pytest.approx(size_bytes, rel=0.006, abs=0.5)
    assert "e" not in amount


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1500, "1.5 kB"), (101_000_000, "101 MB"), (10**12, "1 TB")],
)
def test_sizes(size_bytes: int, shown: str) -> None:
    assert size(size_bytes) == shown


def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 11, 23, 4, 5, 6, 700, tzinfo=UTC)
    assert iso(moment) == "2026-11-23T04:05:06Z"
    assert iso(moment.astimezone(None)) == "2026-11-23T04:05:06Z"
    assert datetime.strptime(local(moment)[:19], "%Y-%m-%d %H:%M:%S").astimezone() == moment.replace(microsecond=0)
    assert iso(moment + timedelta(days=1)) > iso(moment)


def test_plurals() -> None:
    assert [plural(count, "file") for count in (0, 1, 2, 2100)] == ["0 files", "1 file", "2 files", "2,100 files"]


# --- safety and width -----------------------------------------------------------------------------------------------

nasty = st.text() | st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Mn", "So", "Lo"]))


@given(nasty)
def test_what_is_safe_cannot_steer_and_can_be_printed(text: str) -> None:
    shown = safe(text)
    assert all(char == "\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    shown.encode("utf-8")
    assert safe(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("模型 é", "模型 é"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    assert safe(text) == shown


recorded = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | nasty,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(recorded)
def test_any_recorded_value_is_one_safe_line(value: object) -> None:
    shown = cell(value)
    assert safe(shown) == shown
    assert len(shown.splitlines()) <= 1


@given(nasty, st.integers(1, 40))
def test_a_cut_text_never_takes_more_than_its_room(text: str, limit: int) -> None:
    text = safe(text)
    shown = cut(text, limit)
    assert width(shown) <= limit
    if width(text) <= limit:
        assert shown == text
    else:
        head, tail = shown.split("…") if shown.count("…") == 1 else (text[:0], text[:0])
        assert text.startswith(head)
        assert text.endswith(tail)
        assert "…" in shown


def test_widths() -> None:
    assert [width(text) for text in ("", "ab", "模型", "e\u0301", "ＡＢ")] == [0, 2, 4, 1, 4]
    assert cut("x" * MAX_CELL) == "x" * MAX_CELL
    assert width(cut("x" * (MAX_CELL + 1))) == MAX_CELL
    assert cut("a-very-long-name-indeed", 11) == "a-ver…ndeed"
    assert width(cut("模" * 20, 11)) <= 11


# --- lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit", "lines"),
    [
        ("", 5, [""]),
        ("one two", 7, ["one two"]),
        ("one two", 6, ["one", "two"]),
        ("one two", 3, ["one", "two"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("a bcdefgh i", 4, ["a", "bcde", "fgh", "i"]),
        ("a  b", 2, ["a ", "b"]),
        ("  abc", 3, [" ", "abc"]),
        ("模型模型", 5, ["模型", "模型"]),
    ],
)
def test_lines_are_broken_at_spaces_and_within_long_words(text: str, limit: int, lines: list[str]) -> None:
    assert wrapped(text, limit) == lines


@given(st.text(), st.integers(2, 40))
def test_broken_lines_fit_and_lose_nothing_but_spaces(text: str, limit: int) -> None:
    lines = wrapped(text, limit)
    assert all(width(line) <= limit for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(st.text(), st.integers(1, 40))
def test_what_is_cut_at_its_end_fits(text: str, limit: int) -> None:
    shown = cut_end(text, limit)
    assert width(shown) <= limit
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]))


@given(st.text())
def test_a_block_keeps_its_lines_and_tabs(text: str) -> None:
    shown = safe_block(text)
    assert (shown.count("\n"), shown.count("\t")) == (text.count("\n"), text.count("\t"))
    assert safe(shown.replace("\n", "").replace("\t", "")) == shown.replace("\n", "").replace("\t", "")


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_what_no_calendar_of_the_reader_holds_is_a_time_all_the_same(
    monkeypatch: pytest.MonkeyPatch, zone: str, moment: datetime
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert re.search(r"1-01-01[ T]|9999-12-31[ T]", local(moment))
    time.tzset()


def test_a_size_beyond_all_floats_is_a_size_all_the_same() -> None:
    assert size(10**400).endswith(" TB")
