"""Filters and sort keys mean what they say, for any text that a person may type and any value that may be recorded."""

from __future__ import annotations

import math
import operator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepsake.exceptions import InvalidQuery
from keepsake.query.filters import FIELDS, MISSING, names, parse_filter, select, shown_checkpoint, sort, value_of
from keepsake.repository import layout
from keepsake.repository.records import CheckpointRecord, ExperimentRecord, PrimaryMetric

START = datetime(2026, 3, 1, tzinfo=UTC)
REFERENCE = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def experiment(number: int = 0, **fields: Any) -> ExperimentRecord:
    defaults: dict[str, Any] = {"created": START + timedelta(hours=number), "outcome": "finished"}
    return ExperimentRecord(id=f"{number:064x}", **(defaults | fields))


def checkpoint(step: int, metrics: dict[str, Any], primary: PrimaryMetric | None = None) -> CheckpointRecord:
    return CheckpointRecord(id=layout.new_id(), created=START, step=step, metrics=metrics, primary_metric=primary)


def matches(text: str, record: ExperimentRecord) -> bool:
    return parse_filter(text).matches(record)


# --- syntax ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text() | st.text(alphabet="ab \"'=<>!-.0159:T+Zcreatdnul\n"))
def test_any_text_is_a_filter_or_an_invalid_query(text: str) -> None:
    try:
        condition = parse_filter(text)
    except InvalidQuery:
        return
    assert condition.operator in REFERENCE
    assert condition.name
    condition.matches(experiment(params={condition.name: condition.value}))
    condition.matches(experiment(params={condition.name: None}))


@settings(deadline=None)
@given(st.sampled_from(["created", "started", "ended"]), st.sampled_from(list(REFERENCE)), st.datetimes().map(str) | st.text())
def test_any_time_is_a_time_or_an_invalid_query(name: str, sign: str, value: str) -> None:
    try:
        condition = parse_filter(f"{name} {sign} {value}")
    except InvalidQuery:
        return
    condition.matches(experiment(ended=START))


@pytest.mark.parametrize(
    "value", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30", "yesterday", "12", "2026-11-01T25:00"]
)
def test_what_is_no_moment(value: str) -> None:
    with pytest.raises(InvalidQuery, match="created is a time"):
        parse_filter(f"created > {value}")


@pytest.mark.parametrize(
    ("text", "name", "sign", "value"),
    [
        ("lr<0.1", "lr", "<", 0.1),
        (" val/loss  <=  1e-3 ", "val/loss", "<=", 0.001),
        ("n == 3", "n", "==", 3),
        ("n=-3", "n", "=", -3),
        ("n != +3", "n", "!=", 3),
        ("optimizer = adam w", "optimizer", "=", "adam w"),
        ('optimizer = "3"', "optimizer", "=", "3"),
        ("optimizer = '3'", "optimizer", "=", "3"),
        ('"val loss" >= 3', "val loss", ">=", 3),
        ("nesterov = true", "nesterov", "=", True),
        ("nesterov != False", "nesterov", "!=", False),
        ("schedule = none", "schedule", "=", None),
        ("model.depth > 3", "model.depth", ">", 3),
        ("created >= 2026-03-01", "created", ">=", START),
        ("created < 2026-03-01T01:00:00+01:00", "created", "<", START),
        ("batch-size = 64", "batch-size", "=", 64),
    ],
)
def test_the_parts_of_a_filter(text: str, name: str, sign: str, value: object) -> None:
    condition = parse_filter(text)
    assert (condition.name, condition.operator, condition.value) == (name, sign, value)
    assert type(condition.value) is type(value)


# --- meaning --------------------------------------------------------------------------------------------------------

numbers = st.integers(-1000, 1000) | st.floats(-1e6, 1e6, allow_nan=False)


@settings(deadline=None)
@given(numbers | st.none(), st.sampled_from(list(REFERENCE)), numbers)
def test_numbers_are_compared_as_numbers(present: float | None, sign: str, wanted: float) -> None:
    condition = parse_filter(f"x {sign} {wanted!r}")
    expected = sign == "!=" if present is None else REFERENCE[sign](present, wanted)
    assert condition.matches(experiment(params={"x": present})) == expected


@settings(deadline=None)
@given(st.text(), st.sampled_from(list(REFERENCE)), st.text().filter(lambda text: '"' not in text))
def test_texts_are_compared_as_texts(present: str, sign: str, wanted: str) -> None:
    assert matches(f'x {sign} "{wanted}"', experiment(params={"x": present})) == REFERENCE[sign](present, wanted)


@settings(deadline=None)
@given(st.sampled_from(list(REFERENCE)), st.integers() | st.text(alphabet="abc", min_size=1))
def test_who_lacks_the_name_fulfils_only_unequal(sign: str, wanted: object) -> None:
    assert matches(f"x {sign} {wanted}", experiment()) == (sign == "!=")


