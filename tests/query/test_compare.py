"""What differs between two experiments, as data."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.query.compare import Comparison, MetricPair, Pair, Side, compare
from keepsake.repository import layout
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord

START = datetime(2026, 3, 1, tzinfo=UTC)

values = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
metrics = st.dictionaries(st.text(max_size=3), st.floats() | st.integers(-(10**6), 10**6) | st.text(max_size=2), max_size=4)


def side(
    params: dict[str, Any] | None = None, metrics: dict[str, Any] | None = None, goal: str | None = None, **fields: Any
) -> Side:
    primary = PrimaryMetric("loss", goal) if goal is not None else None  # type: ignore[arg-type]
    shown = None
    if metrics is not None:
        shown = CheckpointRecord(id=layout.new_id(), created=START, step=1, metrics=metrics, primary_metric=primary)
    checkpoints = [shown] if shown is not None else []
    return Side(
        ExperimentRecord(id=layout.new_id(), created=START, params=params or {}, checkpoints=checkpoints, **fields), shown
    )


def metric(left: Any, right: Any, goal: str | None = None) -> MetricPair:
    comparison = compare(side(metrics={"loss": left}, goal=goal), side(metrics={"loss": right}, goal=goal))
    assert comparison.metrics is not None
    return comparison.metrics[0]


@given(st.dictionaries(st.text(max_size=3), values, max_size=4), metrics)
def test_nothing_differs_from_itself(params: dict[str, Any], metrics: dict[str, Any]) -> None:
    one = side(params, metrics, python_packages={"torch": "2.9.1"})
    comparison = compare(one, one)
    assert not comparison.differs
    assert not any(pair.differs for pair in comparison.params or ())
    assert all(not pair.delta for pair in comparison.metrics or ())


@given(st.dictionaries(st.sampled_from("abc"), values), st.dictionaries(st.sampled_from("abc"), values), metrics, metrics)
def test_differing_is_mutual(left: dict[str, Any], right: dict[str, Any], one: dict[str, Any], other: dict[str, Any]) -> None:
    here, there = compare(side(left, one), side(right, other)), compare(side(right, other), side(left, one))
    assert here.differs == there.differs
    differing = [{pair.name for pair in comparison.params or () if pair.differs} for comparison in (here, there)]
    assert differing[0] == differing[1]
    assert len(here.params or ()) == len(there.params or ()) == len(left | right)
    back = {pair.name: pair for pair in there.metrics or ()}
    for pair in here.metrics or ():
        assert pair.differs == back[pair.name].differs
        if pair.delta is not None:
            assert pair.delta == -(back[pair.name].delta or 0)


@pytest.mark.parametrize(
    ("left", "right", "differs"),
    [
        (1, 1.0, False),
        (1, True, True),
        (0, False, True),
        (None, 0, True),
        (math.nan, math.nan, False),
        (math.nan, 1.0, True),
        ("1", 1, True),
        ([1, 2], [1, 2], False),
    ],
)
def test_what_is_equal(left: object, right: object, differs: bool) -> None:
    assert Pair("x", left, right, True, True).differs is differs
    assert Pair("x", right, left, True, True).differs is differs


def test_none_is_not_the_same_as_nothing() -> None:
    comparison = compare(side({"x": None}), side({}))
    assert [(pair.name, pair.in_left, pair.in_right) for pair in comparison.params or ()] == [("x", True, False)]


def test_nested_params_have_dotted_names() -> None:
    comparison = compare(side({"model": {"depth": 3, "width": 8}}), side({"model": {"depth": 4, "width": 8}}))
    compared = [(pair.name, pair.left, pair.right) for pair in comparison.params or ()]
    assert compared == [("model.depth", 3, 4), ("model.width", 8, 8)]


@pytest.mark.parametrize(
    ("left", "right", "goal", "delta", "better"),
    [
        (0.5, 0.25, "minimize", -0.25, True),
        (0.25, 0.5, "minimize", 0.25, False),
        (0.25, 0.5, "maximize", 0.25, True),
        (0.25, 0.5, None, 0.25, None),
        (0.5, 0.5, "minimize", 0.0, None),
        (0.25, 0.1, "minimize", -0.15, True),
        (1, 3, "maximize", 2.0, True),
        (math.nan, 1.0, "minimize", None, None),
        (1.0, math.inf, "minimize", None, None),
        ("low", 1.0, "minimize", None, None),
    ],
)
def test_metrics_have_a_difference_and_a_direction(
    left: Any, right: Any, goal: str | None, delta: float | None, better: bool | None
) -> None:
    pair = metric(left, right, goal)
    assert pair.delta == pytest.approx(delta) if delta is not None else pair.delta is None
    assert pair.better is better


def test_without_a_shared_goal_nothing_is_better() -> None:
    comparison = compare(side(metrics={"loss": 1.0}, goal="minimize"), side(metrics={"loss": 2.0}, goal="maximize"))
    assert [(pair.goal, pair.better) for pair in comparison.metrics or ()] == [(None, None)]


def test_the_primary_metric_comes_first() -> None:
    metrics = {"acc": 0.5, "loss": 1.0, "zeal": 2}
    comparison = compare(side(metrics=metrics, goal="minimize"), side(metrics=metrics, goal="minimize"))
    assert [pair.name for pair in comparison.metrics or ()] == ["loss", "acc", "zeal"]


def test_a_side_without_checkpoints_has_no_metrics() -> None:
    comparison: Comparison = compare(side(metrics={"loss": 1.0}), side())
    assert [(pair.in_left, pair.in_right, pair.delta) for pair in comparison.metrics or ()] == [(True, False, None)]
    assert comparison.differs


def test_versions_of_packages_differ() -> None:
    comparison = compare(
        side(python_packages={"torch": "2.8", "click": "8"}), side(python_packages={"torch": "2.9", "click": "8"})
    )
    assert comparison.differs
    assert not compare(side(python_packages={"a": "1"}), side(python_packages={"a": "1"})).differs


def test_the_system_and_its_gpus_belong_to_the_environment() -> None:
    gpus = [{"name": "H100", "memory_bytes": 1}, {"name": "H100", "memory_bytes": 1}, {"name": "T4"}]
    one = side(python_version="3.11.7", system={"os": "Linux 6.1 x86_64", "gpus": gpus})
    comparison = compare(one, side(python_version="3.11.7", system={"os": "Darwin 23", "gpus": ["odd", None]}))
    assert [(pair.name, pair.left, pair.right) for pair in comparison.environment or () if pair.differs] == [
        ("os", "Linux 6.1 x86_64", "Darwin 23"),
        ("gpu", "2x H100, 1x T4", "1x odd, 1x None"),
    ]


def test_only_the_sections_that_are_asked_for_are_compared() -> None:
    comparison = compare(side({"lr": 1}, {"loss": 1}), side({"lr": 2}, {"loss": 2}), ["metrics"])
    assert (comparison.params, comparison.environment, comparison.code, comparison.files) == (None, None, None, None)
    assert comparison.differs
    assert not compare(side({"lr": 1}, {"loss": 1}), side({"lr": 2}, {"loss": 1}), ["metrics"]).differs


def test_a_working_directory_has_no_record() -> None:
    comparison = compare(side({"lr": 1}, {"loss": 1}), Side(None))
    assert (comparison.params, comparison.metrics, comparison.environment) == (None, None, None)
    assert not comparison.differs
