from __future__ import annotations

from pathlib import Path

import pytest

from keepsake import storage
from keepsake.exceptions import RepositoryConfigurationError
from keepsake.storage import DiskStorage, from_url


def test_a_file_url_is_a_directory(tmp_path: Path) -> None:
    opened = from_url(f"file://{tmp_path}/runs")
    assert isinstance(opened, DiskStorage)
    assert opened.root == tmp_path / "runs"
    assert opened.url == f"file://{tmp_path}/runs"


def test_a_plain_path_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for written in ("runs", "./runs", "file://runs", " file://./runs "):
        opened = from_url(written)
        assert isinstance(opened, DiskStorage)
        assert opened.root == tmp_path / "runs"


def test_the_home_directory_may_be_written_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_url("file://~/runs").url == f"file://{tmp_path}/runs"


def test_a_path_is_taken_as_it_is_written(tmp_path: Path) -> None:
    for name in ("per%20cent", "sp ace", "a#b?c", "ünï", "50%"):
        opened = from_url(f"file://{tmp_path}/{name}")
        opened.write("a", b"x")
        assert (tmp_path / name / "a").is_file()
        assert from_url(opened.url).url == opened.url


def test_a_scheme_may_be_written_in_capitals(tmp_path: Path) -> None:
    assert from_url(f"FILE://{tmp_path}").url == f"file://{tmp_path}"
    assert from_url("S3://bucket/Prefix").url == "s3://bucket/Prefix"


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_is_opened_without_its_library_and_without_asking_it(scheme: str) -> None:
    for location in ("acme-hotdog", "acme-hotdog/runs", "acme-hotdog/runs/"):
        assert from_url(f"{scheme}://{location}").url == f"{scheme}://{location.removesuffix('/')}"
    for location in ("", "/", "a", "acme-hotdog//runs", "acme-hotdog/../runs"):
        with pytest.raises(RepositoryConfigurationError):
            from_url(f"{scheme}://{location}")


@pytest.mark.parametrize("url", ["", " ", "file://", "FILE://", "file:// ", "://x", "file:///a\0b", "runs\nmore"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RepositoryConfigurationError) as caught:
        from_url(url)
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("fiel:///runs", "write file:///runs"),
        ("ftp://host/runs", "write file://.keepsake"),
    ],
)
def test_an_unknown_scheme_is_answered_with_the_known_ones(url: str, hint: str) -> None:
    with pytest.raises(
        RepositoryConfigurationError, match=rf'unknown repository scheme .* in "{url}" \(known: file://, s3://, gs://\)'
    ) as caught:
        from_url(url)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("file:/data/runs", "write file:///data/runs"),
        ("file:runs", "write file://runs"),
        ("s3:bucket/runs", "write s3://bucket/runs"),
        ("gs:/bucket", "write gs://bucket"),
    ],
)
def test_a_forgotten_slash_does_not_make_a_directory_of_that_name(url: str, hint: str) -> None:
    with pytest.raises(RepositoryConfigurationError, match="lacks slashes") as caught:
        from_url(url)
    assert caught.value.hint == hint


def test_a_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_url("2026:runs").url == f"file://{tmp_path}/2026:runs"


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(RepositoryConfigurationError, match="home directory") as caught:
        from_url("file://~no-such-user-anywhere/runs")
    assert caught.value.__cause__ is not None


def test_nothing_is_touched(tmp_path: Path) -> None:
    from_url(f"file://{tmp_path}/runs")
    assert list(tmp_path.iterdir()) == []


def test_every_exported_name_is_there() -> None:
    assert all(hasattr(storage, name) for name in storage.__all__)


def test_a_password_in_a_mistaken_url_is_not_repeated() -> None:
    for url in ("ftp://ana:hunter2@host/runs", "fiel://ana:hunter2@host/runs"):
        with pytest.raises(RepositoryConfigurationError, match="unknown repository scheme") as caught:
            from_url(url)
        assert "hunter2" not in str(caught.value)
