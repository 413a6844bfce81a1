"""The cache never tells anything but what the store would, whatever happens to it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from keepsake.repository.cache import RecordCache
from keepsake.storage import ObjectInfo


def info(key: str, etag: str) -> ObjectInfo:
    return ObjectInfo(key, 1, etag, 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> RecordCache:
    return RecordCache("s3://acme", tmp_path)


def test_what_has_the_same_etag_is_known(cache: RecordCache) -> None:
    assert cache.known([info("a", "1")]) == {}
    cache.keep({"a": ("1", b"one"), "b": ("2", b"two")}, ["a", "b"])
    assert cache.known([info("a", "1"), info("b", "other"), info("c", "3")]) == {"a": b"one"}


def test_what_is_gone_is_forgotten(cache: RecordCache) -> None:
    cache.keep({"a": ("1", b"one"), "b": ("2", b"two")}, ["a", "b"])
    cache.keep({}, ["b"])
    assert cache.known([info("a", "1"), info("b", "2")]) == {"b": b"two"}


def test_repositories_have_caches_of_their_own(tmp_path: Path) -> None:
    RecordCache("s3://acme", tmp_path).keep({"a": ("1", b"one")}, ["a"])
    assert RecordCache("s3://acme/x", tmp_path).known([info("a", "1")]) == {}


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(4000)])
def test_a_damaged_one_is_an_empty_one_and_is_made_anew(cache: RecordCache, content: bytes) -> None:
    cache.keep({"a": ("1", b"one")}, ["a"])
    cache.path.write_bytes(content)
    assert cache.known([info("a", "1")]) == {}
    for _ in range(2):
        cache.keep({"a": ("1", b"one")}, ["a"])
    assert cache.known([info("a", "1")]) == {"a": b"one"}


def test_no_place_for_it_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = RecordCache("s3://acme", tmp_path / "file")
    cache.keep({"a": ("1", b"one")}, ["a"])
    assert cache.known([info("a", "1")]) == {}


def _keep(directory: Path, number: int) -> None:
    for turn in range(20):
        RecordCache("s3://acme", directory).keep({f"{number}": (str(turn), b"x" * 1000)}, [str(n) for n in range(4)])


def test_many_processes_write_to_it(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_keep, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(RecordCache("s3://acme", tmp_path).known([info(str(number), "19") for number in range(4)])) == 4
