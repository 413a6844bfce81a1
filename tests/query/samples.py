"""Experiments with fixed IDs and times, as `docs/cli.md` shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from keepsake.repository.layout import ID_LENGTH
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import ArchiveInfo, CheckpointRecord, ExperimentRecord
from keepsake.repository.status import Heartbeat

NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
VAL_LOSS = PrimaryMetric("val_loss", "minimize")


def full_id(start: str) -> str:
    return start.ljust(ID_LENGTH, "0")


def checkpoint(start: str, step: int, *, ago: timedelta = timedelta(), now: datetime = NOW, **metrics: Any) -> CheckpointRecord:
    primary = VAL_LOSS if "val_loss" in metrics else None
    return CheckpointRecord(full_id(start), now - ago, step=step, metrics=metrics, primary_metric=primary)


def experiment(
    start: str, *checkpoints: CheckpointRecord, ago: timedelta = timedelta(hours=2), now: datetime = NOW, **fields: Any
) -> ExperimentRecord:
    settings = {"user": "ana", "host": "gpu-07", "command": "python train.py", "python_version": "3.12.4", "outcome": "finished"}
    return ExperimentRecord(full_id(start), now - ago, checkpoints=list(checkpoints), **{**settings, **fields})


def five(now: datetime = NOW) -> list[ExperimentRecord]:
    """Return five experiments: two stopped, one failed, the best one, one running."""
    same = {"batch_size": 64, "seed": 1, "optim": {"schedule": "cosine"}}

    def ended(ago: timedelta, took: timedelta) -> dict[str, Any]:
        return {"ago": ago, "ended": now - ago + took, "now": now}

    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    return [
        experiment(
            "91af3b0",
            checkpoint("0c1fe22", 8800, now=now, ago=215 * hour, val_loss=0.1611, val_acc=0.96),
            checkpoint("aa10f02", 9000, now=now, ago=214 * hour, val_loss=0.17, val_acc=0.95),
            params={"lr": 0.0001, "optimizer": "adamw", **same},
            **ended(217 * hour, 3 * hour),
        ),
        experiment(
            "76ab171",
            checkpoint("5be0071", 140, now=now, ago=80 * minute, train_loss=7.25),
            params={"lr": 0.003, "optimizer": "adamw", **same},
            **ended(85 * minute, 2 * minute) | {"outcome": "failed", "error": "RuntimeError: CUDA out of memory"},
        ),
        experiment(
            "eb96def",
            checkpoint("fe6a313", 4000, now=now, ago=70 * minute, val_loss=0.2121, val_acc=0.9411),
            params={"lr": 0.001, "optimizer": "sgd", **same},
            **ended(82 * minute, 15 * minute) | {"python_packages": {"torch": "2.8.0", "numpy": "2.3.4"}},
        ),
        experiment(
            "4591273",
            checkpoint("77c0e1f", 200, now=now, ago=12 * minute, val_loss=0.901, val_acc=0.3911),
            checkpoint("da0f8f6", 3800, now=now, ago=10 * minute, val_loss=0.1484, val_acc=0.9641),
            checkpoint("0b77c4e", 4000, now=now, ago=9 * minute, val_loss=0.1502, val_acc=float("nan")),
            params={"lr": 0.001, "optimizer": "adamw", **same},
            git={"commit": "8f3c2ad9" * 5, "branch": "main", "dirty": True, "remote": "https://example.org/ana/hotdog.git"},
            system={"os": "Linux", "cpus": 8, "gpus": [{"name": "H200"}]},
            path=".",
            archive=ArchiveInfo(212_000, 41, "1f09ab3" + "0" * 57),
            **ended(12 * minute, 5 * minute) | {"python_packages": {"torch": "2.9.1", "numpy": "2.3.4"}},
        ),
        experiment(
            "bfb06bc",
            checkpoint("d01b7aa", 1200, now=now, ago=timedelta(seconds=3), val_loss=0.15, val_acc=0.962),
            params={"lr": 0.0003, "optimizer": "adamw", **same},
            ago=timedelta(seconds=41),
            now=now,
            outcome=None,
            heartbeat=Heartbeat(age_s=3.0, at=now - timedelta(seconds=3)),
            heartbeat_interval_s=10.0,
        ),
    ]
