"""What differs between two experiments or checkpoints, as data. How it looks is `keepsake.display`'s business."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from keepsake.repository.json_values import is_comparable
from keepsake.values import flatten

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from keepsake.query.saved import SavedFiles, TreeComparison
    from keepsake.repository.primary_metric import PrimaryMetric
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord

SECTIONS = ("params", "metrics", "env", "code", "files")
"""What can be compared."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared.

    Args:
        experiment: The experiment; None for the working directory.
        checkpoint: Whose metrics and files are compared; None where the experiment has none.
    """

    experiment: ExperimentRecord | None
    checkpoint: CheckpointRecord | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was compared, section by section. A section is None where it was not asked for, or where a side cannot have it.

    Args:
        left: The reference.
        right: What is compared with it.
        sections: Which of `SECTIONS` were asked for.
        params: All params that either side has.
        metrics: All metrics that either side has, the primary one first.
        environment: Versions of Python and of packages that either side has, its system and its GPUs.
        code: The files that were saved when the experiments began.
        files: The files of the checkpoints.
    """

    left: Side
    right: Side
    sections: Collection[str]
    params: list[Pair] | None = None
    metrics: list[MetricPair] | None = None
    environment: list[Pair] | None = None
    code: TreeComparison | None = None
    files: TreeComparison | None = None

    @property
    def differs(self) -> bool:
        """Whether anything differs of what was compared."""
        pairs = [*(self.params or ()), *(self.metrics or ()), *(self.environment or ())]
        trees = [tree for tree in (self.code, self.files) if tree is not None]
        return any(pair.differs for pair in pairs) or any(tree.differs for tree in trees)


def compare(left: Side, right: Side, sections: Collection[str] = SECTIONS, saved: SavedFiles | None = None) -> Comparison:
    """Compare two sides.

    Args:
        left: The reference.
        right: What is compared with it.
        sections: Which of `SECTIONS` to compare.
        saved: Reads what the sides have saved; without it ``code`` and ``files`` are left out.

    Raises:
        ReadError: What was saved cannot be read.
    """
    are_recorded = left.experiment is not None and right.experiment is not None
    return Comparison(
        left=left,
        right=right,
        sections=sections,
        params=_params(left, right) if are_recorded and "params" in sections else None,
        metrics=_metrics(left, right) if are_recorded and "metrics" in sections else None,
        environment=_environment_pairs(left, right) if are_recorded and "env" in sections else None,
        code=saved.compare_code(left, right) if saved is not None and "code" in sections else None,
        files=saved.compare_files(left, right) if saved is not None and "files" in sections else None,
    )


# --- params, metrics, environment ---------------------------------------------------------------------------------------


def _params(left: Side, right: Side) -> list[Pair]:
    sides = [flatten(side.experiment.params) if side.experiment is not None else {} for side in (left, right)]
    return _pairs(*sides)


def _environment_pairs(left: Side, right: Side) -> list[Pair]:
    pairs = _pairs(_environment(left), _environment(right))
    return sorted(pairs, key=lambda pair: pair.name not in ("python", "os", "gpu"))


def _environment(side: Side) -> dict[str, str]:
    record = side.experiment
    if record is None:
        return {}
    system = record.system or {}
    gpus = Counter(str(gpu.get("name", gpu) if isinstance(gpu, dict) else gpu) for gpu in system.get("gpus") or ())
    found = {
        "python": record.python_version,
        "os": str(system.get("os") or ""),
        "gpu": ", ".join(f"{count}x {name}" for name, count in gpus.items()),
    }
    return {name: value for name, value in found.items() if value} | record.python_packages


def _pairs(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Pair]:
    names = dict.fromkeys([*left, *right])
    return [Pair(name, left.get(name), right.get(name), name in left, name in right) for name in names]


def _metrics(left: Side, right: Side) -> list[MetricPair]:
    primary = [side.experiment.primary_metric for side in (left, right) if side.experiment is not None]
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
