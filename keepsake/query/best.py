"""Which of many experiments is the best by a metric, and what better means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keepsake.exceptions import AmbiguousID
from keepsake.query.names import check_name, resolve
from keepsake.repository.json_values import is_comparable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keepsake.repository.primary_metric import Goal, PrimaryMetric
    from keepsake.repository.summary import Summary


def best_of(summaries: Sequence[Summary], metric: str | None = None, goal: Goal | None = None) -> Summary | None:
    """Return the experiment that has reached the best value of a metric at any checkpoint, the first of equals.

    NaN is never chosen, and an experiment without the metric is not either.

    Args:
        summaries: The experiments.
        metric: The metric; the primary one that they share if not given.
        goal: What is better; what is recorded of the metric if not given.

    Returns:
        None if none has a number there.

    Raises:
        AmbiguousID: No metric is given, and there are several primary ones.
        InvalidQuery: No experiment has such a metric.
        ValueError: Nothing says what is better.
    """
    if metric is None:
        shared = _shared(summaries)
        if shared is None:
            return None
        metric, goal = shared.name, goal or shared.goal
    elif summaries:
        check_name(resolve(f"metric.{metric}"), summaries)
    else:
        return None
    wanted = goal_of(metric, goal, (summary.primary_metric for summary in summaries))
    scored = [(value, summary) for summary in summaries if (value := _reached(summary, metric, wanted)) is not None]
    chosen = (min if wanted == "minimize" else max)(scored, key=lambda pair: pair[0], default=None)
    return chosen[1] if chosen is not None else None


def goal_of(metric: str, goal: Goal | None, recorded: Iterable[PrimaryMetric | None]) -> Goal:
    """Return what is better of a metric: what is asked for, else what is recorded.

    Raises:
        ValueError: It makes no sense, nothing is recorded, or one thing here and the other there.
    """
    if goal is not None:
        if goal not in ("minimize", "maximize"):
            raise ValueError(f'goal must be "minimize" or "maximize", not {goal!r}')
        return goal
    goals = {one.goal for one in recorded if one is not None and one.name == metric}
    if len(goals) != 1:
        why = "is recorded to be minimized and to be maximized" if goals else "is nobody's primary metric"
        raise ValueError(f'"{metric}" {why}: say what is better, goal="minimize" or goal="maximize"')
    return goals.pop()


def _shared(summaries: Sequence[Summary]) -> PrimaryMetric | None:
    metrics = {metric for summary in summaries if (metric := summary.primary_metric) is not None}
    if len(metrics) > 1:
        names = ", ".join(sorted(f"{metric.name} ({metric.goal})" for metric in metrics))
        raise AmbiguousID(f'"best" needs one primary metric, and there are several: {names}', hint="keepsake ls --sort NAME")
    return metrics.pop() if metrics else None


def _reached(summary: Summary, metric: str, goal: Goal) -> float | None:
    primary, best = summary.primary_metric, summary.best()
    if primary is not None and best is not None and (primary.name, primary.goal) == (metric, goal):
        # Here an infinity counts as well, as for the best checkpoint.
        value = best.metrics.get(metric)
        return value if is_comparable(value) else None
    return (summary.lowest if goal == "minimize" else summary.highest).get(metric)
