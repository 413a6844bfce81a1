"""Processes that read records for a command: what they find, what is damaged, and what happens when they die."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keepsake.query import entries, helpers
from keepsake.query.index import Index
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage.disk import DiskStorage

COUNT = 30


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return a repository in which a few experiments are many enough for helpers, with a few of them for each question."""
    monkeypatch.setattr(entries, "MANY", COUNT)
    monkeypatch.setattr(helpers, "CHUNK", 4)
    found = Repository(DiskStorage(tmp_path / "repository"))
    for number in range(COUNT):
        record = ExperimentRecord(f"{number:02x}" * 32, utc_now(), {"lr": number / 10, "name": "\ud800" if number == 3 else "ä"})
        record.checkpoints = [CheckpointRecord(f"{number:02x}{step:02x}" * 16, utc_now(), step) for step in range(3)]
        found.save(record)
    return found


def listed(index: Index) -> list[tuple[object, ...]]:
    return [
        (one.id, one.created, one.params, one.num_checkpoints, one.latest_json, one.python_packages) for one in index.summaries()
    ]


def with_helpers(repository: Repository, path: Path | None = None) -> Index:
    index = Index(repository, path)
    index.helpers = 2
    return index


def test_they_find_what_one_process_finds(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Index(repository, None)
    expected = listed(alone)
    # What this process does instead of one that does not answer must not be what is compared here.
    monkeypatch.setattr(helpers, "_read", lambda storage, keys: pytest.fail("a helper did not answer"))
    helped = with_helpers(repository, tmp_path / "index.sqlite")
    assert listed(helped) == expected
    assert len(expected) == COUNT
    assert helped.short_length() == alone.short_length()
    assert helped.owners("1d02") == ["1d" * 32]


def test_damaged_records_are_named_and_left_out(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    root = repository.local_root
    assert root is not None
    (root / layout.record_key("05" * 32)).write_text('{"id":', encoding="utf-8")
    found = [summary.id for summary in with_helpers(repository).summaries()]
    assert len(found) == COUNT - 1
    assert "05" * 32 not in found
    assert layout.record_key("05" * 32) in capsys.readouterr().err


def test_deleted_records_are_left_out(repository: Repository) -> None:
    storage = repository.storage
    assert isinstance(storage, DiskStorage)
    keys = [info.key for info in storage.list(layout.RECORDS_PREFIX)]
    (storage.root / keys[0]).unlink()
    assert sorted(found.key for found in helpers.read(storage, keys, 2) if isinstance(found, entries.Entry)) == sorted(keys[1:])


@pytest.mark.parametrize("executable", ["/nonexistent/python", "", "false", "echo", "yes"])
def test_one_that_cannot_be_started_costs_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    expected = listed(Index(repository, None))
    monkeypatch.setattr(sys, "executable", executable)  # one that ends, one that says something else, one that never stops
    assert listed(with_helpers(repository)) == expected


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Return where all processes will be that are started."""
    found: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remembering(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        found.append(popen(*args, **options))
        return found[-1]

    monkeypatch.setattr(subprocess, "Popen", remembering)
    return found


def test_those_that_die_cost_nothing(repository: Repository, started: list[subprocess.Popen[bytes]]) -> None:
    expected = listed(Index(repository, None))
    storage = repository.storage
    assert isinstance(storage, DiskStorage)
    answers = helpers.read(storage, [info.key for info in storage.list(layout.RECORDS_PREFIX)], 2)
    found = [next(answers)]
    for process in started:
        process.kill()
    found += answers
    assert len(started) == 2
    assert len(found) == len(expected)


def test_none_is_left_behind(repository: Repository, started: list[subprocess.Popen[bytes]]) -> None:
    with_helpers(repository).summaries()
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)
