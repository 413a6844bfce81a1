"""What differs between two experiments or checkpoints, as data. How it looks is `keepsake.display`'s business."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from keepsake.repository.records import is_comparable
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord, PrimaryMetric


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared.

    Args:
        experiment: The experiment.
        checkpoint: Whose metrics are compared; None where the experiment has none.
    """

    experiment: ExperimentRecord
    checkpoint: CheckpointRecord | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A name and its value on either side.

    Args:
        name: The name.
        left: Its value on the left.
        right: Its value on the right.
        in_left: Whether the left side has the name at all; None is a value.
        in_right: Whether the right side has it.
    """

    name: str
    left: Any
    right: Any
    in_left: bool
    in_right: bool

    @property
    def differs(self) -> bool:
        """Whether the sides differ; NaN equals NaN, 1 equals 1.0, and True is not 1."""
        if self.in_left != self.in_right or isinstance(self.left, bool) != isinstance(self.right, bool):
            return True
        both_nan = all(isinstance(value, float) and math.isnan(value) for value in (self.left, self.right))
        return not both_nan and bool(self.left != self.right)


@dataclass(frozen=True, slots=True)
class MetricPair(Pair):
    """A metric on either side.

    Args:
        goal: ``maximize`` or ``minimize`` where it is the primary metric.
    """

    goal: str | None = None

    @property
    def delta(self) -> float | None:
        """The right value less the left one, as a person subtracts them; None where they are not two finite numbers."""
        if not (_is_number(self.left) and _is_number(self.right)):
            return None
        # Subtracted as decimals: binary fractions would give 0.1 - 0.25 a tail such as -0.15000000000000002.
        return float(Decimal(repr(self.right)) - Decimal(repr(self.left)))

    @property
    def better(self) -> bool | None:
        """Whether the right one is better; None without a goal, or where they are equal or not numbers."""
        if self.goal is None or not self.delta:
            return None
        return (self.delta < 0) == (self.goal == "minimize")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs, with how many names there are in all.

    Args:
        left: The reference.
        right: What is compared with it.
        params: Params that differ.
        params_total: Params that either side has.
        metrics: All metrics that either side has.
        environment: Versions that differ, of Python and of packages.
        environment_total: Packages that either side has, and Python.
    """

    left: Side
    right: Side
    params: list[Pair]
    params_total: int
    metrics: list[MetricPair]
    environment: list[Pair]
    environment_total: int

    @property
    def differs(self) -> bool:
        """Whether anything differs."""
        return bool(self.params or self.environment or any(metric.differs for metric in self.metrics))


def compare(left: Side, right: Side) -> Comparison:
    """Compare params, metrics and environment of two experiments."""
    params = _pairs(flatten(left.experiment.params), flatten(right.experiment.params))
    environment = _pairs(_environment(left), _environment(right))
    return Comparison(
        left=left,
        right=right,
        params=[pair for pair in params if pair.differs],
        params_total=len(params),
        metrics=_metrics(left, right),
        environment=[pair for pair in environment if pair.differs],
        environment_total=len(environment),
    )


def _environment(side: Side) -> dict[str, str]:
    version = side.experiment.python_version
    return ({"python": version} if version else {}) | side.experiment.python_packages


def _pairs(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Pair]:
    names = dict.fromkeys([*left, *right])
    return [Pair(name, left.get(name), right.get(name), name in left, name in right) for name in names]


def _metrics(left: Side, right: Side) -> list[MetricPair]:
    primary = [side.experiment.primary_metric for side in (left, right)]
    sides = [side.checkpoint.metrics if side.checkpoint is not None else {} for side in (left, right)]
    metrics = [
        MetricPair(pair.name, pair.left, pair.right, pair.in_left, pair.in_right, _goal(pair.name, primary))
        for pair in _pairs(*sides)
    ]
    return sorted(metrics, key=lambda metric: metric.goal is None)


def _goal(name: str, primary: list[PrimaryMetric | None]) -> str | None:
    """Return the goal that the sides agree on."""
    goals = {metric.goal for metric in primary if metric is not None and metric.name == name}
    return goals.pop() if len(goals) == 1 else None


def _is_number(value: Any) -> bool:
    return is_comparable(value) and not isinstance(value, bool) and math.isfinite(value)
