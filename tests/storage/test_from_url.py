from __future__ import annotations

from pathlib import Path

import pytest

from keepsake.exceptions import RepositoryConfigurationError
from keepsake.storage import DiskStorage, from_url


def test_a_file_url_is_a_directory(tmp_path: Path) -> None:
    storage = from_url(f"file://{tmp_path}/runs")
    assert isinstance(storage, DiskStorage)
    assert storage.root == tmp_path / "runs"
    assert storage.url == f"file://{tmp_path}/runs"


def test_a_plain_path_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for written in ("runs", "./runs", "file://runs", " file://./runs "):
        storage = from_url(written)
        assert isinstance(storage, DiskStorage)
        assert storage.root == tmp_path / "runs"


def test_the_home_directory_may_be_written_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_url("file://~/runs").url == f"file://{tmp_path}/runs"


@pytest.mark.parametrize("url", ["", " ", "file://", "ftp://host/runs", "fiel:///runs", "://x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RepositoryConfigurationError) as caught:
        from_url(url)
    assert caught.value.hint


@pytest.mark.parametrize("url", ["s3://bucket/runs", "gs://bucket"])
def test_buckets_are_said_to_come_later(url: str) -> None:
    with pytest.raises(RepositoryConfigurationError, match="not supported yet"):
        from_url(url)
