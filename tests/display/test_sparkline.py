"""The course of a metric in a few characters."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.display.sparkline import ASCII_BLOCKS, BLOCKS, CELLS, sparkline

NUMBERS = st.one_of(st.floats(), st.integers(), st.sampled_from([10**400, -(10**400), 1.7e308, -1.7e308, 5e-324]))
ANYTHING = st.one_of(st.none(), st.booleans(), st.text(), st.lists(st.integers()), NUMBERS)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], ""),
        ([math.nan, 1.0], ""),
        (["a", "b", None], ""),
        ([True, False, True], ""),
        ([1, 2], "▁█"),
        ([2, 2, 2], "▄▄▄"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([3, math.nan, 1], "█ ▁"),
        ([3, math.inf, None, -math.inf, 1], "█   ▁"),
        ([3, 1, math.nan], "█▁"),
        ([-1.7e308, 0.0, 1.7e308], "▁▅█"),
        ([10**400, 1, 2], " ▁█"),
        ([0.0, 5e-324], "▄▄"),
    ],
)
def test_a_course(values: list[Any], line: str) -> None:
    assert sparkline(values) == line


def test_many_values_are_means_of_their_parts() -> None:
    assert sparkline([0, 2, 4, 6, 8, 10], cells=3) == "▁▅█"
    # A value that is no number does not take its part with it.
    assert sparkline([0, math.nan, 4, 6, 8, 10], cells=3) == "▁▅█"
    assert sparkline(list(range(1_000_000))) == "▁▁▂▃▃▄▅▆▆▇██"


def test_blocks_may_be_ascii() -> None:
    assert sparkline(range(8), blocks=ASCII_BLOCKS) == ASCII_BLOCKS
    assert len(ASCII_BLOCKS) == len(BLOCKS)
    assert ASCII_BLOCKS.isascii()


@given(st.lists(ANYTHING, max_size=60))
def test_any_values_make_a_line_that_is_short_enough(values: list[Any]) -> None:
    line = sparkline(values)
    assert len(line) <= CELLS
    assert set(line) <= set(BLOCKS) | {" "}


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=CELLS))
def test_higher_values_are_never_drawn_lower(values: list[float]) -> None:
    line = sparkline(values)
    assert len(line) == len(values)
    for one, one_block in zip(values, line, strict=True):
        for other, other_block in zip(values, line, strict=True):
            assert one >= other or one_block <= other_block
