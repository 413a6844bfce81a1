"""The rule for "running", "stopped" and "failed". Nothing here reads or writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

StatusWord: TypeAlias = Literal["running", "stopped", "failed"]
Outcome: TypeAlias = Literal["finished", "failed", "interrupted"]

MISSED_BEATS = 3
"""A heartbeat may be late this many intervals before the experiment counts as stopped."""

MIN_TOLERANCE_S = 30.0
"""Never call an experiment stopped earlier than this: the tolerance that keepsake 0.4.2 uses, whose records name no interval."""


class Heartbeat(NamedTuple):
    """The last sign of life of an experiment's process.

    Args:
        age_s: Seconds since it was written, by the store's own clock when it was read.
        at: The same moment by the writer's clock, or None if the heartbeat does not say it.
    """

    age_s: float
    at: datetime | None


class Status(NamedTuple):
    """Whether an experiment runs, and why not.

    Args:
        word: What people see: ``running``, ``stopped`` or ``failed``.
        reason: Why: ``running``, ``finished``, ``interrupted``, ``failed``, ``no heartbeat`` (its process died or cannot reach
            the repository any more) or ``unknown`` (no outcome and no heartbeat were ever recorded).
        last_heartbeat: The last beat, if one is known.
    """

    word: StatusWord
    reason: Literal["running", "finished", "interrupted", "failed", "no heartbeat", "unknown"]
    last_heartbeat: datetime | None = None


# Nearly all of ten thousand experiments have one of these.
_ENDED: dict[Outcome, Status] = {
    "finished": Status("stopped", "finished"),
    "interrupted": Status("stopped", "interrupted"),
    "failed": Status("failed", "failed"),
}
_UNKNOWN = Status("stopped", "unknown")


def tolerance_s(interval_s: float | None) -> float:
    """Return how old a heartbeat may be, in seconds, before its experiment counts as stopped.

    Args:
        interval_s: Seconds between two beats as the record says it; None where it does not.
    """
    return max(MIN_TOLERANCE_S, MISSED_BEATS * (interval_s or 0.0))


def judge(outcome: Outcome | None, interval_s: float | None, heartbeat: Heartbeat | None) -> Status:
    """Derive an experiment's status from its outcome and its last heartbeat."""
    if outcome is not None:
        return _ENDED[outcome]
    if heartbeat is None:
        return _UNKNOWN
    if heartbeat.age_s < tolerance_s(interval_s):
        return Status("running", "running", heartbeat.at)
    return Status("stopped", "no heartbeat", heartbeat.at)
