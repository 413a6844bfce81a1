"""A store in front of another is a store, and hides what lies behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepsake.storage import DiskStorage, MemoryStorage, OverlayStorage
from tests.storage.conformance import StorageTests
from tests.storage.test_disk import RawDisk


class TestOverlayStorage(StorageTests):
    rig = "overlay"

    @pytest.fixture
    def storage(self, tmp_path: Path) -> OverlayStorage:
        return OverlayStorage(DiskStorage(tmp_path / "front"), DiskStorage(tmp_path / "back"))

    @pytest.fixture
    def raw(self, storage: OverlayStorage) -> RawDisk:
        assert isinstance(storage.back, DiskStorage)
        return RawDisk(storage.back.root)


@pytest.fixture
def overlay() -> OverlayStorage:
    front, back = MemoryStorage(), MemoryStorage()
    for key in ("a", "both", "z"):
        back.write(key, b"back")
    for key in ("both", "middle/x"):
        front.write(key, b"front, longer")
    return OverlayStorage(front, back)


def test_what_lies_in_front_hides_what_lies_behind(overlay: OverlayStorage) -> None:
    listed = {info.key: info.size_bytes for info in overlay.list()}
    assert list(listed) == ["a", "both", "middle/x", "z"]
    assert listed == {key: len(overlay.read(key)) for key in listed}
    assert overlay.read("both") == b"front, longer"
    assert overlay.read_range("both", 7, 3) == b"lon"
    with overlay.open("both") as file:
        assert file.read() == b"front, longer"


def test_writing_changes_what_is_seen_where_it_lies(overlay: OverlayStorage) -> None:
    for key in ("a", "both", "new"):
        overlay.write(key, b"changed")
        assert overlay.read(key) == b"changed"
    assert overlay.front.read("both") == b"changed"
    assert overlay.back.read("both") == b"back"
    assert [info.key for info in overlay.front.list()] == ["both", "middle/x"]


def test_deleting_deletes_both(overlay: OverlayStorage) -> None:
    overlay.delete(["both", "a", "middle/x", "nowhere"])
    assert [info.key for info in overlay.list()] == ["z"]


def test_it_goes_by_the_address_of_the_back_store(tmp_path: Path) -> None:
    overlay = OverlayStorage(DiskStorage(tmp_path / "front"), DiskStorage(tmp_path / "back"))
    assert overlay.url == f"file://{tmp_path}/back"
