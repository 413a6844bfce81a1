"""Columns stand below each other, and no table is wider than its terminal unless every column in it must stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.display.tables import GAP, Column, fitting, lines, short_length
from keepsake.display.text import width

words = st.text(alphabet="abcdef模é ", max_size=12)


@st.composite
def tables(draw: st.DrawFn) -> list[Column]:
    rows = draw(st.integers(1, 4))
    column = st.builds(
        Column,
        heading=words,
        cells=st.lists(words, min_size=rows, max_size=rows),
        keep=st.tuples(st.integers(0, 4), st.integers(0, 3)),
        right=st.booleans(),
    )
    return draw(st.lists(column, min_size=1, max_size=8))


def table_width(columns: list[Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


@given(tables(), st.integers(1, 120))
def test_a_table_fits_or_only_what_must_stay_is_left(columns: list[Column], limit: int) -> None:
    kept = fitting(columns, limit)
    must_stay = [column for column in columns if column.keep[0] == 0]
    assert [column for column in columns if column in kept] == kept
    assert all(column in kept for column in must_stay)
    if kept != must_stay:
        assert table_width(kept) <= limit
        assert all(width(line) <= limit for line in lines(kept))


@given(tables(), st.integers(1, 120))
def test_nothing_is_dropped_in_vain(columns: list[Column], limit: int) -> None:
    if table_width(columns) <= limit:
        assert fitting(columns, limit) == columns
    assert fitting(columns, None) == columns


@given(tables())
def test_columns_stand_below_each_other(columns: list[Column]) -> None:
    columns.append(Column("END", ["end"] * len(columns[0].cells)))
    starts = {width(line.rpartition("END" if number == 0 else "end")[0]) for number, line in enumerate(lines(columns))}
    assert starts == {table_width(columns) - 3}


def test_the_highest_rank_is_dropped_first() -> None:
    columns = [Column("AAAA", ["1"]), Column("BBBB", ["2"], (1, 0)), Column("CCCC", ["3"], (2, 0)), Column("DDDD", ["4"], (2, 1))]
    shown = ["".join(column.heading[0] for column in fitting(columns, limit)) for limit in (22, 21, 15, 9, 3)]
    assert shown == ["ABCD", "ABC", "AB", "A", "A"]


def test_colours_take_no_room() -> None:
    columns = [Column("A", ["x", "yy"], styles=["red", ""]), Column("B", ["1", "22"], right=True)]
    coloured = lines(columns, lambda text, style: f"<{style}>{text}</{style}>")
    assert coloured == ["A    B", "<red>x</red>    1", "yy  22"]


@given(st.lists(st.text(alphabet="01", min_size=64, max_size=64), max_size=20))
def test_short_ids_tell_all_apart(ids: list[str]) -> None:
    length = short_length(ids)
    assert length >= 7
    assert len({id[:length] for id in ids}) == len(set(ids))
    if length > 7:
        assert len({id[: length - 1] for id in ids}) < len(set(ids))


@pytest.mark.parametrize(("ids", "length"), [([], 7), (["a" * 64], 7), (["a" * 64] * 2, 7), (["a" * 64, "a" * 9 + "b" * 55], 10)])
def test_short_length(ids: list[str], length: int) -> None:
    assert short_length(ids) == length
