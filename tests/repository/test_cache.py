"""The cache never tells anything but what the store would, whatever happens to it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from keepsake.repository.cache import RecordCache, _instead_of_home, cache_directory
from keepsake.storage import ObjectInfo


def info(key: str, etag: str) -> ObjectInfo:
    return ObjectInfo(key, 1, etag, 0.0)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_CACHE_DIR", str(tmp_path))


@pytest.fixture
def cache() -> RecordCache:
    return RecordCache("s3://acme")


def test_what_has_the_same_etag_is_known(cache: RecordCache) -> None:
    assert cache.known([info("a", "1")]) == {}
    cache.keep({"a": ("1", b"one"), "b": ("2", b"two")}, ["a", "b"])
    assert cache.known([info("a", "1"), info("b", "other"), info("c", "3")]) == {"a": b"one"}


def test_what_is_gone_is_forgotten(cache: RecordCache) -> None:
    cache.keep({"a": ("1", b"one"), "b": ("2", b"two")}, ["a", "b"])
    cache.keep({}, ["b"])
    assert cache.known([info("a", "1"), info("b", "2")]) == {"b": b"two"}


def test_repositories_have_caches_of_their_own() -> None:
    RecordCache("s3://acme").keep({"a": ("1", b"one")}, ["a"])
    assert RecordCache("s3://acme/x").known([info("a", "1")]) == {}


def test_caches_lie_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KEEPSAKE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == user_cache_path("keepsake")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, which counts as not set")
    assert cache_directory() == user_cache_path("keepsake")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == user_cache_path("keepsake")


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(4000)])
def test_a_damaged_one_is_an_empty_one_and_is_made_anew(cache: RecordCache, content: bytes) -> None:
    cache.keep({"a": ("1", b"one")}, ["a"])
    cache.path.write_bytes(content)
    assert cache.known([info("a", "1")]) == {}
    for _ in range(2):
        cache.keep({"a": ("1", b"one")}, ["a"])
    assert cache.known([info("a", "1")]) == {"a": b"one"}


def test_no_place_for_it_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("KEEPSAKE_CACHE_DIR", str(tmp_path / "file"))
    cache = RecordCache("s3://acme")
    cache.keep({"a": ("1", b"one")}, ["a"])
    assert cache.known([info("a", "1")]) == {}


def _keep(number: int) -> None:
    for turn in range(20):
        RecordCache("s3://acme").keep({f"{number}": (str(turn), b"x" * 1000)}, [str(n) for n in range(4)])


def test_many_processes_write_to_it() -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_keep, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(RecordCache("s3://acme").known([info(str(number), "19") for number in range(4)])) == 4


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a user whom the system does not know, as in a container that runs under any number."""
    import pwd

    def unknown(user_id: int) -> None:
        raise KeyError(user_id)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "KEEPSAKE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _instead_of_home.cache_clear()
    return tmp_path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere platformdirs decides")
def test_a_user_without_a_home_has_a_cache_of_their_own(nobody: Path) -> None:
    assert cache_directory() == nobody / f"keepsake-{os.getuid()}" / ".cache" / "keepsake"
    assert (nobody / f"keepsake-{os.getuid()}").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere platformdirs decides")
@pytest.mark.parametrize("mode", [0o777, None])
def test_a_directory_that_others_may_have_made_is_no_cache(nobody: Path, mode: int | None) -> None:
    place = nobody / f"keepsake-{os.getuid()}"
    if mode is None:
        (nobody / "theirs").mkdir()
        place.symlink_to(nobody / "theirs")
    else:
        place.mkdir()
        place.chmod(mode)
    own = cache_directory()
    assert not own.is_relative_to(place)
    assert own.parent.parent.stat().st_mode & 0o777 == 0o700
    assert cache_directory() == own
