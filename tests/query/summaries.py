"""Summaries of experiments, made of records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from keepsake.query.filters import parse
from keepsake.repository import layout
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.summary import Summary

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 8, tzinfo=UTC)
LOSS = PrimaryMetric("loss", "minimize")


def summary(number: int = 0, **fields: Any) -> Summary:
    """Return an experiment that was started so many hours after `START`."""
    defaults: dict[str, Any] = {"created": START + timedelta(hours=number), "outcome": "finished"}
    return Summary.of(ExperimentRecord(id=f"{number:064x}", **(defaults | fields)))


def checkpoint(step: int, metrics: dict[str, Any], primary: PrimaryMetric | None = None) -> CheckpointRecord:
    return CheckpointRecord(id=layout.new_id(), created=START, step=step, metrics=metrics, primary_metric=primary)


def matches(text: str, one: Summary) -> bool:
    return parse(text, now=NOW).matches(one)