@pytest.mark.parametrize(
    ("present", "text", "expected"),
    [
        (True, "x = true", True),
        (True, "x = 1", False),
        (1, "x = true", False),
        (1, "x = 1.0", True),
        (0.001, "x = 1e-3", True),
        (None, "x = none", True),
        (None, "x != null", False),
        (0, "x = none", False),
        (math.inf, "x > 1e300", True),
        (math.nan, "x < 1", False),
        (math.nan, "x > 1", False),
        (math.nan, "x = nan", True),
        (math.nan, "x != nan", False),
        (1.0, "x = nan", False),
        (1.0, "x != nan", True),
        ([1, 2], "x = 3", False),
        ([1, 2], "x != 3", True),
    ],
)
def test_kinds_of_values(present: object, text: str, expected: bool) -> None:
    assert matches(text, experiment(params={"x": present})) == expected


def test_metrics_come_before_params_and_fields_before_both() -> None:
    record = experiment(
        params={"loss": 1, "user": "param", "model": {"depth": 3}}, user="ana", checkpoints=[checkpoint(7, {"loss": 2})]
    )
    assert [value_of(record, name) for name in ("loss", "user", "model.depth", "step")] == [2, "ana", 3, 7]
    assert value_of(record, "model.width") is MISSING
    assert value_of(record, "outcome") == "finished"


def test_a_metric_is_that_of_the_best_checkpoint_else_the_latest() -> None:
    primary = PrimaryMetric("loss", "minimize")
    steps = [checkpoint(1, {"loss": 3.0}), checkpoint(2, {"loss": 1.0}), checkpoint(3, {"loss": 2.0})]
    assert value_of(experiment(checkpoints=steps), "loss") == 2.0
    steps[0].primary_metric = primary
    assert value_of(experiment(checkpoints=steps), "loss") == 1.0
    assert shown_checkpoint(experiment()) is None


def test_stopped_is_whatever_does_not_run() -> None:
    records = [experiment(0), experiment(1, outcome="failed"), experiment(2, outcome=None)]
    assert [len(select(records, [parse_filter(f"status = {word}")])) for word in ("stopped", "failed", "running")] == [3, 1, 0]


def test_several_filters_must_all_hold() -> None:
    records = [experiment(n, params={"a": n, "b": n % 2}) for n in range(6)]
    chosen = select(records, [parse_filter("a > 1"), parse_filter("b = 0")])
    assert [record.params["a"] for record in chosen] == [2, 4]


def test_every_field_can_be_asked_for() -> None:
    record = experiment(checkpoints=[checkpoint(1, {})], ended=START, path=".")
    for name in FIELDS:
        assert name in names([record])
        value_of(record, name)


def test_a_name_that_nobody_has_is_an_error_and_a_value_of_another_kind_too() -> None:
    records = [experiment(params={"lr": 0.1})]
    with pytest.raises(InvalidQuery, match='named "lrr"') as raised:
        select(records, [parse_filter("lrr = 1")])
    assert raised.value.hint == "did you mean lr?"
    with pytest.raises(InvalidQuery, match="lr is a number"):
        select(records, [parse_filter("lr = high")])
    assert select([], [parse_filter("lrr = 1")]) == []


# --- order ----------------------------------------------------------------------------------------------------------

LAST = object()
recorded = st.one_of(
    st.just(LAST), st.none(), st.booleans(), numbers, st.just(math.nan), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)


def goes_last(record: ExperimentRecord) -> bool:
    value = record.params.get("x")
    return value is None or (isinstance(value, float) and math.isnan(value))


@settings(deadline=None)
@given(st.lists(recorded), st.booleans())
def test_any_values_have_an_order(values: list[object], descending: bool) -> None:
    records = [experiment(n, params={} if value is LAST else {"x": value}) for n, value in enumerate(values)]
    records.append(experiment(len(values), params={"x": 1}))
    ordered = sort(records, "-x" if descending else "x")
    assert sorted(record.id for record in ordered) == [record.id for record in records]
    flags = [goes_last(record) for record in ordered]
    assert flags == sorted(flags)
    assert sort(ordered, "-x" if descending else "x") == ordered
    assert [record for record in ordered if goes_last(record)] == [record for record in records if goes_last(record)]


@settings(deadline=None)
@given(st.lists(numbers, min_size=1))
def test_numbers_are_in_the_order_of_numbers(values: list[float]) -> None:
    records = [experiment(n, params={"x": value}) for n, value in enumerate(values)]
    assert [record.params["x"] for record in sort(records, "x")] == sorted(values)
    for key in ("-x", "x-desc"):
        assert [record.params["x"] for record in sort(records, key)] == sorted(values, reverse=True)
    assert sort(records, "x-asc") == sort(records, "x")


def test_a_name_that_looks_like_a_direction() -> None:
    records = [experiment(n, params={"-x": -n, "y-desc": n}) for n in range(3)]
    assert sort(records, "-x") == records[::-1]
    assert sort(records, "y-desc") == records
    assert sort(records, "--x") == records


def test_a_sort_key_that_nobody_has() -> None:
    for key in ("nothing", "-nothing", "nothing-desc"):
        with pytest.raises(InvalidQuery, match='named "nothing"'):
            sort([experiment()], key)
    assert sort([], "nothing") == []
