from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.repository.status import Heartbeat, Outcome, judge, tolerance_s

AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("outcome", "interval_s", "age_s", "expected"),
    [
        ("finished", 10, None, ("stopped", "finished")),
        ("finished", 10, 1, ("stopped", "finished")),  # a crash came before the heartbeat was removed
        ("interrupted", 10, None, ("stopped", "interrupted")),
        ("failed", 10, 1, ("failed", "failed")),
        (None, 10, 0, ("running", "running")),
        (None, 10, 29.9, ("running", "running")),
        (None, 10, 30, ("stopped", "no heartbeat")),
        (None, 1, 29.9, ("running", "running")),  # never less than the original's tolerance
        (None, 60, 179, ("running", "running")),
        (None, 60, 180, ("stopped", "no heartbeat")),
        (None, None, 29, ("running", "running")),  # the original's records name no interval
        (None, None, 31, ("stopped", "no heartbeat")),
        (None, 10, None, ("stopped", "unknown")),
    ],
)
def test_the_rule(outcome: str | None, interval_s: float | None, age_s: float | None, expected: tuple[str, str]) -> None:
    status = judge(outcome, interval_s, Heartbeat(age_s, AT) if age_s is not None else None)  # type: ignore[arg-type]
    assert (status.word, status.reason) == expected
    assert status.last_heartbeat == (AT if age_s is not None and outcome is None else None)


def test_three_beats_may_be_missed_and_thirty_seconds_always() -> None:
    assert [tolerance_s(interval) for interval in (None, 0, 5, 10, 20)] == [30, 30, 30, 30, 60]


@given(
    st.sampled_from([None, "finished", "failed", "interrupted"]),
    st.none() | st.floats(0, 10_000),
    st.none() | st.floats(-100, 100_000),
)
def test_the_rule_for_every_combination(outcome: Outcome | None, interval_s: float | None, age_s: float | None) -> None:
    status = judge(outcome, interval_s, None if age_s is None else Heartbeat(age_s, AT))
    fresh = age_s is not None and age_s < tolerance_s(interval_s)
    assert (status.word == "running") == (status.reason == "running") == (outcome is None and fresh)
    assert (status.word == "failed") == (status.reason == "failed") == (outcome == "failed")
    assert (status.reason == "unknown") == (outcome is None and age_s is None)
    assert (status.reason == "no heartbeat") == (outcome is None and age_s is not None and not fresh)
    assert (status.reason == outcome) == (outcome is not None)


def test_a_store_whose_clock_is_behind_makes_nothing_stop() -> None:
    assert judge(None, 10, Heartbeat(-3600, AT)).word == "running"


def test_a_heartbeat_that_says_no_time_still_counts() -> None:
    status = judge(None, 10, Heartbeat(1, None))
    assert (status.word, status.last_heartbeat) == ("running", None)
