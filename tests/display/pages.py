"""Experiments whose pages are compared with what stands in ``golden/``: one for each thing that can be odd about a page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from keepsake.repository.archive import ArchivedFile
from keepsake.repository.history import Point, courses
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import ArchiveInfo, CheckpointRecord, ExperimentRecord
from keepsake.repository.status import Heartbeat
from tests.query.samples import VAL_LOSS, full_id

NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass
class Said:
    """What people have said of an experiment."""

    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass
class Shown:
    """One experiment with all that its page is made of.

    Args:
        record: The experiment.
        said: What people have said of it.
        logged: What was logged between its checkpoints.
    """

    record: ExperimentRecord
    said: Said = field(default_factory=Said)
    logged: list[Point] = field(default_factory=list)

    def courses(self) -> dict[str, list[Any]]:
        return courses([b"".join(point.to_line() for point in self.logged)], self.record.checkpoints)


def archive(size_bytes: int, files: int = 1, digest: str = "9bd2047") -> ArchiveInfo:
    return ArchiveInfo(size_bytes, files, digest.ljust(64, "0"))


def file(path: str, size_bytes: int, digest: str = "5e1f09a", **fields: Any) -> ArchivedFile:
    settings: dict[str, Any] = {"kind": "file", "link_target": None, "sha256": digest.ljust(64, "0")} | fields
    return ArchivedFile(path, size_bytes, 0o644, NOW, **settings)


def record(start: str, ago: timedelta, *checkpoints: CheckpointRecord, **fields: Any) -> ExperimentRecord:
    settings: dict[str, Any] = {"user": "ana", "host": "gpu-07", "command": "python train.py", "python_version": "3.12.4"}
    settings |= {"system": {"os": "Linux 6.8.0 x86_64", "cpus": 16, "gpus": []}}
    return ExperimentRecord(full_id(start), NOW - ago, checkpoints=list(checkpoints), **settings | fields)


def checkpoint(
    start: str, step: int, ago: timedelta, metrics: dict[str, Any], primary: PrimaryMetric | None = VAL_LOSS, **fields: Any
):
    return CheckpointRecord(full_id(start), NOW - ago, step=step, metrics=metrics, primary_metric=primary, **fields)


def finished() -> Shown:
    """Return one with everything: code, Git, GPUs, forty checkpoints, a history, a name, tags, notes and an alias."""
    checkpoints = [
        checkpoint(
            f"{37 * step:07x}" if step != 3800 else "da0f8f6",
            step,
            timedelta(minutes=92) - step // 50 * MINUTE,
            {"val_loss": 0.1484 + abs(step - 3800) / 4000, "val_acc": 0.9641 - abs(step - 3800) / 5000},
            path="model.pth",
            archive=archive(101_000_000),
        )
        for step in range(100, 4001, 100)
    ]
    params: dict[str, Any] = {"lr": 0.001, "optimizer": "adamw", "dropout": 0.1, "hidden_dim": 512, "n_layers": 6}
    params |= {"weight_decay": 0.01, "batch_size": 64, "seed": 1, "grad_clip": 1.0, "amp": True, "warmup": None, "data": "cifar"}
    packages = {"torch": "2.9.1", "numpy": "2.3.4", "transformers": "5.1.0"} | {f"package-{n:02}": f"1.{n}" for n in range(40)}
    return Shown(
        record(
            "4591273c0a55f0",
            84 * MINUTE,
            *checkpoints,
            ended=NOW - 12 * MINUTE,
            outcome="finished",
            params=params,
            python_packages=packages,
            command="python train.py --optimizer adamw --dropout 0.1 --hidden-dim 512 --n-layers 6 --data /data/cifar/v3 --amp",
            git={
                "commit": "8f3c2ad9" * 5,
                "branch": "main",
                "dirty": True,
                "modified": 2,
                "remote": "https://example.org/ana/hotdog",
            },
            system={
                "os": "Linux 6.8.0 x86_64",
                "gpus": [{"name": "NVIDIA H200", "memory_bytes": 150_754_820_096, "driver": "580.65"}] * 2,
            },
            path=".",
            archive=archive(212_000, 41),
        ),
        Said(
            "warm-up fix",
            ("base", "paper"),
            "lower dropout after sweep 3\nsee the plot in the wiki",
            {"production": full_id("da0f8f6")},
        ),
        [
            Point(step, NOW - timedelta(minutes=92) + step * MINUTE / 60, {"train_loss": 2 / (1 + step / 400)})
            for step in range(4000)
        ],
    )


def failed() -> Shown:
    """Return one that failed at once: a long error, and no checkpoints."""
    error = (
        "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 79.15 GiB total capacity; 77.49 GiB already"
        " allocated; 10.19 MiB free; 78.00 GiB reserved in total by PyTorch) (train.py:88)"
    )
    ended = {"outcome": "failed", "error": error, "ended": NOW - 83 * MINUTE}
    return Shown(record("76ab171", 85 * MINUTE, params={"lr": 0.003}, path="train.py", archive_pending=True, **ended))


def interrupted() -> Shown:
    """Return one without a primary metric, whose checkpoints have no files, and which was gone on with."""
    checkpoints = [
        checkpoint(
            f"c{step:06}", step, (90 - step) * MINUTE, {"loss": 3.0 / (1 + step), "note": "warm" if step < 3 else "hot"}, None
        )
        for step in range(9)
    ]
    ended = {"outcome": "interrupted", "error": "SIGTERM", "ended": NOW - 80 * MINUTE}
    return Shown(record("91af3b0", 92 * MINUTE, *checkpoints, resumed=[NOW - 85 * MINUTE, NOW - 82 * MINUTE], **ended))


def killed() -> Shown:
    """Return one whose process died, with metrics that are not numbers any more."""
    values = [0.9, 0.5, math.nan, math.inf]
    checkpoints = [
        checkpoint(
            f"d{step:06}",
            100 * step,
            (60 - step) * MINUTE,
            {"val_loss": value, "grad_norm": -value},
            path="out",
            archive=archive(5_300 + step, 3),
        )
        for step, value in enumerate(values)
    ]
    beat = Heartbeat(3000.0, NOW - 50 * MINUTE)
    params = {"lr": math.nan, "init": -math.inf}
    return Shown(record("45912aa", 62 * MINUTE, *checkpoints, params=params, heartbeat=beat, heartbeat_interval_s=10.0))


def running() -> Shown:
    """Return one that runs, with nested params and wide characters everywhere."""
    params = {
        "模型": {"名前": "ネットワーク", "depth": 3, "head": {"bias": True, "layers": [64, 32, 16]}},
        "optim": {"name": "adamw", "betas": [0.9, 0.999], "schedule": {"kind": "cosine", "warmup": 500}},
        "emoji": "🔥🔥🔥",
        "empty": {},
    }
    only = checkpoint(
        "d01b7aa", 1200, timedelta(seconds=3), {"精度": 0.962, "val_loss": 0.15}, path="重み/モデル.pth", archive_pending=True
    )
    return Shown(
        record(
            "bfb06bc",
            timedelta(seconds=41),
            only,
            params=params,
            user="安娜",
            host="東京-gpu-07",
            command="python 学習.py --データ /資料/画像 --モデル 大きい --層 十二 --説明 とても長いコマンドラインは何行にもなります",
            heartbeat=Heartbeat(3.0, NOW),
            heartbeat_interval_s=10.0,
            is_uploaded=False,
        ),
        Said(
            name="実験その一",
            notes="とても長いメモは、空白がなくても行の終わりで折り返されます。とても長いメモは、空白がなくても。",
        ),
        [Point(step, NOW - timedelta(seconds=40 - step), {"loss": 5.0 - step if step % 7 else math.nan}) for step in range(30)],
    )


def crowded() -> Shown:
    """Return one with forty params, long names and long values, and more metrics than there is room for."""
    params: dict[str, Any] = {f"param_{number:02}": number * 1000.5 for number in range(36)}
    params |= {"a_param_with_a_name_that_is_longer_than_any_column": 1, "text": "word " * 60, "digest": "0123456789abcdef" * 20}
    params |= {"path": "/mnt/lab/data/projects/hotdog/2026/november/experiments/first/attempt/config.yaml"}
    metrics = {f"val/metric_with_a_long_name_{number}": number / 7 for number in range(25)}
    checkpoints = [
        checkpoint(
            f"e{step:06}",
            step,
            (30 - step) * MINUTE,
            {**metrics, "val_loss": 1 / (1 + step)},
            path="out",
            archive=archive(1_000 * step + 1),
        )
        for step in range(12)
    ]
    aliases = {"an-alias-that-is-quite-long-for-a-table": checkpoints[5].id, "b": checkpoints[-1].id, "c": checkpoints[-1].id}
    ended = {"outcome": "finished", "ended": NOW - 20 * MINUTE}
    long_git = {
        "commit": "1" * 40,
        "branch": "feature/" + "long-" * 12 + "branch",
        "dirty": False,
        "modified": 0,
        "remote": "git@example.org:lab/" + "r" * 40,
    }
    said = Said("a name " * 12, tuple(f"tag-{number}" for number in range(20)), "", aliases)
    return Shown(record("e0e0e0e", 32 * MINUTE, *checkpoints, params=params, path=".", git=long_git, **ended), said)


SHOWN = {make.__name__: make for make in (finished, failed, interrupted, killed, running, crowded)}
FILES = [
    file("out/adapter_config.json", 812),
    file("out/model-00001-of-00002.safetensors", 4_990_000_000, "aaa0001"),
    file("out/model-00002-of-00002.safetensors", 3_120_000_000, "aaa0002"),
    file("out/latest", 0, kind="link", link_target="model-00002-of-00002.safetensors", sha256=None),
    file("out/logs", 0, kind="directory", sha256=None),
    file("out/a/directory/that/is/rather/deep/and/has/a/long/name/tokenizer.json", 2_100_000, "bbb0001"),
    file("out/重み.npz", 12_000, "ccc0001"),
    *(file(f"out/shards/shard-{number:03}.bin", 1 << number, f"{number:07}") for number in range(8)),
]
