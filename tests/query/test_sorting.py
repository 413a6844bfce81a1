"""Any experiments have an order by any names."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.exceptions import InvalidQuery
from keepsake.query.sorting import SortKey, sort, sort_keys
from keepsake.repository.summary import Summary
from tests.query.summaries import checkpoint, summary

ABSENT = object()
numbers = st.integers(-1000, 1000) | st.floats(-1e6, 1e6, allow_nan=False)
recorded = st.one_of(
    st.just(ABSENT),
    st.none(),
    st.booleans(),
    numbers,
    st.just(math.nan),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)


def with_x(values: list[Any], **more: Any) -> list[Summary]:
    return [summary(n, params=({} if value is ABSENT else {"x": value}) | more) for n, value in enumerate(values)]


def goes_last(one: Summary) -> bool:
    value = one.params.get("x")
    return value is None or (isinstance(value, float) and math.isnan(value))


@given(st.lists(recorded), st.sampled_from(["x", "-x", "x-desc", "x,step", "-x,-step"]))
def test_any_values_have_an_order(values: list[Any], key: str) -> None:
    ones = with_x([*values, 1])
    ordered = sort(ones, key)
    assert sorted(one.id for one in ordered) == [one.id for one in ones]
    flags = [goes_last(one) for one in ordered]
    assert flags == sorted(flags)
    assert sort(ordered, key) == ordered
    assert [one for one in ordered if goes_last(one)] == [one for one in ones if goes_last(one)]


@given(st.lists(numbers, min_size=1), st.booleans())
def test_numbers_are_in_the_order_of_numbers_and_equals_stay(values: list[float], descending: bool) -> None:
    ones = with_x(values)
    sign = -1 if descending else 1
    assert sort(ones, "-x" if descending else "x") == sorted(ones, key=lambda one: sign * one.params["x"])
    assert sort(ones, "x-desc" if descending else "x-asc") == sort(ones, "-x" if descending else "x")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2) | st.none(), st.integers(0, 2))))
def test_several_keys(rows: list[tuple[str, int | None, int]]) -> None:
    ones = [summary(n, params={"a": a, "b": b, "c": c}) for n, (a, b, c) in enumerate(rows)]

    def order(one: Summary) -> tuple[Any, ...]:
        a, b, c = one.params.values()
        return a, b is None, -(b or 0), c

    wanted = sorted(ones, key=order)
    assert sort(ones, ["a", "-b", "c"]) == wanted
    assert sort(ones, "a, -b,c-asc") == wanted
    assert sort(ones, ["a,b-desc", "c"]) == wanted


def test_what_can_be_sorted_by() -> None:
    ones = [
        summary(n, python_version=version, checkpoints=[checkpoint(n, {"loss": loss})], params={"a,b": -n})
        for n, (version, loss) in enumerate([("3.9.1", 2.0), ("3.12", 1.0), ("3.10.4", 3.0)])
    ]
    for key, order in {
        "created": [0, 1, 2],
        "started-desc": [2, 1, 0],
        "age": [2, 1, 0],
        "loss": [1, 0, 2],
        "-best.loss": [0, 1, 2],
        "-latest.loss": [2, 0, 1],
        "env.python": [0, 2, 1],
        "-python_version": [1, 2, 0],
        "param.a,b": [2, 1, 0],
        "a,b": [2, 1, 0],
        "tag,-id": [2, 1, 0],
        "": [0, 1, 2],
    }.items():
        assert sort(ones, key) == [ones[n] for n in order], key


def test_a_name_that_looks_like_a_direction() -> None:
    ones = [summary(n, params={"-x": -n, "y-desc": n}) for n in range(3)]
    assert sort(ones, "-x") == ones[::-1]
    assert sort(ones, "y-desc") == ones
    assert sort(ones, "--x") == ones
    assert sort_keys(["-x,created", "created-desc"], ones) == [
        SortKey("-x", False),
        SortKey("created", False),
        SortKey("created", True),
    ]


def test_the_names_of_those_that_were_left_out_are_known() -> None:
    ones = [summary(n, params={"a": n} | ({"rare": 1} if n == 3 else {})) for n in range(4)]
    assert sort(ones[:3], "-rare,-a", among=ones) == ones[2::-1]
    with pytest.raises(InvalidQuery, match='named "rare"'):
        sort(ones[:3], "rare")


@pytest.mark.parametrize("key", ["nothing", "-nothing", "nothing-desc", "created,nothing"])
def test_a_sort_key_that_nobody_has(key: str) -> None:
    with pytest.raises(InvalidQuery, match='no param, metric or field named "nothing"'):
        sort([summary()], key)
    assert sort([], key) == []
