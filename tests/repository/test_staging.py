"""What is staged outlives the process, is sealed from any state that a kill can leave, and is never taken for whole when it is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from keepsake.capture.files import FileEntry, checkpoint_files
from keepsake.exceptions import ReadError
from keepsake.repository import archive, layout
from keepsake.repository.journal import JournalDirectory
from keepsake.repository.layout import new_id
from keepsake.repository.records import ArchiveInfo
from keepsake.repository.repository import Repository
from keepsake.repository.staging import Staging

FILES = {"a": b"first" * 1000, "deeper/b": os.urandom(70_000), "empty": b"", "deeper/\udcff name": b"not unicode"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.at(f"file://{tmp_path / 'repository'}")
    repository.prepare()
    return repository


@pytest.fixture
def staging(repository: Repository) -> Staging:
    assert repository.local_root is not None
    place = JournalDirectory(repository.local_root, new_id())
    place.path.mkdir(parents=True)
    return Staging(place)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "training" / "out"
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    (directory / "link").symlink_to("deeper/b")
    (directory / "nothing in it").mkdir()
    return directory


def entries_of(source: Path) -> list[FileEntry]:
    return checkpoint_files(source.parent, source.name)[1]


def take_snapshot(staging: Staging, id: str, source: Path) -> None:
    """Stage a copy of a directory as a snapshot, as moving it would."""
    entries = [FileEntry(e.name, e.source.relative_to(source), e.kind, e.link_target) for e in entries_of(source)]
    shutil.copytree(source, staging.announce_snapshot(id, entries), symlinks=True)


def check_content(repository: Repository, id: str, info: ArchiveInfo) -> None:
    key = layout.checkpoint_archive_key(id)
    content = repository.storage.read(key)
    assert (len(content), info.sha256) == (info.size_bytes, None)
    repository.archives.check(key, announced=info)
    listed = {file.path for file in repository.archives.files(key)}
    for name, expected in FILES.items():
        with repository.archives.open_file(key, f"out/{name}") as file:
            assert file.read() == expected
    assert "out/link" in listed


def put(staging: Staging, id: str, source: Path, how: str) -> None:
    if how == "packed":
        staging.pack(id, entries_of(source))
    else:
        take_snapshot(staging, id, source)


HOW = pytest.mark.parametrize("how", ["packed", "snapshot"])


@HOW
def test_what_is_staged_comes_into_its_place_and_leaves_nothing(
    repository: Repository, staging: Staging, source: Path, how: str
) -> None:
    id = new_id()
    put(staging, id, source, how)
    shutil.rmtree(source)
    assert staging.is_whole(id)
    assert staging.ids() == {id}
    info = staging.store(id, repository, layout.checkpoint_archive_key(id))
    check_content(repository, id, info)
    staging.sweep(id)
    assert list(staging.directory.iterdir()) == []


def test_a_snapshot_gives_the_archive_that_packing_gives(repository: Repository, staging: Staging, source: Path) -> None:
    packed, copied = new_id(), new_id()
    put(staging, packed, source, "packed")
    put(staging, copied, source, "snapshot")
    both = {}
    for id in (packed, copied):
        key = layout.checkpoint_archive_key(id)
        staging.store(id, repository, key)
        both[id] = {(file.path, file.size_bytes, file.sha256) for file in repository.archives.files(key)}
    assert both[packed] == both[copied]


@HOW
@pytest.mark.parametrize("times", [1, 2])
def test_sealing_may_be_done_again_from_what_a_kill_has_left(
    repository: Repository, staging: Staging, source: Path, how: str, times: int
) -> None:
    id = new_id()
    put(staging, id, source, how)
    infos = [staging.seal(id) for _ in range(times)]
    # Killed before it was put into its place; another process goes on.
    again = Staging(JournalDirectory(repository.local_root, staging.directory.name))
    assert again.is_whole(id)
    info = again.store(id, repository, layout.checkpoint_archive_key(id))
    assert {info, *infos} == {info}
    check_content(repository, id, info)


def test_an_archive_that_was_packed_of_a_snapshot_and_cut_is_packed_anew(
    repository: Repository, staging: Staging, source: Path
) -> None:
    id = new_id()
    put(staging, id, source, "snapshot")
    staging.seal(id)
    content = staging.archive(id).read_bytes()
    for left in (b"", content[: len(content) // 2], content + b"more"):
        staging.archive(id).write_bytes(left)
        assert staging.is_whole(id)
        staging.seal(id)
    check_content(repository, id, staging.store(id, repository, layout.checkpoint_archive_key(id)))


@HOW
def test_what_is_in_its_place_already_is_only_announced(repository: Repository, staging: Staging, source: Path, how: str) -> None:
    id = new_id()
    key = layout.checkpoint_archive_key(id)
    put(staging, id, source, how)
    first = staging.store(id, repository, key)
    # Killed before it was announced.
    assert staging.store(id, repository, key) == first
    check_content(repository, id, first)


def test_a_snapshot_that_was_put_into_its_place_and_not_removed_is_stored_once_more(
    repository: Repository, staging: Staging, source: Path
) -> None:
    id = new_id()
    key = layout.checkpoint_archive_key(id)
    put(staging, id, source, "snapshot")
    first = staging.seal(id)
    repository.storage.write(key, staging.archive(id))
    assert staging.store(id, repository, key) == first
    check_content(repository, id, first)
    assert staging.ids() == set()


def test_a_snapshot_is_set_aside_when_it_is_stored_and_gone_when_it_is_swept(
    repository: Repository, staging: Staging, source: Path
) -> None:
    id = new_id()
    put(staging, id, source, "snapshot")
    staging.store(id, repository, layout.checkpoint_archive_key(id))
    assert staging.ids() == set()
    assert not staging.is_whole(id)
    assert staging.is_set_aside(id)
    staging.sweep(id)
    assert not staging.is_set_aside(id)
    assert list(staging.directory.iterdir()) == []


def test_what_was_packed_leaves_nothing_to_sweep(repository: Repository, staging: Staging, source: Path) -> None:
    id = new_id()
    put(staging, id, source, "packed")
    staging.store(id, repository, layout.checkpoint_archive_key(id))
    assert not staging.is_set_aside(id)
    assert list(staging.directory.iterdir()) == []


def test_what_is_neither_staged_nor_stored_is_an_error_that_names_it(repository: Repository, staging: Staging) -> None:
    id = new_id()
    assert not staging.is_whole(id)
    with pytest.raises(ReadError, match=id[:7]):
        staging.store(id, repository, layout.checkpoint_archive_key(id))


# --- what is not whole ------------------------------------------------------------------------------------------------


def test_an_announced_snapshot_without_its_files_is_not_whole(staging: Staging, source: Path) -> None:
    id = new_id()
    staging.announce_snapshot(id, entries_of(source))
    assert not staging.is_whole(id)
    assert staging.ids() == {id}


def test_an_archive_without_its_layout_is_not_whole(staging: Staging, source: Path) -> None:
    id = new_id()
    staging.pack(id, entries_of(source))
    archive.layout_path(staging.archive(id)).unlink()
    assert not staging.is_whole(id)


def test_a_layout_without_its_archive_is_not_whole(staging: Staging, source: Path) -> None:
    id = new_id()
    staging.pack(id, entries_of(source))
    staging.archive(id).unlink()
    assert not staging.is_whole(id)


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_a_snapshot_that_is_half_removed_is_not_whole(staging: Staging, source: Path, gone: int) -> None:
    """Whatever part of it is gone: it is removed under another name."""
    id = new_id()
    put(staging, id, source, "snapshot")
    [snapshot] = staging.directory.iterdir()
    # What `discard` does first; then it is killed after some files.
    discarded = snapshot.with_name(f"{id}.discarded")
    snapshot.rename(discarded)
    for path in sorted(path for path in discarded.rglob("*") if path.is_file())[:gone]:
        path.unlink()
    assert not staging.is_whole(id)
    staging.discard(id)
    assert staging.ids() == set()


@HOW
def test_what_is_discarded_is_gone_and_discarding_twice_is_harmless(staging: Staging, source: Path, how: str) -> None:
    id, other = new_id(), new_id()
    put(staging, id, source, how)
    put(staging, other, source, "packed")
    staging.seal(id)
    for _ in range(2):
        staging.discard(id)
        assert staging.ids() == {other}
    assert staging.is_whole(other)


def test_packing_that_fails_leaves_nothing_behind(staging: Staging, source: Path) -> None:
    id = new_id()
    with pytest.raises((OSError, ReadError)):
        staging.pack(id, [FileEntry("gone", source / "gone", "file")])
    assert staging.ids() == set()


# --- damage, as a power cut leaves it ---------------------------------------------------------------------------------

DAMAGE = pytest.mark.parametrize("damage", ["empty", "cut", "zeros"])


def damage_file(path: Path, damage: str) -> None:
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "zeros": bytes(len(content))}[damage])


@DAMAGE
def test_a_damaged_list_of_a_snapshots_files_is_an_error_of_ours(staging: Staging, source: Path, damage: str) -> None:
    id = new_id()
    put(staging, id, source, "snapshot")
    damage_file(staging.directory / f"{id}.snapshot" / "entries.json", damage)
    with pytest.raises(ReadError):
        staging.seal(id)


@DAMAGE
def test_a_damaged_layout_is_an_error_of_ours(staging: Staging, source: Path, damage: str) -> None:
    id = new_id()
    put(staging, id, source, "packed")
    damage_file(archive.layout_path(staging.archive(id)), damage)
    with pytest.raises(ReadError):
        staging.seal(id)


@DAMAGE
def test_a_damaged_archive_is_never_announced_as_whole(
    repository: Repository, staging: Staging, source: Path, damage: str
) -> None:
    id = new_id()
    key = layout.checkpoint_archive_key(id)
    put(staging, id, source, "packed")
    damage_file(staging.archive(id), damage)
    with pytest.raises(ReadError):
        # The second is what recovery asks for after a power cut.
        repository.archives.check(key, announced=staging.store(id, repository, key))


def test_the_size_of_what_is_staged_is_told_while_it_is_removed(staging: Staging, source: Path) -> None:
    packed, copied = new_id(), new_id()
    put(staging, packed, source, "packed")
    put(staging, copied, source, "snapshot")
    assert staging.size_bytes(packed) == staging.archive(packed).stat().st_size
    assert staging.size_bytes(copied) >= sum(map(len, FILES.values()))
    staging.discard(copied)
    assert staging.size_bytes(copied) == 0
