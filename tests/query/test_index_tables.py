"""The tables of the index: how long short IDs have to be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keepsake.display.tables import short_length
from keepsake.query.entries import Entry
from keepsake.query.index_tables import FEW, ID_DIGITS, IndexTables, id_range, packed

# Few digits differ, at places that matter, so that IDs often begin alike.
IDS = st.builds(
    lambda start, middle, end: f"{start}{'0' * 5}{middle}{'0' * 5}{end}".ljust(64, "0"),
    st.text("ab", min_size=2, max_size=2),
    st.text("ab", min_size=1, max_size=1),
    st.text("ab", min_size=2, max_size=2),
)


def put(tables: IndexTables, number: int, ids: list[str]) -> None:
    tables.put_experiments([(f"etag {number}", Entry(f"key {number}", "2026", b"[]", b"{}", b"{}", packed(ids), b"{}"))], number)
    tables.widen()


@given(
    st.lists(
        st.lists(IDS | st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    st.data(),
)
def test_ids_are_found_by_any_number_of_digits(experiments: list[list[str]], data: st.DataObject) -> None:
    tables = IndexTables(None)
    for number, ids in enumerate(experiments):
        put(tables, number, ids)
    known = data.draw(st.sampled_from([id for ids in experiments for id in ids]))
    prefix = data.draw(st.text("0ab", max_size=3) | st.integers(0, ID_DIGITS).map(lambda count: known[:count]))
    wanted = [f"key {number}" for number, ids in enumerate(experiments) if any(id.startswith(prefix) for id in ids)]
    assert tables.owners(prefix) == wanted


@given(st.lists(st.lists(IDS, min_size=1, max_size=2 * FEW), min_size=1, max_size=4), st.lists(IDS, max_size=2 * FEW))
def test_short_ids_are_as_long_as_all_ids_need(experiments: list[list[str]], added: list[str]) -> None:
    tables = IndexTables(None)
    for number, ids in enumerate(experiments):
        put(tables, number, ids)
    stored = [id for ids in experiments for id in ids]
    assert tables.short_length() == short_length(stored)
    assert tables.short_length(id_range(id)[0] for id in added) == short_length([*stored, *added])
