"""When a snapshot is taken nothing that happens to its sources reaches it, however it was taken; and nothing is taken that is not ours."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepsake.capture.files import FileEntry, checkpoint_files
from keepsake.recording import page_cache, snapshot
from keepsake.recording.snapshot import WORTH_CLONING_BYTES, may_be_moved
from keepsake.repository import layout
from keepsake.repository.journal import JournalDirectory
from keepsake.repository.layout import new_id
from keepsake.repository.repository import Repository
from keepsake.repository.staging import Staging

LARGE = bytes(range(256)) * (WORTH_CLONING_BYTES // 256 + 1)


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
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setattr(snapshot, "_can_clone", {})
    return directory


def save(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk, which cloning asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def content_of(repository: Repository, staging: Staging, id: str) -> dict[str, bytes]:
    """Return what comes into the repository of what is staged."""
    key = layout.checkpoint_archive_key(id)
    repository.archives.check(key, announced=staging.store(id, repository, key))
    found = {}
    for file in repository.archives.files(key):
        if file.kind == "file":
            with repository.archives.open_file(key, file.path) as stream:
                found[file.path] = stream.read()
    return found


def entries_of(project: Path, path: str | Path) -> list[FileEntry]:
    return checkpoint_files(project, path)[1]


def take(how: str, id: str, path: Path, entries: list[FileEntry], staging: Staging) -> None:
    if how == "moved":
        assert snapshot.move(id, path, entries, staging)
    elif how == "packed" or not snapshot.clone(id, entries, staging):
        # What cannot be cloned leaves nothing and is packed.
        assert staging.ids() == set()
        staging.pack(id, entries)


HOW = pytest.mark.parametrize("how", ["packed", "moved", "cloned"])


# --- what was taken stays ---------------------------------------------------------------------------------------------


@HOW
def test_later_changes_of_a_file_never_reach_what_was_taken(
    repository: Repository, staging: Staging, project: Path, how: str
) -> None:
    path, id = project / "model", new_id()
    save(path, LARGE)
    take(how, id, path, entries_of(project, "model"), staging)
    assert path.exists() == (how != "moved")
    save(path, b"later")
    with path.open("ab") as file:
        file.write(LARGE)
    path.unlink()
    assert content_of(repository, staging, id) == {"model": LARGE}


@HOW
def test_later_changes_in_a_directory_never_reach_what_was_taken(
    repository: Repository, staging: Staging, project: Path, how: str
) -> None:
    directory, id = project / "out", new_id()
    save(directory / "model", LARGE)
    save(directory / "deeper" / "b", b"small")
    save(directory / "deeper" / "\udcff", b"not unicode")
    (directory / "link").symlink_to("deeper/b")
    (directory / "nothing in it").mkdir()
    (directory / "link to a directory").symlink_to("deeper")
    take(how, id, directory, entries_of(project, "out"), staging)
    if how != "moved":
        with (directory / "model").open("r+b") as file:
            file.write(b"later")
        (directory / "deeper" / "b").write_bytes(b"later")
        (directory / "new").write_bytes(b"new")
        shutil.rmtree(directory)
    assert not directory.exists()
    content = content_of(repository, staging, id)
    assert content == {"out/model": LARGE, "out/deeper/b": b"small", "out/deeper/\udcff": b"not unicode"}
    listed = {file.path: file.kind for file in repository.archives.files(layout.checkpoint_archive_key(id))}
    assert listed["out/link"] == listed["out/link to a directory"] == "link"
    assert listed["out/nothing in it"] == "directory"


@HOW
def test_modes_and_times_are_those_of_the_source(repository: Repository, staging: Staging, project: Path, how: str) -> None:
    path, id = project / "model", new_id()
    save(path, LARGE)
    path.chmod(0o640)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    take(how, id, path, entries_of(project, "model"), staging)
    content_of(repository, staging, id)
    [found] = repository.archives.files(layout.checkpoint_archive_key(id))
    assert (found.mode & 0o777, found.modified.timestamp()) == (0o640, 1_700_000_000)


def test_a_file_under_another_name_is_moved_too(repository: Repository, staging: Staging, project: Path) -> None:
    path, id = project / "tmp-123", new_id()
    save(path, LARGE)
    [entry] = entries_of(project, "tmp-123")
    assert snapshot.move(id, path, [FileEntry("out/model", entry.source, entry.kind)], staging)
    assert content_of(repository, staging, id) == {"out/model": LARGE}


def test_what_lies_behind_a_linked_directory_is_moved(repository: Repository, staging: Staging, project: Path) -> None:
    save(project / "real" / "out" / "model", LARGE)
    (project / "scratch").symlink_to("real")
    for name in ("scratch/out/model", "scratch/out"):
        save(project / "real" / "out" / "model", LARGE)
        path, id = project / name, new_id()
        entries = entries_of(project, name)
        assert may_be_moved(path, entries, project)
        assert snapshot.move(id, path, entries, staging)
        assert not path.exists()
        assert list(content_of(repository, staging, id).values()) == [LARGE]


# --- cloning ----------------------------------------------------------------------------------------------------------


def test_a_clone_that_fails_leaves_nothing(staging: Staging, project: Path) -> None:
    save(project / "model", LARGE)
    [entry] = entries_of(project, "model")
    gone = FileEntry("z", project / "gone", "link", "nowhere")
    with pytest.raises(OSError, match="gone") if can_clone(project, staging) else pytest.raises(_Refused):
        if not snapshot.clone(new_id(), [entry, gone], staging):
            raise _Refused
    assert staging.ids() == set()


class _Refused(Exception):
    """The file system cannot share blocks, and cloning said so."""


def can_clone(project: Path, staging: Staging) -> bool:
    save(project / "probe", LARGE)
    id = new_id()
    cloned = snapshot.clone(id, entries_of(project, "probe"), staging)
    staging.discard(id)
    return cloned


def test_a_file_system_that_cannot_is_asked_once(staging: Staging, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if can_clone(project, staging):
        assert list(snapshot._can_clone.values()) == [True]
        return
    monkeypatch.setattr(snapshot, "_shares_a_block", lambda *_: pytest.fail("asked once more"))
    monkeypatch.setattr(page_cache, "unwritten_bytes", lambda *_: pytest.fail("looked for what is not of use"))
    monkeypatch.setattr(snapshot, "_share_blocks", lambda *_: pytest.fail("asked once more"))
    save(project / "model", LARGE)
    assert not snapshot.clone(new_id(), entries_of(project, "model"), staging)


@pytest.mark.skipif(sys.platform != "linux", reason="only there blocks are shared")
def test_where_sharing_cannot_be_tried_cloning_says_whether_it_can_be_done(
    staging: Staging, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that have no files without a name."""
    save(project / "model", LARGE)
    os_open = os.open

    def refuse(path: str, flags: int, *arguments: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no such files here")
        return os_open(path, flags, *arguments)

    can = can_clone(project, staging)
    monkeypatch.setattr(snapshot, "_can_clone", {})
    monkeypatch.setattr(os, "open", refuse)
    assert snapshot.clone(new_id(), entries_of(project, "model"), staging) == can
    assert list(snapshot._can_clone.values()) == [can]


def test_small_files_are_not_worth_cloning(staging: Staging, project: Path) -> None:
    save(project / "model", b"small")
    assert not snapshot.clone(new_id(), entries_of(project, "model"), staging)
    assert not snapshot.clone(new_id(), [], staging)
    assert staging.ids() == set()


def test_a_file_that_is_on_the_disk_has_nothing_unwritten(project: Path) -> None:
    path = project / "model"
    save(path, LARGE)
    os.utime(path, (0, 0))
    assert page_cache.unwritten_bytes(path) == 0
    with path.open("ab") as file:
        file.write(LARGE)
        file.flush()
        assert 0 <= page_cache.unwritten_bytes(path) <= 2 * len(LARGE) + os.sysconf("SC_PAGE_SIZE")


# --- what may be moved ------------------------------------------------------------------------------------------------


def asked(project: Path, path: str) -> bool:
    return may_be_moved(project / path, entries_of(project, path), project)


def test_files_and_whole_directories_may_be_moved(project: Path) -> None:
    save(project / "out" / "model", b"weights")
    save(project / "out" / "deeper" / "b", b"b")
    (project / "out" / "link").symlink_to("model")
    (project / "out" / "nothing in it").mkdir()
    assert asked(project, "out/model")
    assert asked(project, "out")


def test_a_link_may_not_be_moved(project: Path) -> None:
    save(project / "model", b"weights")
    (project / "link").symlink_to("model")
    save(project / "out" / "model", b"weights")
    (project / "linked").symlink_to("out")
    assert not asked(project, "link")
    assert not asked(project, "linked")


@pytest.mark.parametrize("left_out", ["__pycache__/x.pyc", ".git/config", "deeper/.git/HEAD"])
def test_a_directory_is_moved_only_where_all_of_it_is_saved(project: Path, left_out: str) -> None:
    save(project / "out" / "model", b"weights")
    assert asked(project, "out")
    save(project / "out" / left_out, b"perhaps not saved")
    saved = {entry.name for entry in entries_of(project, "out")}
    assert asked(project, "out") == (f"out/{left_out}" in saved)


def test_a_directory_with_ignored_files_may_not_be_moved(project: Path) -> None:
    save(project / "out" / "model", b"weights")
    save(project / "out" / "notes.txt", b"mine")
    (project / ".keepsakeignore").write_text("notes.txt\n", encoding="utf-8")
    saved = {entry.name for entry in entries_of(project, "out")}
    assert saved == {"out/model"}
    assert not asked(project, "out")


def test_a_directory_with_a_pipe_may_not_be_moved(project: Path) -> None:
    save(project / "out" / "model", b"weights")
    os.mkfifo(project / "out" / "pipe")
    assert not asked(project, "out")


def test_the_project_and_what_it_lies_in_may_not_be_moved(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(project / "model", b"weights")
    for path in (project, project.parent):
        entries = checkpoint_files(path.parent, path.name)[1]
        assert not may_be_moved(path, entries, project)
    (project / "out").mkdir()
    save(project / "out" / "model", b"weights")
    monkeypatch.chdir(project / "out")
    # The process lives there.
    assert not asked(project, "out")


# --- moving across devices, and failing -------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another device than the repository."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system that anybody may write to")
    with tempfile.TemporaryDirectory(dir=shared_memory) as directory:
        yield Path(directory)


@pytest.mark.parametrize("name", ["model", "out"])
def test_what_lies_on_another_device_stays_and_is_packed(
    repository: Repository, staging: Staging, project: Path, elsewhere: Path, name: str
) -> None:
    save(elsewhere / "model", LARGE)
    save(elsewhere / "out" / "model", LARGE)
    id = new_id()
    entries = entries_of(project, elsewhere / name)
    assert not snapshot.move(id, elsewhere / name, entries, staging)
    assert staging.ids() == set()
    assert (elsewhere / name).exists()
    assert not snapshot.clone(id, entries, staging)
    staging.pack(id, entries)
    assert list(content_of(repository, staging, id).values()) == [LARGE]


def test_a_file_that_has_gone_is_an_error_and_leaves_nothing(staging: Staging, project: Path) -> None:
    path = project / "model"
    save(path, LARGE)
    entries = entries_of(project, "model")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        snapshot.move(new_id(), path, entries, staging)
    assert staging.ids() == set()


def test_a_file_that_must_not_be_taken_stays_where_it_is(
    staging: Staging, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project / "model"
    save(path, LARGE)

    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self == path:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(self))
        return rename(self, target)

    entries = entries_of(project, "model")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        with pytest.raises(PermissionError):
            snapshot.move(new_id(), path, entries, staging)
    assert staging.ids() == set()
    assert path.read_bytes() == LARGE
