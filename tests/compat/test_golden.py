"""Repositories that keepsake 0.4.2 recorded are read as it reads them itself; `record_golden.py` says how they were made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keepsake.repository import layout
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import DiskStorage

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.name for path in GOLDEN.iterdir())


@pytest.fixture(params=NAMES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Repository, list[dict[str, Any]]]:
    """A copy of a recorded repository, and what 0.4.2 said of it."""
    shutil.copytree(GOLDEN / request.param / "repository", tmp_path / "repository")
    expected = json.loads((GOLDEN / request.param / "expected.json").read_text(encoding="utf-8"))
    return Repository(DiskStorage(tmp_path / "repository")), expected


def test_there_are_recordings() -> None:
    assert NAMES == ["bare", "directories", "files", "killed"]


def test_every_experiment_is_read_as_the_original_reads_it(golden: tuple[Repository, list[dict[str, Any]]]) -> None:
    repository, expected = golden
    records = repository.list_experiments()
    assert [record.id for record in records] == [experiment["id"] for experiment in expected]
    for record, experiment in zip(records, expected, strict=True):
        assert_same_experiment(record, experiment)
        for checkpoint, wanted in zip(record.checkpoints, experiment["checkpoints"], strict=True):
            assert_same_checkpoint(checkpoint, wanted)


def assert_same_experiment(record: ExperimentRecord, expected: dict[str, Any]) -> None:
    for name in ("user", "command", "path", "python_version", "python_packages", "keepsake_version"):
        assert getattr(record, name) == expected[name], name
    assert normal(record.params) == normal(expected["params"] or {})
    assert_same_time(record.created, expected["created"])


def assert_same_checkpoint(record: CheckpointRecord, expected: dict[str, Any]) -> None:
    assert (record.id, record.step, record.path) == (expected["id"], expected["step"], expected["path"])
    assert normal(record.metrics) == normal(expected["metrics"] or {})
    metric = expected["primary_metric"]
    assert (tuple(record.primary_metric) if record.primary_metric else None) == (tuple(metric.values()) if metric else None)
    assert_same_time(record.created, expected["created"])
    assert (record.archive, record.archive_pending) == (None, False)


def assert_same_time(moment: datetime, expected: str) -> None:
    # The original's Python rounds nanoseconds, we cut them off.
    assert abs(moment - datetime.fromisoformat(expected).replace(tzinfo=UTC)) <= timedelta(microseconds=1)


def normal(value: Any) -> str:
    """Return a value as text in which 1 and 1.0 are equal, as they are for the original, and so are two NaN."""
    whole = json.loads(json.dumps(value), parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text))
    return json.dumps(whole, sort_keys=True)


@pytest.mark.parametrize(
    ("name", "metrics"), [("files", {"loss": 0.5 / 3, "accuracy": 0.5, "epoch": 2}), ("bare", {"accuracy": 1})]
)
def test_the_best_checkpoint_is_the_originals(name: str, metrics: dict[str, float]) -> None:
    expected = json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))[-1]
    best = Repository(DiskStorage(GOLDEN / name / "repository")).load(expected["id"]).best()
    assert best is not None
    assert best.id == expected["best"]
    assert best.metrics == metrics


def test_the_best_checkpoint_is_found_among_nan_and_without_repeating_the_primary_metric() -> None:
    [record] = Repository(DiskStorage(GOLDEN / "directories" / "repository")).list_experiments()
    best = record.best()
    assert best is not None
    assert best.metrics == {"loss": -1.5}


def test_files_come_back_as_from_the_originals_checkout(golden: tuple[Repository, list[dict[str, Any]]], tmp_path: Path) -> None:
    repository, expected = golden
    for experiment in expected:
        for checkpoint in experiment["checkpoints"]:
            if checkpoint["checkout"] is None:
                continue
            found: dict[str, str] = {}
            if experiment["path"] is not None:
                found |= digests(repository, layout.experiment_archive_key(experiment["id"]), tmp_path / experiment["id"])
            found |= digests(repository, layout.checkpoint_archive_key(checkpoint["id"]), tmp_path / checkpoint["id"])
            assert found == checkpoint["checkout"]


def digests(repository: Repository, key: str, target: Path) -> dict[str, str]:
    target.mkdir(exist_ok=True)
    if not any(target.iterdir()):
        repository.archives.extract(key, target)
    files = [file for file in repository.archives.files(key) if file.kind == "file"]
    for file in files:
        with repository.archives.open_file(key, file.path) as opened:
            assert opened.read() == (target / file.path).read_bytes()
    return {file.path: hashlib.sha256((target / file.path).read_bytes()).hexdigest() for file in files}


def test_rewriting_a_record_changes_nothing_that_the_original_wrote(golden: tuple[Repository, list[dict[str, Any]]]) -> None:
    repository, _ = golden
    for record in repository.list_experiments():
        before = json.loads(repository.storage.read(layout.record_key(record.id)))
        repository.save(record)
        after = json.loads(repository.storage.read(layout.record_key(record.id)))
        assert list(after) == list(before)
        assert without_empty(after) == without_empty(before)


def without_empty(raw: dict[str, Any]) -> dict[str, Any]:
    """Leave out what null and {} say alike, and cut times to the six digits that we write."""
    shown = {key: value for key, value in raw.items() if value not in (None, {}, [])} | {"created": raw["created"][:26]}
    return {**shown, "checkpoints": [without_empty(one) for one in raw["checkpoints"] or []]} if "checkpoints" in raw else shown


def test_what_was_killed_runs_until_its_heartbeat_is_old(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "killed" / "repository", tmp_path / "repository")
    repository = Repository(DiskStorage(tmp_path / "repository"))
    [heartbeat] = (tmp_path / "repository" / "metadata" / "heartbeats").iterdir()
    for age_s, word, reason in [(5, "running", "running"), (31, "stopped", "no heartbeat")]:
        os.utime(heartbeat, times=(time.time() - age_s,) * 2)
        [record] = repository.list_experiments()
        assert (record.status.word, record.status.reason) == (word, reason)
